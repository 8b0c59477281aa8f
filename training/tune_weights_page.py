"""The page to choose ranking weights from: a function of the figures alone; and the same as a table for the console."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.table import Table

from training.pages import page_templates
from training.report import write_text
from training.tune_weights_charts import Point, scatter

Figures = Mapping[str, Any]
SHOWN = 14
"""Settings in the console's table."""


def write_page(figures: Figures, path_html: Path, path_json: Path) -> None:
    """Write both files; each appears under its name when it is whole."""
    write_text(path_json, json.dumps(figures, indent=1, allow_nan=False) + "\n")
    write_text(path_html, render(figures))


def render(figures: Figures) -> str:
    environment = page_templates()
    environment.filters |= {"percent": percent, "number": number, "span": span, "weights": weights_text}
    return environment.get_template("tune_weights.html").render(
        report=figures,
        says=says(figures),
        foretold=_foretold(figures),
        estimated=_estimated(figures),
        short=shortlist(figures),
        judged=sum(one["reason"] is None for one in figures["settings"]),
    )


def says(figures: Figures) -> str:
    """The result in a sentence or two."""
    settings = figures["settings"]
    known, current = sum(one["reason"] is None for one in settings), settings[0]
    if current["reason"] is not None:
        return f"Nothing can be estimated, not even the present weights: {current['reason']}."
    text = f"{known} of {len(settings)} settings are near enough to what was served for an estimate."
    if figures["chosen"] is None:
        return f"{text} Nothing was chosen yet."
    if figures["chosen"] == 0:
        return f"{text} The present weights stay: {figures['rule']}."
    return f"{text} Setting {figures['chosen']} was chosen ({figures['rule']})."


def shortlist(figures: Figures) -> list[Figures]:
    """The settings to choose from: the present one, the chosen one, and the front."""
    return [one for one in figures["settings"] if one["index"] in (0, figures["chosen"]) or one["front"]]


def table(figures: Figures) -> Table:
    """The shortlist by evidence, for the console."""
    axes = figures["axes"]
    columns = [column for name in axes for column in (f"{name} foreseen", f"{name} (DR)", "95%")]
    shown = Table("setting", *columns, "effective", "clipped", title=says(figures))
    some = sorted(shortlist(figures), key=lambda one: (one["index"] not in (0, figures["chosen"]), -one["effective"]))
    for one in some[:SHOWN]:
        cells = []
        for name in axes:
            values = one["objectives"][name]
            cells += [percent(values["foreseen_change"]), percent(values["change"]), span(values["change_interval"])]
        evidence = f"{one['effective']:,.0f}", f"{one['clipped']:.2%}"
        shown.add_row(_label(one, figures), *cells, *evidence)
    more = f"; {len(some) - SHOWN} more on the page" if len(some) > SHOWN else ""
    shown.caption = f"changes per slate against the present weights{more}"
    return shown


def _label(one: Figures, figures: Figures) -> str:
    note = "present" if one["index"] == 0 else "chosen" if one["index"] == figures["chosen"] else ""
    return f"{one['index']} ({note})" if note else str(one["index"])


def _foretold(figures: Figures) -> Markup | None:
    title = "What the predictions say of each setting, against the present weights"
    return scatter(title, _axes(figures), list(_points(figures, "foreseen_change")))


def _estimated(figures: Figures) -> Markup | None:
    title = "What the log says of each setting, against the present weights, with 95% intervals"
    return scatter(title, _axes(figures), list(_points(figures, "change")))


def _axes(figures: Figures) -> tuple[str, str]:
    first, second = figures["axes"]
    return f"{first} per slate, %", f"{second} per slate, %"


def _points(figures: Figures, key: str) -> Iterator[Point]:
    """The settings that have it; the front after the rest, so that it is on top."""
    for one in sorted(figures["settings"], key=lambda one: (one["index"] == 0, one["front"])):
        first, second = (one["objectives"][name] for name in figures["axes"])
        if first[key] is None or second[key] is None:
            continue
        special = "current" if one["index"] == 0 else "chosen" if one["index"] == figures["chosen"] else None
        named = special is not None or one["front"]
        crosses = [
            [100 * end for end in axis[f"{key}_interval"]] if named and key == "change" else None for axis in (first, second)
        ]
        yield Point(
            100 * first[key],
            100 * second[key],
            label=str(one["index"]) if named else "",
            tip=f"setting {one['index']}: {weights_text(one['weights'])}; {one['effective']:,.0f} effective",
            style=special or ("plain" if one["front"] else "other"),
            front=one["front"] and key == "foreseen_change",
            x_interval=crosses[0],
            y_interval=crosses[1],
        )


def weights_text(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items() if weight) or "none"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1%}"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def span(bounds: Sequence[float] | None) -> str:
    return "–" if bounds is None else f"{bounds[0]:+.1%} to {bounds[1]:+.1%}"
