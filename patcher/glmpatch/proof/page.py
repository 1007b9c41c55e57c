"""A verification as one web page that needs no network: what one attaches to a ticket."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence

import click

from glmpatch import __version__
from glmpatch.language import N_, _, spoken
from glmpatch.proof import lines
from glmpatch.proof.kinds import numbers
from glmpatch.proof.plot import LEGEND, plot
from glmpatch.proof.result import Result, Verification

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2em auto; padding: 0 1em;
  color: #1a1a1a; background: #ffffff; overflow-wrap: anywhere }
table { border-collapse: collapse } caption { text-align: left; padding: .4em 0 }
td, th { padding: .2em .8em .2em 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #cccccc; overflow-wrap: normal }
thead th { font-weight: 600; border-bottom-color: #666666 } tbody th { font-weight: 400 }
.wide { overflow-x: auto } .wide:focus { outline: 2px solid #0b5fff }
pre { white-space: pre-wrap; background: #f4f4f4; padding: 1em }
svg { width: 100%; height: auto } svg text { font: 12px system-ui, sans-serif; fill: #1a1a1a }
.passed { color: #0a6b2d } .failed { color: #b00020 }
@media print { body { max-width: none; margin: 0 } .wide { overflow: visible }
  table { font-size: 11px } section { break-inside: avoid } }
"""
EXPLAINED = N_(
    """\
Worst difference: of log-probabilities (natural logarithm) from Transformers one precision above,
over the whole vocabulary that vLLM names; its limit is a multiple of what Transformers itself is
away. The other figures are ratios to that noise, or shares of a fault with a name: a right file
has none of it. Wrong file: how many times its limit the nearest file known to be wrong is away,
measured on a CPU when the limits were chosen."""
)


def page(verification: Verification, vllm: str) -> str:
    """The whole page. ``vllm`` is what the command says of the vLLM that was looked at."""
    verdict, style = _text(_verdict(verification.passed)), _style(verification.passed)
    return (
        f'<!doctype html>\n<html lang="{spoken()}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>glmpatch verify: {verdict}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<main>\n<h1>glmpatch verify: <span class="{style}">{verdict}</span></h1>\n'
        + "".join(_body(verification, vllm))
        + "</main>\n</body>\n</html>\n"
    )


def _body(verification: Verification, vllm: str) -> Iterator[str]:
    yield f"<p>{_text(vllm)}</p>\n"
    yield f"<p>{_text(' '.join(' '.join(lines.heading(verification)).split()))}</p>\n"
    yield from _verdicts(verification)
    shown = (*verification.results, *verification.witnesses)
    figures = [each for each in shown if each.kind == "numbers"]
    if figures:
        yield f"<p>{_text(_(EXPLAINED))}</p>\n"
    for each in shown:
        title = ", ".join(p for p in (each.patch, _(each.file), each.precision, each.way) if p)
        yield f"<section>\n<h2>{_text(title)}</h2>\n"
        yield from _figures(each, title) if each.kind == "numbers" else _answers(each, title)
        yield "</section>\n"
    told = [click.unstyle(line) for line in lines.throughput(verification)]
    if told:
        heading = _text(_("Throughput"))
        yield f"<h2>{heading}</h2>\n<pre>{_text(chr(10).join(told))}</pre>\n"
    versions = ", ".join(f"{k} {v}" for k, v in verification.versions.items())
    yield f"<p>{_text(versions)}, glmpatch {__version__}; {verification.seconds:.0f} s</p>\n"


def _verdicts(verification: Verification) -> Iterator[str]:
    """One row for each result, of whatever kind."""
    rows = []
    for each in (*verification.results, *verification.witnesses):
        wrong = len(each.wrong_answers)
        if each.crash is not None:
            on = _(each.crash["type"])
        elif each.kind == "answers":
            every = len(each.answers)
            on = _("{right} of {number} answers right", right=every - wrong, number=every)
        else:
            name, value, limit = numbers.cells(each)[2:5]
            on = _("{name} {value}, limit {limit}", name=name, value=value, limit=limit)
        how = " ".join(part for part in (each.precision, each.way) if part)
        rows.append((each.patch, _(each.file), how or _("questions"), on, each.passed))
    yield from _table(
        _("What was proven, and how it came out"),
        (_("patch"), _("file"), _("way"), _("nearest to its limit"), _("verdict")),
        [(*row[:-1], _verdict(row[-1])) for row in rows],
        [row[-1] for row in rows],
    )


def _figures(result: Result, title: str) -> Iterator[str]:
    if result.crash is not None:
        yield _crash(result)
        return
    yield from _table(
        _("Every figure, and its limit"),
        (_("figure"), _("value"), _("limit"), _("verdict")),
        [
            (_(each.name), numbers.value(each), numbers.figure(each.limit), _verdict(each.passed))
            for each in result.statistics
        ],
        [each.passed for each in result.statistics],
    )
    told = _(
        "Most likely token equal at {equal} of {tokens} positions",
        equal=result.equal,
        tokens=result.tokens,
    )
    if result.wrong is not None:
        told += _("; nearest wrong file {times:.3g} x its limit", times=result.wrong)
    yield f"<p>{_text(told)}</p>\n"
    if result.series:
        yield plot(result, _text(title))
        yield (
            "<p>"
            + " ".join(
                f'<span style="color:{colour}">{mark}</span> {_text(_(text))}'
                for colour, mark, text in LEGEND.values()
            )
            + "</p>\n"
        )


def _answers(result: Result, title: str) -> Iterator[str]:
    if result.crash is not None:
        yield _crash(result)
        return
    yield from _table(
        _("Every question, with what is right"),
        (_("question"), _("answer"), _("right"), _("verdict")),
        [
            (_(a.question), a.answer, _(a.expected), _("right") if a.right else _("WRONG"))
            for a in result.answers
        ],
        [a.right for a in result.answers],
    )


def _crash(result: Result) -> str:
    assert result.crash is not None
    told = _("{type}: {message}", type=result.crash["type"], message=result.crash["message"])
    if result.crash["place"]:
        told += "\n" + _("at {place}", place=result.crash["place"])
    return f"<pre>{_text(told)}</pre>\n"


def _table(
    caption: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    passed: Sequence[bool],
) -> Iterator[str]:
    """A table whose last column is a verdict; on a narrow screen it scrolls by itself."""
    label = f'role="region" aria-label="{_text(caption)}" tabindex="0"'
    yield f'<div class="wide" {label}>\n<table>\n<caption>{_text(caption)}</caption>\n<thead><tr>'
    yield "".join(f'<th scope="col">{_text(head)}</th>' for head in heads)
    yield "</tr></thead>\n<tbody>\n"
    for (first, *others, verdict), good in zip(rows, passed, strict=True):
        yield f'<tr><th scope="row">{_text(first)}</th>'
        yield "".join(f"<td>{_text(cell)}</td>" for cell in others)
        yield f'<td class="{_style(good)}">{_text(verdict)}</td></tr>\n'
    yield "</tbody>\n</table>\n</div>\n"


def _verdict(passed: bool) -> str:
    return _("passed") if passed else _("failed")


def _style(passed: bool) -> str:
    """The class of a verdict, by which it has its colour."""
    return "passed" if passed else "failed"


def _text(text: str) -> str:
    return html.escape(text)
