"""What a verification says, in lines: which proof it was, which it was not, and the figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from patcher.verify.driver import FACTOR, Behaved, Result, Verification

COLUMNS = ("mode", "engine", "vLLM", "noise", "limit", "wrong file", "same token")


def heading(verification: Verification) -> Iterator[str]:
    """Which proofs these were, and which they were not."""
    lines = _numbers(verification) if verification.results else []
    asked = ", ".join(dict.fromkeys(each.patch for each in verification.behaviours))
    if asked:
        lines[-1:] = [f"{line};" for line in lines[-1:]]
        lines.append(f"{asked}: by the answers of vLLM's configuration; no model was run")
    for number, line in enumerate(lines):
        yield ("       " if number else "proof: ") + line


def _numbers(verification: Verification) -> list[str]:
    what = "vLLM's model file" if verification.way == "module" else "vLLM's whole engine"
    lines = [
        f"{what} on the {verification.device} in {verification.precision}, against Transformers "
        f"on {verification.weights};"
    ]
    if verification.way == "module":
        lines.append(
            "not the engine: its attention kernels, paged cache and compilation were not run"
        )
        return lines
    modes = {result.mode for result in verification.results}
    left_out = [f"the {mode} mode" for mode in ("eager", "compiled") if mode not in modes]
    if verification.device == "CPU":
        left_out.append("a GPU's kernels and graphs")
    if verification.processes == 1:
        left_out.append("more than one device")
    if left_out:
        lines.append(f"not {', nor '.join(left_out)}")
    return lines


def verdicts(verification: Verification) -> Iterator[str]:
    """For each file the verdict over all modes, and the figures under it."""
    for key in dict.fromkeys((each.patch, each.file) for each in verification.results):
        results = [each for each in verification.results if (each.patch, each.file) == key]
        if verification.way == "module":
            for each in results:
                yield from verdict(each)
                yield from _figures(each)
        else:
            yield _headline(*key, all(each.passed for each in results))
            yield from _table(results)


def verdict(result: Result | Behaved) -> Iterator[str]:
    """The verdict on one file, and the error in which it ended."""
    yield _headline(result.patch, result.file, result.passed)
    if result.crash is not None:
        yield from _crash(result.crash)


def _headline(patch: str, file: str, passed: bool) -> str:
    verdict = click.style("passed", fg="green") if passed else click.style("FAILED", fg="red")
    return f"{patch}: {verdict} ({file} file)"


def witnesses(verification: Verification) -> Iterator[str]:
    """What the same engine says with Transformers' own model."""
    for patch in dict.fromkeys(each.patch for each in verification.witnesses):
        yield f"{patch}: the same with Transformers' own model"
        yield from _table([each for each in verification.witnesses if each.patch == patch])


def throughput(verification: Verification) -> Iterator[str]:
    """How fast the model file and Transformers' own model are in the same engine."""
    timed = verification.throughput
    if timed:
        yield f"tokens per second, {verification.load}:"
        yield f"  {'patch':<20}{'model':<14}{'mode':<10}{'engine':<8}{'prefill':>9}{'decode':>9}"
    for each in timed:
        rates = (
            f"  {each.error['type']}: {each.error['message'].splitlines()[0]}"
            if each.error
            else f"{each.prefill:9,.0f}{each.decode:9,.0f}"
        )
        yield f"  {each.patch:<20}{each.implementation:<14}{each.mode:<10}{each.engine:<8}{rates}"


def _figures(result: Result) -> Iterator[str]:
    if result.crash is not None:
        return
    yield f"  worst log-probability difference  {_away(result)}"
    yield (
        f"  limit                             {result.limit:.1e} "
        f"({FACTOR:.0f} x the reference's own noise, {result.noise:.1e})"
    )
    if result.wrong is not None:
        yield f"  nearest wrong file known          {result.wrong:.1e}"
    yield f"  most likely next token equal      {result.equal} of {result.tokens} positions"


def _table(results: Sequence[Result]) -> Iterator[str]:
    """Worst differences of log-probabilities; one line a mode, and the crashes under them."""
    rows = [COLUMNS, *((each.mode or "", each.engine or "", *figures(each)) for each in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for number, row in enumerate(rows):
        cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        verdict = "" if number == 0 else "  passed" if results[number - 1].passed else "  FAILED"
        yield f"  {cells}{verdict}".rstrip()
    for each in results:
        if each.crash is not None:
            yield f"  {each.mode}, {each.engine}:"
            yield from _crash(each.crash)


def figures(result: Result) -> tuple[str, ...]:
    """vLLM's distance, noise, limit, the nearest wrong file and the tokens that agree."""
    return (
        "crashed" if result.crash else _away(result),
        f"{result.noise:.1e}",
        f"{result.limit:.1e}",
        "" if result.wrong is None else f"{result.wrong:.1e}",
        "" if result.crash else f"{result.equal} of {result.tokens}",
    )


def _crash(crash: Mapping[str, Any]) -> Iterator[str]:
    yield f"  {crash['type']}: {crash['message']}"
    if crash["place"]:
        yield f"  at {crash['place']}"


def _away(result: Result) -> str:
    return "not finite" if result.distance is None else f"{result.distance:.1e}"
