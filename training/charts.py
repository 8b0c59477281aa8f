"""Plots as inline SVG, from numbers alone: no file, no script, no request, colours from the page's style sheet.

Drawn by hand rather than by a plotting library, so that a plot follows the page's light or dark theme, its labels are
the page's text, and names from the logs are escaped in one place. Every chart carries its description as a title.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from markupsafe import Markup

WIDTH = 360
Interval = Sequence[float] | None
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Line:
    """A line over days: ``values`` and ``intervals`` per day, None where undefined; ``style`` is a CSS class."""

    label: str
    values: Sequence[float | None]
    intervals: Sequence[Interval]
    style: str


def lines(title: str, days: Sequence[str], series: Sequence[Line]) -> Markup | None:
    """Lines over days with interval bands; None when nothing is defined."""
    known = [v for line in series for v in line.values if v is not None]
    known += [bound for line in series for pair in line.intervals if pair is not None for bound in pair]
    if not known:
        return None
    top, bottom, left, right = 10, 160, 46, WIDTH - 12
    ticks = linear_ticks(min(known), max(known))
    y = _linear(ticks[0], ticks[-1], bottom, top)
    x = _linear(0, max(len(days) - 1, 1), left + 12, right - 12) if len(days) > 1 else (lambda _: (left + right) / 2)
    parts = [_grid_y(ticks, y, left, right)]
    for i in _spread(len(days), 5):
        parts.append(_text(x(i), bottom + 18, days[i][5:], "middle"))
    for line in series:
        parts += _line(line, x, y)
    return _svg(title, bottom + 26, parts)


def calibration(title: str, bins: Sequence[dict[str, Any]], raw: Sequence[dict[str, Any]] = ()) -> Markup | None:
    """Predicted against actual per bin, with the diagonal and intervals, on log axes where predictions span 20-fold; and,
    as a line, the bins of the predictions before they were calibrated."""
    if not bins:
        return None
    both = [*bins, *raw]
    positive = [v for b in both for v in (b["predicted"], b["actual"]) if v > 0]
    log = min(b["predicted"] for b in both) > 0 and bins[-1]["predicted"] > 20 * bins[0]["predicted"] and bool(positive)
    high = max([*(b["actual"] for b in both), *(b["predicted"] for b in both)])
    low = min(positive) if log else min(0.0, *(b["actual"] for b in both), *(b["predicted"] for b in both))
    top, bottom, left, right = 10, 230, 60, WIDTH - 18
    ticks = log_ticks(low, high) if log else linear_ticks(low, high)
    scale = _log if log else _linear
    x, y = scale(ticks[0], ticks[-1], left, right), scale(ticks[0], ticks[-1], bottom, top)
    floor = ticks[0]
    parts = [_grid_y(ticks, y, left, right)]
    parts += [_text(x(tick), bottom + 18, number(tick), "middle") for tick in (ticks if len(ticks) < 7 else ticks[::2])]
    parts.append(f'<line class="diagonal" x1="{left}" y1="{bottom}" x2="{right}" y2="{top}"/>')
    if raw:
        points = " ".join(f"{x(max(b['predicted'], floor)):.1f},{y(max(b['actual'], floor)):.1f}" for b in raw)
        parts.append(f'<polyline class="line raw" points="{points}"/>')
    for b in bins:
        here = x(max(b["predicted"], floor))
        means = f"predicted {number(b['predicted'])}, actual {number(b['actual'])}"
        tip = f"{means}, {b['count']:,} rows, {b['positives']:,} positive"
        if b["actual_interval"] is not None:
            lo, hi = (min(max(v, floor), ticks[-1]) for v in b["actual_interval"])
            parts.append(f'<line class="whisker model" x1="{here:.1f}" x2="{here:.1f}" y1="{y(lo):.1f}" y2="{y(hi):.1f}"/>')
        style = "dot model" if b["actual"] >= floor else "dot model hollow"
        parts.append(_dot(here, y(max(b["actual"], floor)), style, tip))
    parts.append(_text((left + right) / 2, bottom + 36, "predicted" + (" (log)" if log else ""), "middle"))
    middle = f"translate(11 {(top + bottom) / 2:.0f}) rotate(-90)"
    parts.append(f'<text class="tick" transform="{middle}" text-anchor="middle">actual</text>')
    return _svg(title, bottom + 44, parts)


@dataclass(frozen=True)
class ForestRow:
    """A line of a forest plot; ``heading`` rows carry text only, ``style`` is the dot's CSS class."""

    label: str
    value: float | None = None
    interval: Interval = None
    note: str = ""
    heading: bool = False


def forest(title: str, rows: Sequence[ForestRow], reference: float | None, longest: int = 17) -> Markup | None:
    """A value with its interval per row, one under the other, and a line at ``reference`` (the whole window's). Labels of
    more than ``longest`` characters are cut."""
    known = [row.value for row in rows if row.value is not None]
    if not known:
        return None
    tight = [bound for row in rows if row.interval is not None for bound in row.interval]
    ticks = linear_ticks(min([*known, *tight]), max([*known, *tight]), 4)
    label_width, note_width, step, top = 2 + 6 * longest, 62, 19, 6
    left, right, bottom = label_width, WIDTH - note_width, top + step * len(rows)
    x = _linear(ticks[0], ticks[-1], left, right)
    parts = [f'<line class="grid" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="{top}" y2="{bottom}"/>' for t in ticks]
    parts += [_text(x(t), bottom + 14, number(t), "middle") for t in ticks]
    if reference is not None and ticks[0] <= reference <= ticks[-1]:
        parts.append(f'<line class="diagonal" x1="{x(reference):.1f}" x2="{x(reference):.1f}" y1="{top}" y2="{bottom}"/>')
    for i, row in enumerate(rows):
        middle = top + step * (i + 0.5)
        style = "label heading" if row.heading else "label"
        parts.append(f'<text class="{style}" x="2" y="{middle + 4:.1f}">{escape(shorten(row.label, longest))}</text>')
        parts.append(f'<text class="tick" x="{WIDTH - 2}" y="{middle + 4:.1f}" text-anchor="end">{escape(row.note)}</text>')
        if row.value is None:
            continue
        if row.interval is not None:
            lo, hi = (x(v) for v in row.interval)
            parts.append(f'<line class="whisker model" x1="{lo:.1f}" x2="{hi:.1f}" y1="{middle:.1f}" y2="{middle:.1f}"/>')
        style = "dot model" if row.interval is not None else "dot model hollow"
        parts.append(_dot(x(row.value), middle, style, f"{row.label}: {row.value:.3f}"))
    return _svg(title, bottom + 22, parts)


def linear_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers, evenly apart, that hold [low, high] between the first and the last."""
    span = high - low
    if span <= 0:
        span = abs(high) * 0.1 or 1.0
        low, high = low - span / 2, high + span / 2
    rough = span / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * next(m for m in (1, 2, 2.5, 5, 10) if m * unit >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten (tens alone over three decades) that hold [low, high]."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(decades) > 4 else (1, 2, 5)
    ticks = [float(f"{m}e{d}") for d in decades for m in factors]
    first = max(i for i, t in enumerate(ticks) if t <= low * 1.0001)
    last = min((i for i, t in enumerate(ticks) if t >= high * 0.9999), default=len(ticks) - 1)
    return ticks[first : max(last, first + 1) + 1]


def number(value: float) -> str:
    """Short, without a trailing zero: 0.72, 1,200, 2e-05."""
    if value and abs(value) < 1e-3:
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _line(line: Line, x: Scale, y: Scale) -> list[str]:
    parts: list[str] = []
    for run in _runs([interval is not None for interval in line.intervals]):
        bounds = [(x(i), *(y(b) for b in line.intervals[i] or ())) for i in run]
        if len(run) == 1:
            px, lo, hi = bounds[0]
            parts.append(f'<line class="whisker {line.style}" x1="{px:.1f}" x2="{px:.1f}" y1="{lo:.1f}" y2="{hi:.1f}"/>')
        else:
            edge = [f"{px:.1f},{hi:.1f}" for px, _, hi in bounds] + [f"{px:.1f},{lo:.1f}" for px, lo, _ in reversed(bounds)]
            parts.append(f'<polygon class="band {line.style}" points="{" ".join(edge)}"/>')
    for run in _runs([value is not None for value in line.values]):
        points = [(x(i), y(line.values[i] or 0.0)) for i in run]
        if len(run) > 1:
            path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
            parts.append(f'<polyline class="line {line.style}" points="{path}"/>')
        parts += [
            _dot(px, py, f"dot {line.style}", f"{line.label}: {line.values[i]:.4f}")
            for i, (px, py) in zip(run, points, strict=True)
        ]
    return parts


def _runs(flags: Sequence[bool]) -> list[list[int]]:
    """The runs of consecutive true positions."""
    runs: list[list[int]] = []
    for i, flag in enumerate(flags):
        if flag and runs and runs[-1][-1] == i - 1:
            runs[-1].append(i)
        elif flag:
            runs.append([i])
    return runs


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` positions out of ``count``, evenly apart, from the first."""
    return list(range(0, count, max(1, math.ceil(count / most))))


def _linear(low: float, high: float, start: float, end: float) -> Scale:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _log(low: float, high: float, start: float, end: float) -> Scale:
    linear = _linear(math.log(low), math.log(high), start, end)
    return lambda value: linear(math.log(value))


def _grid_y(ticks: Sequence[float], y: Scale, left: float, right: float) -> str:
    return "".join(
        f'<line class="grid" x1="{left}" x2="{right}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        + _text(left - 6, y(t) + 4, number(t), "end")
        for t in ticks
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _dot(x: float, y: float, style: str, tip: str) -> str:
    return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{escape(tip)}</title></circle>'


def _svg(title: str, height: float, parts: Sequence[str]) -> Markup:
    text = escape(title)
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{text}"><title>{text}</title>{"".join(parts)}</svg>'
    )
