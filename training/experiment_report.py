"""An experiment's figures as a table for the console, and as one self-contained HTML page."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.table import Table

from training import charts
from training.charts import ForestRow, Line
from training.pages import page_templates
from training.report import write_text

Figures = Mapping[str, Any]

NOTHING = "too few users"
CHIPS = {"better": "better", "worse": "worse", "noise": "noise", "unknown": "not judged"}


def write_report(figures: Figures, path_html: Path, path_json: Path) -> None:
    """Write both files; each appears under its name when it is whole."""
    write_text(path_json, json.dumps(figures, indent=1, allow_nan=False) + "\n")
    write_text(path_html, render(figures))


def tables(figures: Figures) -> Iterator[Table]:
    """The arms, then every metric of every treatment."""
    arms = Table("arm", "share", "users", "expected", title=_check_text(figures))
    for arm in figures["arms"]:
        name = f"{arm['name']} (control)" if arm["control"] and arm["name"] != "control" else arm["name"]
        arms.add_row(name, f"{arm['share']:.1%}", f"{arm['users']:,}", f"{arm['expected']:,.1f}")
    yield arms
    if figures["announced"] is not None:
        yield power_table(figures["announced"])
    control = next(arm["name"] for arm in figures["arms"] if arm["control"])
    for treatment in (arm["name"] for arm in figures["arms"] if not arm["control"]):
        table = Table("metric", control, treatment, "difference", "relative", "interval, looking daily", "", title=treatment)
        if figures["history_days"]:
            table.caption = f"differences, not levels, are adjusted for the {figures['history_days']} days before"
        for metric in figures["metrics"]:
            effect = metric["against_control"][treatment]
            levels = (number(metric["levels"][name]) for name in (control, treatment))
            table.add_row(metric["name"], *levels, *_cells(effect))
        yield table


def _cells(effect: Figures | None) -> list[str]:
    if effect is None:
        return ["", "", NOTHING, ""]
    relative = percent(effect["relative"])
    return [number(effect["difference"], True), relative, span(effect["relative_interval"]), CHIPS[effect["verdict"]]]


def power_table(figures: Figures) -> Table:
    """What was announced before an experiment."""
    days, planned = len(figures["days"]), figures["planned_days"]
    title = f"{figures['users']:,} users; rehearsed on {figures['days'][0]} to {figures['days'][-1]}"
    if days < planned:
        title += f" ({days} of the planned {planned} days: there are no more; rather too low than too high)"
    columns = (
        "metric",
        "treatment",
        "level",
        "found, looking daily",
        "at the end",
        f"least effect at {figures['wanted']:.0%}",
    )
    table = Table(*columns, title=f"the power to find {figures['effect']:+.2%}: {title}")
    for metric in figures["metrics"]:
        for treatment, found in metric["treatments"].items():
            cells = [NOTHING, "", "", ""] if found is None else _power_cells(found)
            table.add_row(metric["name"], treatment, *cells)
    return table


def _power_cells(found: Figures) -> list[str]:
    return [number(found["level"]), f"{found['daily']:.0%}", f"{found['at_end']:.0%}", f"{found['least_effect']:.2%}"]


def render(figures: Figures) -> str:
    """The page: a function of the figures alone."""
    environment = page_templates()
    environment.filters |= {"percent": percent, "number": number, "span": span}
    treatments = [arm["name"] for arm in figures["arms"] if not arm["control"]]
    return environment.get_template("experiment.html").render(
        report=figures,
        chips=CHIPS,
        check=_check_text(figures),
        control=next(arm["name"] for arm in figures["arms"] if arm["control"]),
        treatments=treatments,
        forests=[(name, _forest(figures, name)) for name in treatments],
        by_day=[(name, list(_by_day(figures, name))) for name in treatments],
    )


def _check_text(figures: Figures) -> str:
    ratio = figures["sample_ratio"]
    if ratio["failed"]:
        return f"sample-ratio check FAILED on {ratio['failed_on']}"
    return f"sample-ratio check passed (p = {ratio['p_value']:.2g}, level {ratio['level']:g})"


def _forest(figures: Figures, treatment: str) -> Markup | None:
    rows = []
    for metric in figures["metrics"]:
        effect = metric["against_control"][treatment]
        if effect is not None and effect["relative"] is not None:
            bounds = effect["relative_interval"]
            interval = None if bounds is None else [100 * bound for bound in bounds]
            rows.append(ForestRow(metric["name"], 100 * effect["relative"], interval, percent(effect["relative"])))
    title = f"{treatment}: difference from the control in percent of it, with intervals that may be looked at daily"
    return charts.forest(title, rows, 0.0, longest=24)


def _by_day(figures: Figures, treatment: str) -> Iterator[tuple[str, Markup | None]]:
    for metric in figures["metrics"]:
        looks = (metric["against_control"][treatment] or {}).get("by_day") or []
        looks = [look for look in looks if look["relative_interval"] is not None]
        values = [None if look["relative"] is None else 100 * look["relative"] for look in looks]
        intervals = [[100 * bound for bound in look["relative_interval"]] for look in looks]
        title = f"{treatment}, {metric['name']}: difference from the control in percent, as known after each day"
        days = [look["day"] for look in looks]
        yield metric["name"], charts.lines(title, days, [Line(treatment, values, intervals, "model")])


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2%}"


def number(value: float | None, sign: bool = False) -> str:
    if value is None:
        return "–"
    size = abs(value)
    digits = ",.0f" if size >= 10_000 else ",.2f" if size >= 10 else ".4f"
    return format(value, ("+" if sign else "") + digits)


def span(bounds: tuple[float, float] | None) -> str:
    return "–" if bounds is None else f"{bounds[0]:+.2%} to {bounds[1]:+.2%}"
