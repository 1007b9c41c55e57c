"""What a verification says, in lines: which proof it was, which it was not, and the verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from glmpatch.language import _
from glmpatch.proof.judge import KINDS
from glmpatch.proof.result import Result, Verification
from glmpatch.width import columns, padded


def heading(verification: Verification) -> Iterator[str]:
    """Which proofs these were, and which they were not."""
    kinds = dict.fromkeys(each.kind for each in verification.results)
    parts = [line for kind in kinds for line in KINDS[kind].heading(verification)]
    parts += [_("not {what}", what=_(each)) for each in verification.left_out]
    begin, end = _("proof: "), _(";")
    for number, line in enumerate(parts):
        ended = line if line.endswith(end) or number == len(parts) - 1 else f"{line}{end}"
        yield (" " * columns(begin) if number else begin) + ended


def verdicts(verification: Verification) -> Iterator[str]:
    """For each file the verdict over all ways, and what it stands on under it."""
    for patch, file in dict.fromkeys((each.patch, each.file) for each in verification.results):
        passed = verification.passed_file(patch, file)
        verdict = click.style(
            _("passed") if passed else _("FAILED"), fg="green" if passed else "red"
        )
        yield _("{patch}: {verdict} ({file} file)", patch=patch, verdict=verdict, file=_(file))
        yield from _told(verification.of(patch, file))


def _told(results: tuple[Result, ...]) -> Iterator[str]:
    for kind in dict.fromkeys(each.kind for each in results):
        yield from KINDS[kind].lines([each for each in results if each.kind == kind])


def witnesses(verification: Verification) -> Iterator[str]:
    """What the same engine says with Transformers' own model."""
    for patch in dict.fromkeys(each.patch for each in verification.witnesses):
        yield _("{patch}: the same with Transformers' own model", patch=patch)
        yield from _told(tuple(e for e in verification.witnesses if e.patch == patch))


def throughput(verification: Verification) -> Iterator[str]:
    """How fast the model file and Transformers' own model are in the same engine."""
    timed = verification.throughput
    if timed:
        yield _("tokens per second, {load}:", load=_(verification.load))
        heads = ((_("patch"), 20), (_("model"), 14), (_("mode"), 10), (_("engine"), 8))
        yield "  " + "".join(padded(*each) for each in heads) + f"{'prefill':>9}{'decode':>9}"
    for each in timed:
        rates = (
            "  " + _("{type}: {message}", type=each.error["type"], message=_first(each.error))
            if each.error
            else f"{each.prefill:9,.0f}{each.decode:9,.0f}"
        )
        yield f"  {each.patch:<20}{each.implementation:<14}{each.mode:<10}{each.engine:<8}{rates}"


def _first(error: Mapping[str, Any]) -> str:
    """The first line of what it says."""
    return _(error["message"]).splitlines()[0]
