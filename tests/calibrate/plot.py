"""A plot of faults: each a row, its margins dots on a logarithmic axis, the right file a bar."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

LOW, HIGH = 0.01, 1e6
"""Ends of the axis: times the limit."""
WIDTH, LEFT, ROW = 940, 440, 15
DARK, GREY, PALE = "#24292f", "#57606a", "#d0d7de"


@dataclass(frozen=True)
class Series:
    """``right`` is the right file's largest share of the limit; ``least`` the smallest of each
    fault, None where it ends in an error. ``ring`` draws rings in place of dots."""

    label: str
    colour: str
    right: float
    least: Mapping[str, float | None]
    ring: bool = False


def plot(title: str, names: Sequence[str], series: Sequence[Series]) -> str:
    """The picture; names from top to bottom."""
    top = 54 + ROW * len(series)
    bottom = top + ROW * len(names)
    step = 40 + 6 * max(len(each.label) for each in series)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + 34}" '
        f'viewBox="0 0 {WIDTH} {bottom + 34}" font-family="sans-serif" font-size="11" '
        'role="img" aria-labelledby="title desc">\n'
        f'<title id="title">{title}</title>\n'
        f'<desc id="desc">{len(names)} faults as rows, dots for '
        f"{' and '.join(each.label for each in series)}; right of the "
        "line at 1 a fault is found. The table on the page has the numbers.</desc>\n"
        '<rect width="100%" height="100%" fill="#ffffff"/>\n',
        _text(10, 18, title, weight="bold"),
    ]
    for number, each in enumerate(series):
        y = 40 + number * ROW
        parts.append(
            f'<rect x="{_x(LOW):.1f}" y="{y}" width="{_x(each.right) - _x(LOW):.1f}" height="7" '
            f'fill="{each.colour}"/>\n'
        )
        parts.append(_text(LEFT - 8, y + 8, f"right file, largest, {each.label}", "end"))
        key = WIDTH - step * (len(series) - number)
        parts.append(_dot(key, 14, each))
        parts.append(_text(key + 9, 18, each.label, colour=each.colour))
    for power in range(round(math.log10(LOW)), round(math.log10(HIGH)) + 1):
        at, colour = _x(10.0**power), GREY if power == 0 else PALE
        parts.append(f'<path d="M{at:.1f} 36V{bottom}" stroke="{colour}"/>\n')
        parts.append(_text(at, bottom + 16, f"{10.0**power:g}", "middle"))
    for number, name in enumerate(names):
        y = top + ROW * number
        parts.append(_text(LEFT - 8, y + 11, name, "end"))
        known = [each for each in series if name in each.least]
        if known and all(each.least[name] is None for each in known):
            parts.append(_text(_x(1) + 8, y + 11, "ends in an error", colour=GREY))
        for each in known:
            least = each.least[name]
            if least is not None:
                parts.append(_dot(_x(least), y + 7, each))
    return "".join(parts) + "</svg>\n"


def _x(value: float) -> float:
    kept = min(max(value, LOW), HIGH)
    share = math.log(kept / LOW) / math.log(HIGH / LOW)
    return LEFT + share * (WIDTH - LEFT - 20)


def _dot(x: float, y: float, series: Series) -> str:
    drawn = f'fill="{series.colour}"'
    if series.ring:
        drawn = f'fill="none" stroke="{series.colour}" stroke-width="1.5"'
    return f'<circle cx="{x:.1f}" cy="{y}" r="{5 if series.ring else 4}" {drawn}/>\n'


def _text(
    x: float,
    y: float,
    text: str,
    anchor: str = "start",
    weight: str = "normal",
    colour: str = DARK,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="{colour}">{escape(text)}</text>\n'
    )
