"""Two kinds of picture as small SVG files of their own: bars of ratios, and curves of growth.

Made by hand: a plotting library would weigh more than all that glmpatch depends on, and what it
draws changes with its version.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from tests.bench.data import Spread

COLOURS = ("#1f6feb", "#bf5700", "#1a7f37", "#8250df")
HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
    'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" role="img">\n'
    '<title>{title}</title>\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
)
LEFT, WIDTH, ROW, TOP = 400, 830, 22, 44
"""Pixels: where the bars begin, the whole width, one row, and where the first row begins."""
PANEL, GAP, HEIGHT = 330, 70, 300
"""Pixels: the width of one panel of curves, the space left of it, the height of the picture."""


def bars(title: str, rows: Sequence[tuple[str, Spread, float | None]]) -> str:
    """A bar for each label from 1 to its ratio, the middle half as a line, the budget as a mark.

    The axis is logarithmic: half as long and twice as long are equally far from 1.
    """
    ends = [value for _, spread, budget in rows for value in (*spread, budget or 1.0)]
    low, high = _decades(min(ends), max(ends))
    height = TOP + ROW * len(rows) + 30

    def x(value: float) -> float:
        share = (math.log10(value) - low) / (high - low)
        return LEFT + share * (WIDTH - LEFT - 60)

    parts = [HEAD.format(width=WIDTH, height=height, title=escape(title))]
    parts.append(_text(10, 20, title, weight="bold"))
    bottom = TOP + ROW * len(rows)
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(_line(at, TOP - 8, at, bottom, "#d0d7de"))
        parts.append(_text(at, bottom + 16, f"{10.0**power:g} x", "middle"))
    parts.append(_line(x(1), TOP - 8, x(1), bottom, "#57606a"))
    for number, (label, spread, budget) in enumerate(rows):
        y = TOP + ROW * number
        start, end = sorted((x(1), x(spread.median)))
        parts.append(_text(LEFT - 8, y + 12, label, "end"))
        over = budget is not None and round(spread.median, 2) > budget
        colour = COLOURS[1] if over else COLOURS[0]
        parts.append(
            f'<rect x="{start:.1f}" y="{y + 2}" width="{end - start:.1f}" height="12" '
            f'fill="{colour}"/>\n'
        )
        parts.append(_line(x(spread.low), y + 8, x(spread.high), y + 8, "#24292f"))
        if budget is not None:
            parts.append(_line(x(budget), y - 1, x(budget), y + 17, COLOURS[2], 3))
        side = max(end, x(spread.high), x(budget or spread.high)) + 6
        parts.append(_text(side, y + 12, f"{spread.median:.2f}"))
    return "".join(parts) + "</svg>\n"


def curves(title: str, panels: Sequence[tuple[str, str, Mapping[str, Mapping[int, float]]]]) -> str:
    """Panels side by side (heading, unit of x, curves by name), both axes logarithmic."""
    width = GAP + len(panels) * (PANEL + GAP)
    parts = [HEAD.format(width=width, height=HEIGHT, title=escape(title))]
    for number, (heading, unit, drawn) in enumerate(panels):
        parts.append(_panel(GAP + number * (PANEL + GAP), heading, unit, drawn))
    return "".join(parts) + "</svg>\n"


def _panel(left: int, heading: str, unit: str, drawn: Mapping[str, Mapping[int, float]]) -> str:
    points = [point for curve in drawn.values() for point in curve.items()]
    low_x, high_x = _decades(*_ends([x for x, _ in points]))
    low_y, high_y = _decades(*_ends([y for _, y in points]))
    top, bottom = 60, HEIGHT - 60

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - low_x) / (high_x - low_x)
        up = (math.log10(y) - low_y) / (high_y - low_y)
        return left + across * (PANEL - 20), bottom - up * (bottom - top)

    parts = [_text(left, 24, heading, weight="bold")]
    for power in range(low_y, high_y + 1):
        _, y = place(10.0**low_x, 10.0**power)
        parts.append(_line(left, y, left + PANEL - 20, y, "#d0d7de"))
        parts.append(_text(left - 6, y + 4, f"{10.0**power:g}", "end"))
    for power in range(low_x, high_x + 1):
        x, _ = place(10.0**power, 10.0**low_y)
        parts.append(_line(x, top, x, bottom, "#d0d7de"))
        parts.append(_text(x, bottom + 16, f"{10**power:,}", "middle"))
    parts.append(_text(left + (PANEL - 20) / 2, bottom + 32, unit, "middle"))
    for number, (name, curve) in enumerate(drawn.items()):
        colour = COLOURS[number]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in curve.items()))
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>\n'
        )
        for point in curve.items():
            x, y = place(*point)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>\n')
        parts.append(_text(left + number * 165, 44, name, colour=colour))
    return "".join(parts)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _decades(low: float, high: float) -> tuple[int, int]:
    """Powers of ten around two numbers, never the same."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return first, max(last, first + 1)


def _line(x: float, y: float, x2: float, y2: float, colour: str, width: int = 1) -> str:
    return (
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"/>\n'
    )


def _text(
    x: float,
    y: float,
    text: str,
    anchor: str = "start",
    weight: str = "normal",
    colour: str = "#24292f",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="{colour}">{escape(text)}</text>\n'
    )
