"""The differences of one result at each position, as a picture in SVG."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Sequence

from glmpatch.language import N_, _
from glmpatch.proof.result import Result

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 880, 300, 70, 40, 10
LEGEND = {
    "noise": ("#757575", "&#9679;", N_("noise of the reference")),
    "vllm": ("#0b5fff", "&#9679;", "vLLM"),
    "limit": ("#b00020", "- -", N_("limit")),
}
"""What is drawn: its colour, its mark and its name."""
DESCRIBED = N_(
    "vLLM's difference from the reference at {positions} positions, at most {vllm:.1e}; the noise "
    "of the reference, at most {noise:.1e}; the limit, {line:.1e}."
)


def plot(result: Result, name: str) -> str:
    """The difference at each position on a logarithmic scale: noise, vLLM and the limit.

    ``name`` is markup: the title that a screen reader says.
    """
    noise = [value for each in result.noise_series for value in each]
    vllm = [value for each in result.series for value in each]
    line = result.line or 0.0
    levels = [value for value in (*noise, *vllm, line) if value] or [1.0]
    low = math.floor(math.log10(max(min(levels), max(levels) * 1e-9)))
    high = max(math.ceil(math.log10(max(levels))), low + 1)

    def x(position: float) -> float:
        return LEFT + (WIDTH - LEFT - 10) * (position + 0.5) / len(vllm)

    def y(value: float) -> float:
        share = (math.log10(max(value, 10.0**low)) - low) / (high - low)
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share

    told = {"positions": len(vllm), "vllm": max(vllm), "line": line}
    told["noise"] = max(noise, default=0.0)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">\n<title>{name}</title>\n'
        f"<desc>{html.escape(_(DESCRIBED, **told), quote=False)}</desc>\n"
    ]
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - 10}" stroke="#e2e2e2"/>')
        parts.append(
            f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">1e{power:+03d}</text>'
        )
    parts += _prompts(result.series, x)
    if line:
        parts.append(
            f'<path d="M{LEFT} {y(line):.1f}H{WIDTH - 10}" stroke="{LEGEND["limit"][0]}" '
            'stroke-width="2" stroke-dasharray="8 4"/>'
        )
    for label, values in (("noise", noise), ("vllm", vllm)):
        dots = "".join(
            f'<circle cx="{x(i):.1f}" cy="{y(value):.1f}" r="2.5"/>'
            for i, value in enumerate(values)
        )
        parts.append(f'<g fill="{LEGEND[label][0]}">{dots}</g>')
    return "".join(parts) + "\n</svg>\n"


def _prompts(series: Sequence[Sequence[float]], x: Callable[[float], float]) -> Iterator[str]:
    """Where each prompt begins, and how many positions it has."""
    start = 0
    for number, each in enumerate(series):
        middle = x(start + len(each) / 2 - 0.5)
        if number:
            yield f'<path d="M{x(start - 0.5):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#bbbbbb"/>'
        yield (
            f'<text x="{middle:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">'
            f"{len(each)}</text>"
        )
        start += len(each)
    below = html.escape(_("positions, prompt by prompt"))
    yield (f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{below}</text>')
