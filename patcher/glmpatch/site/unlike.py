"""Where a file differs from the known ones, and what that makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from glmpatch import catalogue
from glmpatch.catalogue import Row
from glmpatch.language import _
from glmpatch.patch import Answers, PatchState
from glmpatch.site import record
from glmpatch.site.examination import Examination
from glmpatch.site.folder import read_file
from glmpatch.site.target import Target

if TYPE_CHECKING:
    from glmpatch.source.form import Form


def unproven(target: Target, found: Examination, rows: Sequence[Row], own: Form) -> Examination:
    table = catalogue.table(found.patch)
    origin = table.origin(found.sha256)
    differs = _differences(rows, own)
    if not rows:
        problem = _("no file of vLLM {version} is known to this glmpatch", version=target.version)
    elif origin:
        problem = _(
            "this is the file of vLLM {origin}, not of {version}",
            origin=_(" and ").join(origin),
            version=target.version,
        )
    else:
        problem = _("it differs from every known file elsewhere")
    return replace(
        found,
        state=PatchState.UNPROVEN,
        problem=problem,
        line=differs[0][1] if differs else None,
        differs=_in_words(differs),
        unasked=unasked(target, found, rows, own),
        origin=origin,
    )


def unasked(target: Target, found: Examination, rows: Sequence[Row], own: Form) -> tuple[str, ...]:
    """Where the file differs, and its patch's questions judge nothing; none, for numbers, which
    go through the whole file. Where no file of the release is known, one as released will do.
    """
    proof = found.patch.proof
    if not isinstance(proof, Answers) or (not rows and as_released(target, found)):
        return ()
    differs = _differences(rows or catalogue.table(found.patch).rows, own)
    return _in_words(
        [each for each in differs if not any(fnmatchcase(each[0], name) for name in proof.asks)]
    )


def as_released(target: Target, found: Examination) -> bool:
    """Whether RECORD says that the file is as it was released."""
    if target.dist_info is None:
        return False
    try:
        listed = record.released(read_file(target.dist_info / "RECORD"), found.file)
    except OSError:
        return False
    return listed == found.sha256


def _differences(rows: Sequence[Row], own: Form) -> list[tuple[str, int | None]]:
    """Definitions that are not as in the nearest known file, with their lines; none is missing."""
    nearest: list[tuple[str, int | None]] | None = None
    for row in rows:
        names = {part.name for part in own.parts}
        found: list[tuple[str, int | None]] = [
            (part.name, part.line) for part in own.parts if row.parts.get(part.name) != part.digest
        ]
        found += [(name, None) for name in row.parts if name not in names]
        if nearest is None or len(found) < len(nearest):
            nearest = found
    return nearest or []


def _in_words(differs: Sequence[tuple[str, int | None]]) -> tuple[str, ...]:
    return tuple(
        _("{name} is missing", name=name)
        if line is None
        else _("{name} line {line}", name=name, line=line)
        for name, line in differs
    )


def with_reason(target: Target, found: Examination, rows: Sequence[Row], own: Form) -> Examination:
    """Drifted: the first place that was not found says why."""
    assert found.plan is not None
    problem, line = found.plan.problem, found.plan.line
    lost = next((f for f in found.findings if f.reason), None)
    if not problem and lost is not None:
        problem, line = f"{lost.rewrite}: {lost.reason}", lost.line
    return replace(
        found,
        state=PatchState.DRIFTED,
        problem=problem,
        line=line,
        differs=_in_words(_differences(rows, own)),
        unasked=unasked(target, found, rows, own),
    )
