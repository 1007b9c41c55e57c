"""A verification as one web page that needs no network: what one attaches to a ticket."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence

import click

from patcher import __version__
from patcher.verify import table
from patcher.verify.driver import FACTOR, Result, Verification

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 880, 300, 70, 40, 10
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2em auto; padding: 0 1em;
  color: #1a1a1a; background: #ffffff }
table { border-collapse: collapse } td, th { padding: .2em .8em; text-align: left;
  border-bottom: 1px solid #cccccc }
pre { white-space: pre-wrap; background: #f4f4f4; padding: 1em }
svg { width: 100%; height: auto } svg text { font: 12px system-ui, sans-serif; fill: #1a1a1a }
.passed { color: #0a6b2d } .failed { color: #b00020 }
"""
MARKS = {"noise": "#8a8a8a", "vllm": "#0b5fff", "limit": "#b00020", "wrong": "#b35c00"}


def page(verification: Verification, vllm: str) -> str:
    """The whole page. ``vllm`` is what the command says of the vLLM that was looked at."""
    verdict = "passed" if verification.passed else "failed"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>glmpatch verify: {verdict}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<h1>glmpatch verify: <span class="{verdict}">{verdict}</span></h1>\n'
        + "".join(_body(verification, vllm))
        + "</body>\n</html>\n"
    )


def _body(verification: Verification, vllm: str) -> Iterator[str]:
    yield f"<p>{_text(vllm)}</p>\n"
    yield f"<p>{_text(' '.join(' '.join(table.heading(verification)).split()))}</p>\n"
    shown = (*verification.results, *verification.witnesses)
    yield "<table>\n<tr>" + "".join(
        f"<th>{name}</th>"
        for name in (
            "patch",
            "file",
            "mode",
            "engine",
            "vLLM",
            "noise",
            "limit",
            "wrong file",
            "same token",
        )
    )
    yield "<th></th></tr>\n"
    for each in shown:
        verdict = "passed" if each.passed else "failed"
        cells = (each.patch, each.file, each.mode or "-", each.engine or "-", *table.figures(each))
        yield "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells)
        yield f'<td class="{verdict}">{verdict}</td></tr>\n'
    yield "</table>\n"
    yield (
        "<p>Worst absolute difference of log-probabilities (natural logarithm) from Transformers "
        "one precision above, over the whole vocabulary that vLLM names. Noise: Transformers in "
        f"the tested precision. Limit: {FACTOR:.0f} times the worst noise. Wrong file: the nearest "
        "file known to be wrong, measured on a CPU when the limit was chosen.</p>\n"
    )
    for each in shown:
        name = ", ".join(part for part in (each.patch, each.file, each.mode, each.engine) if part)
        yield f"<h2>{_text(name)}</h2>\n"
        if each.crash is not None:
            yield f"<pre>{_text(each.crash['type'])}: {_text(each.crash['message'])}</pre>\n"
        elif each.series:
            yield plot(each, name)
        else:
            yield "<p>not a number</p>\n"
    lines = [click.unstyle(line) for line in table.throughput(verification)]
    if lines:
        yield f"<h2>Throughput</h2>\n<pre>{_text(chr(10).join(lines))}</pre>\n"
    versions = ", ".join(f"{k} {v}" for k, v in verification.versions.items())
    yield f"<p>{_text(versions)}, glmpatch {__version__}; {verification.seconds:.0f} s</p>\n"


def plot(result: Result, name: str) -> str:
    """The difference at each position on a logarithmic scale: noise, vLLM and the limit."""
    noise = [value for each in result.noise_series for value in each]
    vllm = [value for each in result.series for value in each]
    lines = {"limit": result.limit, "wrong": result.wrong}
    levels = [v for v in (*noise, *vllm, *lines.values()) if v]
    low = math.floor(math.log10(max(min(levels), max(levels) * 1e-9)))
    high = max(math.ceil(math.log10(max(levels))), low + 1)

    def x(position: float) -> float:
        return LEFT + (WIDTH - LEFT - 10) * (position + 0.5) / len(vllm)

    def y(value: float) -> float:
        share = (math.log10(max(value, 10.0**low)) - low) / (high - low)
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{_text(name)}">']
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - 10}" stroke="#e2e2e2"/>')
        parts.append(
            f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">1e{power:+03d}</text>'
        )
    parts += _prompts(result.series, x)
    for label, level in lines.items():
        if level:
            parts.append(
                f'<path d="M{LEFT} {y(level):.1f}H{WIDTH - 10}" stroke="{MARKS[label]}" '
                f'stroke-width="2" stroke-dasharray="{"8 4" if label == "limit" else "2 4"}"/>'
            )
    for label, values in (("noise", noise), ("vllm", vllm)):
        dots = "".join(
            f'<circle cx="{x(i):.1f}" cy="{y(value):.1f}" r="2.5"/>'
            for i, value in enumerate(values)
        )
        parts.append(f'<g fill="{MARKS[label]}">{dots}</g>')
    parts.append("</svg>\n<p>")
    legend = {"noise": "noise of the reference", "vllm": "vLLM", "limit": "limit"}
    if result.wrong:
        legend["wrong"] = "nearest wrong file"
    parts += [
        f'<span style="color:{MARKS[label]}">{"--" if label in lines else "&#9679;"}</span> {text} '
        for label, text in legend.items()
    ]
    return "".join(parts) + "</p>\n"


def _prompts(series: Sequence[Sequence[float]], x: object) -> Iterator[str]:
    """Where each prompt begins, and how many positions it has."""
    assert callable(x)
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
    yield (
        f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        "positions, prompt by prompt</text>"
    )


def _text(text: str) -> str:
    return html.escape(text)
