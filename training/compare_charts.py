"""Heat maps as inline SVG: cosines between objectives, small enough to stand one a day."""

from collections.abc import Sequence
from html import escape

from markupsafe import Markup

CELL = 26
Matrix = Sequence[Sequence[float | None]]


def cosines(title: str, names: Sequence[str], matrix: Matrix, labels: bool) -> Markup:
    """A matrix [K, K] of cosines: the more opaque, the farther from 0; against each other in the colour of what is worse.

    Args:
        labels: whether the names stand beside the rows (they are always in the tips).
    """
    left = 6 + 6 * min(max(map(len, names)), 12) if labels else 0
    parts = []
    for i, row in enumerate(matrix):
        if labels:
            y = CELL * (i + 0.5) + 4
            parts.append(
                f'<text class="label" x="{left - 5}" y="{y:.0f}" text-anchor="end">{escape(_short(names[i]))}</text>'
            )
        for j, value in enumerate(row):
            parts.append(_cell(left + CELL * j, CELL * i, value, f"{names[i]} and {names[j]}", labels))
    size = CELL * len(names)
    text = escape(title)
    head = f'<svg class="cosines" viewBox="0 0 {left + size} {size}" style="max-width:{left + size}px" role="img"'
    return Markup(f'{head} aria-label="{text}"><title>{text}</title>{"".join(parts)}</svg>')


def _cell(x: float, y: float, value: float | None, pair: str, numbers: bool) -> str:
    if value is None:
        tip, style, opacity = f"{pair}: undefined", "nothing", 1.0
    else:
        tip, style, opacity = f"{pair}: {value:+.2f}", "with" if value >= 0 else "against", min(1.0, abs(value))
    parts = [
        f'<g><title>{escape(tip)}</title><rect class="{style}" x="{x}" y="{y}" width="{CELL - 1}" height="{CELL - 1}" '
        f'fill-opacity="{opacity:.2f}"/>'
    ]
    if numbers and value is not None and abs(value) < 0.995:
        number = f"{value:.2f}".replace("0.", ".").replace("-", "−")
        parts.append(
            f'<text class="number" x="{x + CELL / 2 - 0.5}" y="{y + CELL / 2 + 3}" text-anchor="middle">{number}</text>'
        )
    return "".join([*parts, "</g>"])


def _short(name: str) -> str:
    return name if len(name) <= 12 else name[:11] + "…"
