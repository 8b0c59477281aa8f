"""A comparison as JSON, and as one self-contained HTML page that is a function of that JSON alone."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from training import charts
from training.charts import ForestRow, Line
from training.compare_charts import cosines
from training.compare_figures import METRICS
from training.pages import page_templates
from training.report import write_text
from training.verdicts import headline_metrics, signed

Figures = Mapping[str, Any]

METRIC_TEXT = {
    "auc": "AUC",
    "gauc": "GAUC",
    "log_loss": "Log loss",
    "order_accuracy": "Order accuracy",
    "slate_order_accuracy": "Order in the slate",
    "mae": "MAE",
}
DASH = Markup('<span class="none">–</span>')


def write_page(figures: Figures, path_html: Path, path_json: Path) -> None:
    """Write both files; each appears under its name when it is whole."""
    write_text(path_json, json.dumps(figures, indent=1, allow_nan=False) + "\n")
    write_text(path_html, render(figures))


def render(report: Figures) -> str:
    """The page of a comparison's JSON."""
    environment = page_templates()
    environment.filters |= {"level": _level, "gap": _gap, "count": _count, "seconds": _seconds, "share": _share}
    return environment.get_template("compare.html").render(
        report=report,
        kinds={name: objective["kind"] for name, objective in report["objectives"].items()},
        metrics=METRICS,
        metric_text=METRIC_TEXT,
        headline={name: headline_metrics(o["kind"])[0] for name, o in report["objectives"].items()},
        rivals=[name for name in report["variants"] if name != report["baseline"]],
        forests=[(name, _forest(name, report)) for name in report["objectives"]],
        cosine_maps=list(_cosine_maps(report)),
        utilisation=[(name, v["gates"]) for name, v in report["variants"].items() if v["gates"]["utilisation"] is not None],
        costs=[*report["variants"].items(), *((f"only {o}", v) for o, v in report["single_task"].items())],
        by_chance=_by_chance(report),
    )


def _forest(objective: str, report: Figures) -> Markup | None:
    """Each variant minus the baseline on the headline metric."""
    metric = headline_metrics(report["objectives"][objective]["kind"])[0]
    found = {name: v["against_baseline"] for name, v in report["variants"].items() if v["against_baseline"] is not None}
    rows = [ForestRow(name, f[objective][metric]["mean"], f[objective][metric]["interval"]) for name, f in found.items()]
    title = (
        f"{objective}: {METRIC_TEXT[metric]} minus that of {report['baseline']}, 95% intervals; the line is no difference"
    )
    return charts.forest(title, rows, 0.0, longest=20)


def _cosine_maps(report: Figures) -> Iterator[tuple[str, list[tuple[str, Markup]], Markup | None, Markup | None]]:
    """Per variant its days' matrices, the mean of all days, and each pair's line over the days."""
    for variant, figures in report["variants"].items():
        by_day, names = figures["gradient_cosines"], figures["objective_names"]
        if not by_day:
            continue
        small = [(day, cosines(f"{variant}, {day}", names, matrix, False)) for day, matrix in by_day.items()]
        mean = [[_mean([m[i][j] for m in by_day.values()]) for j in range(len(names))] for i in range(len(names))]
        yield variant, small, cosines(f"{variant}: mean over the days", names, mean, True), _mean_line(variant, by_day)


def _mean_line(variant: str, by_day: Figures) -> Markup | None:
    """The mean cosine over all pairs by day, between the lowest and the highest pair."""
    pairs = [
        [m[i][j] for i in range(len(m)) for j in range(i) if m[i][j] is not None] for m in (by_day[day] for day in by_day)
    ]
    values = [_mean(day) for day in pairs]
    line = Line("mean over pairs", values, [(min(day), max(day)) if day else None for day in pairs], "model")
    return charts.lines(f"{variant}: mean cosine over all pairs by day; the band spans the pairs", list(by_day), [line])


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _by_chance(report: Figures) -> tuple[int, float]:
    """How many headline differences are judged, and how many of them 95% intervals would flag if nothing differed."""
    judged = sum(
        found[objective][headline_metrics(report["objectives"][objective]["kind"])[0]]["verdict"] != "unknown"
        for found in (v["against_baseline"] for v in report["variants"].values())
        if found is not None
        for objective in found
    )
    return judged, 0.05 * judged


def _level(found: Figures) -> Markup:
    """A mean over its deviation between seeds."""
    if found["mean"] is None:
        return DASH
    text = Markup("<b>{}</b>").format(_number(found["mean"]))
    return text if found["deviation"] is None else text + Markup(" <small>± {}</small>").format(_number(found["deviation"]))


def _gap(found: Figures | None, word: str | None = None) -> Markup:
    """A difference over its interval, with its verdict, or another ``word`` for it."""
    if found is None or found["mean"] is None:
        return DASH
    chip = Markup('<span class="chip {}">{}</span>').format(found["verdict"], word or found["verdict"])
    text = chip + Markup("<b>{}</b>").format(_signed(found["mean"]))
    if found["interval"] is not None:
        text += Markup(" <small>{} to {}</small>").format(*map(_signed, found["interval"]))
    return text


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"


def _signed(value: float) -> str:
    return signed(value) if abs(value) < 10 else f"{value:+.2f}".replace("-", "−")


def _count(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value / 1e6:,.2f} M" if value >= 1e6 else f"{value:,.0f}"


def _seconds(value: float) -> str:
    return f"{value:,.0f} s" if value >= 10 else f"{value:.1f} s"


def _share(value: float) -> str:
    return f"{value:.0%}" if value >= 0.1 else f"{value:.1%}"
