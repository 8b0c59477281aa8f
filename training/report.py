"""The report: the figures as JSON, and as one self-contained HTML page that is a function of that JSON alone."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from data.config import Config
from training import charts, verdicts
from training.baselines import CHAMPION, CONSTANT, VIDEO_RATE
from training.charts import ForestRow, Line
from training.pages import page_templates
from training.verdicts import BASELINE_TEXT, METRIC_TEXT, headline_metrics

Figures = Mapping[str, Any]

BASELINE_STYLE = {VIDEO_RATE: "rate", CHAMPION: "champion"}
SLICE_TEXT = {"new_user": "user", "new_video": "video", "exploration": "traffic"}


def write_report(figures: Figures, config: Config, path_html: Path, path_json: Path) -> None:
    """Write both files; each appears under its name when it is whole.

    ``figures`` are those of :func:`training.figures.evaluate` and what :mod:`training.evaluate` says about the bundle;
    ``progressive``, if there, holds figures of the training days, each scored before it was trained on.
    """
    report = document(figures, config)
    write_text(path_json, json.dumps(report, indent=1, allow_nan=False) + "\n")
    write_text(path_html, render(report))


def document(figures: Figures, config: Config) -> dict[str, Any]:
    """The figures with what the page needs to know of the configuration."""
    objectives = [o.model_dump(mode="json", include={"name", "family", "kind", "label", "given"}) for o in config.objectives]
    about = {"name": config.name, "dataset": config.dataset, "timezone": config.timezone, "objectives": objectives}
    return {"configuration": about, **figures}


def render(report: Figures) -> str:
    """The page of a :func:`document`."""
    environment = page_templates()
    environment.filters |= {"percent": _percent, "signed": verdicts.signed}
    environment.globals |= {"cell": _cell, "baseline_text": BASELINE_TEXT, "baseline_style": BASELINE_STYLE}
    objectives = report["objectives"]
    about = {o["name"]: o for o in report["configuration"]["objectives"]}
    return environment.get_template("report.html").render(
        report=report,
        about=about,
        summary=verdicts.summary(objectives),
        cards=[_card(name, objectives[name], about[name]) for name in objectives],
        by_kind={kind: {n: o for n, o in objectives.items() if o["kind"] == kind} for kind in ("binary", "regression")},
        baselines=list(dict.fromkeys(name for o in objectives.values() for name in o["baselines"])),
        drawn=list(dict.fromkeys(name for o in objectives.values() for name in o["baselines"] if name != CONSTANT)),
        by_day=[(name, _by_day(name, report["by_day"])) for name in objectives],
        progressive=list(_progressive(report)),
        calibration=[(name, _calibration(name, o), o) for name, o in objectives.items()],
        forests=[(name, _forest(name, report)) for name in objectives],
        notes=list(_notes(report)),
        undefined=list(_undefined(objectives)),
    )


def _card(name: str, objective: Figures, about: Figures) -> dict[str, Any]:
    labels = [(metric, METRIC_TEXT[metric]) for metric in headline_metrics(objective["kind"])]
    return {
        "name": name,
        "about": about,
        "objective": objective,
        "metrics": labels,
        "comparisons": verdicts.comparisons(objective),
        "warnings": verdicts.warnings(objective),
    }


def _by_day(name: str, by_day: Figures) -> Markup | None:
    days = list(by_day)
    if not days:
        return None
    parts = [by_day[day][name] for day in days]
    metric = headline_metrics(parts[0]["kind"])[0]  # the constant has no order worth a line
    series = [
        Line(
            BASELINE_TEXT.get(baseline, baseline),
            [part["baselines"].get(baseline, {}).get(metric) for part in parts],
            [],
            BASELINE_STYLE.get(baseline, "champion"),
        )
        for baseline in dict.fromkeys(baseline for part in parts for baseline in part["baselines"] if baseline != CONSTANT)
    ]
    model = Line("the model", [p[metric] for p in parts], [p[f"{metric}_interval"] for p in parts], "model")
    return charts.lines(
        f"{name}: {METRIC_TEXT[metric]} by day, with its 95% interval, and the baselines", days, [*series, model]
    )


def _progressive(report: Figures) -> Iterator[tuple[str, Markup | None]]:
    by_day = (report.get("progressive") or {}).get("by_day") or {}
    for name in report["objectives"] if by_day else ():
        if all(name in day for day in by_day.values()):
            yield name, _by_day(name, by_day)


def _calibration(name: str, objective: Figures) -> Markup | None:
    bins = objective.get("calibration") or []
    text = f"{name}: actual against predicted mean in {len(bins)} bins of equal mass; on the diagonal they agree"
    raw = objective.get("raw_calibration") or []
    return charts.calibration(text + (", the line is of predictions as the network made them" if raw else ""), bins, raw)


def _forest(name: str, report: Figures) -> Markup | None:
    whole = report["objectives"][name]
    metric = headline_metrics(whole["kind"])[0]
    rows = [ForestRow("all rows", whole[metric], whole[f"{metric}_interval"], f"{whole['count']:,}")]
    for slice_name, values in report["slices"].items():
        rows.append(ForestRow(SLICE_TEXT.get(slice_name, slice_name), heading=True))
        for value, objectives in values.items():
            part = objectives[name]
            rows.append(ForestRow(f"  {value}", part[metric], part[f"{metric}_interval"], f"{part['count']:,}"))
    title = f"{name}: {METRIC_TEXT[metric]} by slice with 95% intervals and rows; the line is the value over all rows"
    return charts.forest(title, rows, whole[metric])


def _notes(report: Figures) -> Iterator[str]:
    """What the figures rest on that a reader would not guess."""
    for table in report.get("undated_tables") or ():
        yield (
            f"The {table} table is undated: its values are taken as known at every time, "
            "so figures may profit from what was only known later."
        )
    slates = report.get("slates")
    if slates and slates != "requests":
        yield f"Slates are a {slates}. Requests are not logged, so GAUC orders rows that one user saw, not one answer's."
    if "proxy" in (report.get("position") or ""):
        yield f"Position is a {report['position']}, not the logged one."
    if report.get("protocol") == "progressive":
        yield "Each day was scored before the model was trained on it; the weights differ from day to day."
    if CHAMPION in next((list(o["baselines"]) for o in report["objectives"].values()), []):
        yield f"The previous champion is bundle {report.get('previous_champion') or 'unknown'}, scored on the same rows."
    for name, objective in ((o["name"], o) for o in report["configuration"]["objectives"]):
        if objective["given"]:
            yield f"{name} is judged only on rows where {objective['given']} happened, and its predictions are conditional."
    yield from report.get("notes") or ()


def _undefined(objectives: Figures) -> Iterator[tuple[str, str, str]]:
    """(objective, metrics, reason) of what is null, but for what its kind rules out."""
    for name, objective in objectives.items():
        reasons: dict[str, list[str]] = {}
        for metric, reason in objective["undefined"].items():
            if reason not in ("binary", "regression"):
                reasons.setdefault(reason, []).append(metric.replace("_", " "))
        for reason, metrics in reasons.items():
            yield name, ", ".join(metrics), reason


def _cell(figures: Figures, metric: str, sign: bool = False) -> Markup:
    """A figure over its interval, or a dash that says why."""
    value = figures[metric]
    if value is None:
        reason = figures["undefined"].get(metric, "undefined")
        return Markup('<span class="none" title="{}">–<span class="sr"> undefined: {}</span></span>').format(reason, reason)
    show = verdicts.signed if sign else _number
    text = Markup("<b>{}</b>").format(show(value))
    bounds = figures.get(f"{metric}_interval")
    if bounds is None:
        reason = figures["undefined"].get(f"{metric}_interval")
        return text + Markup(' <small title="{}">no interval</small>').format(reason) if reason else text
    return text + Markup(" <small>{} to {}</small>").format(show(bounds[0]), show(bounds[1]))


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 or not share else f"{share:.2g}".rstrip("0") if share < 1e-4 else f"{share:.2%}"


def write_text(path: Path, text: str) -> None:
    """Write a file that appears under its name when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".tmp-{path.name}")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
