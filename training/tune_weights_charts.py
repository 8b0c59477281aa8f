"""The chart to choose ranking weights from: two objectives against each other, as inline SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from training.charts import linear_ticks, number

WIDTH, HEIGHT = 520, 380
LEFT, RIGHT, TOP, BOTTOM = 58, WIDTH - 14, 12, HEIGHT - 44
DIGITS = 6.2
"""Units that a digit is wide."""


@dataclass(frozen=True)
class Point:
    """A setting: its place, intervals where it is an estimate, the number beside it, and how it is drawn."""

    x: float
    y: float
    label: str
    tip: str
    style: str  # current, chosen, plain or other
    front: bool = False  # on the line
    x_interval: Sequence[float] | None = None
    y_interval: Sequence[float] | None = None


def scatter(title: str, axes: tuple[str, str], points: Sequence[Point]) -> Markup | None:
    """Points with their intervals as crosses, and a line along the front. None without points."""
    if not points:
        return None
    spans = []
    for key, bounds in (("x", "x_interval"), ("y", "y_interval")):
        values = [getattr(point, key) for point in points]
        values += [end for point in points for end in getattr(point, bounds) or ()]
        spans.append(linear_ticks(min(values), max(values), 5))
    ticks_x, ticks_y = spans

    def at_x(value: float) -> float:
        return LEFT + (value - ticks_x[0]) / (ticks_x[-1] - ticks_x[0]) * (RIGHT - LEFT)

    def at_y(value: float) -> float:
        return BOTTOM - (value - ticks_y[0]) / (ticks_y[-1] - ticks_y[0]) * (BOTTOM - TOP)

    parts = []
    for tick in ticks_x:
        parts.append(f'<line class="grid" x1="{at_x(tick):.1f}" x2="{at_x(tick):.1f}" y1="{TOP}" y2="{BOTTOM}"/>')
        parts.append(_text(at_x(tick), BOTTOM + 16, number(tick), "middle"))
    for tick in ticks_y:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{at_y(tick):.1f}" y2="{at_y(tick):.1f}"/>')
        parts.append(_text(LEFT - 6, at_y(tick) + 4, number(tick), "end"))
    parts.append(_text((LEFT + RIGHT) / 2, HEIGHT - 8, axes[0], "middle"))
    turned = f"translate(12 {(TOP + BOTTOM) / 2:.0f}) rotate(-90)"
    parts.append(f'<text class="tick" transform="{turned}" text-anchor="middle">{escape(axes[1])}</text>')
    along = " ".join(f"{at_x(p.x):.1f},{at_y(p.y):.1f}" for p in sorted(points, key=lambda p: p.x) if p.front)
    parts.append(f'<polyline class="way" points="{along}"/>' if along else "")
    for p in points:
        if p.x_interval is not None and p.y_interval is not None:
            (x0, x1), (y0, y1), x, y = map(at_x, p.x_interval), map(at_y, p.y_interval), at_x(p.x), at_y(p.y)
            parts.append(f'<line class="cross {p.style}" x1="{x0:.1f}" x2="{x1:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<line class="cross {p.style}" x1="{x:.1f}" x2="{x:.1f}" y1="{y0:.1f}" y2="{y1:.1f}"/>')
    parts += [_dot(at_x(point.x), at_y(point.y), point) for point in points]
    parts += _numbers(points, [(at_x(point.x), at_y(point.y)) for point in points])
    text = escape(title)
    head = f'<svg class="scatter" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text}"><title>{text}</title>'
    return Markup(f"{head}{''.join(parts)}</svg>")


def _dot(x: float, y: float, point: Point) -> str:
    tip, radius = escape(point.tip), 3 if point.style == "other" else 5
    return f'<circle class="spot {point.style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{tip}</title></circle>'


def _numbers(points: Sequence[Point], places: Sequence[tuple[float, float]]) -> list[str]:
    """Numbers beside the points that have one, where they touch no other number; the first come first."""
    taken: list[tuple[float, float, float]] = []
    parts = []
    for point, (x, y) in zip(points, places, strict=True):
        width = DIGITS * len(point.label)
        for dx, dy in ((8, -6), (8, 14), (-8 - width, -6), (-8 - width, 14)):
            left, base = x + dx, y + dy
            free = all(left > b or left + width < a or abs(base - c) > 11 for a, b, c in taken)
            if point.label and free and LEFT < left < RIGHT - width:
                taken.append((left, left + width, base))
                parts.append(f'<text class="label" x="{left:.1f}" y="{base:.1f}">{escape(point.label)}</text>')
                break
    return parts


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
