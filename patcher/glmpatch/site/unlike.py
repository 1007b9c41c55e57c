"""Where a file differs from the known ones, and what that makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from glmpatch import catalogue
from glmpatch.catalogue import Row
from glmpatch.language import _
from glmpatch.patch import Answers, PatchState
from glmpatch.site import record
from glmpatch.site.examination import Examination
from glmpatch.site.folder import read_file
from glmpatch.site.neighbours import Unknown
from glmpatch.site.target import Target

if TYPE_CHECKING:
    from glmpatch.source.form import Form


def unproven(
    target: Target, found: Examination, rows: Sequence[Row], own: Form, mended: Form
) -> Examination:
    """A file that nothing but a proof vouches for; ``own`` is its form as it stands."""
    table = catalogue.table(found.patch)
    origin = table.origin(found.sha256)
    differs = _differences(rows, mended)
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
        line=differs[0].line if differs else None,
        differs=_in_words(differs),
        unasked=unasked(target, found, rows, mended),
        unasked_now=unasked(target, found, rows, own),
        origin=origin,
    )


def unasked(target: Target, found: Examination, rows: Sequence[Row], own: Form) -> tuple[str, ...]:
    """Where the file differs, and its patch's questions judge nothing; none, for numbers, which
    go through the whole file. Where no file of the release is known, one as released will do.
    """
    proof = found.patch.proof
    if not isinstance(proof, Answers):
        return ()
    if not rows and as_released(target, found.file, found.sha256):
        return ()
    released = catalogue.table(found.patch).rows
    differs = _differences(rows or released, own)
    return _in_words([each for each in differs if not _is_asked(each, proof, released)])


def _is_asked(differs: Difference, proof: Answers, released: Sequence[Row]) -> bool:
    """Whether right answers say something of a difference.

    They judge what a function does when it is called. What else happens where a definition stands
    (another base class imported under the old name, an assignment that puts a method on a class)
    is seen by nobody, unless it is upstream's of some release.
    """
    name = differs.name.rpartition(".")[2]
    hook = name.startswith("__") and name != "__init__"  # Python calls it, whatever is asked
    if hook or differs.moved or not any(fnmatchcase(differs.name, each) for each in proof.asks):
        return False
    return differs.kind != "code" or any(
        row.parts.get(differs.name) == differs.digest for row in released
    )


def as_released(target: Target, file: str, digest: str) -> bool:
    """Whether RECORD says that a file is as it was released."""
    if target.dist_info is None:
        return False
    try:
        listed = record.released(read_file(target.dist_info / "RECORD"), file)
    except OSError:
        return False
    return listed == digest


class Difference(NamedTuple):
    """A definition that is not as in a known file. ``line`` is None where it is missing, ``moved``
    says that it is the same, in another place."""

    name: str
    line: int | None
    digest: str = ""
    kind: str = ""
    moved: bool = False


def _differences(rows: Sequence[Row], own: Form) -> list[Difference]:
    """Where the file is not as the nearest known one."""
    every = (_from(row, own) for row in rows)
    return min(every, key=len, default=[])


def _from(row: Row, own: Form) -> list[Difference]:
    names = {part.name: part for part in own.parts}
    found = [
        Difference(part.name, part.line, part.digest, part.kind)
        for part in own.parts
        if row.parts.get(part.name) != part.digest
    ]
    found += [Difference(name, None) for name in row.parts if name not in names]
    # Where a function stands does not matter.
    fixed = [part for part in own.parts if part.kind != "function" and part.name in row.parts]
    order = [name for name in row.parts if name in names and names[name].kind != "function"]
    moved = [part for part, name in zip(fixed, order, strict=True) if part.name != name]
    found += [Difference(part.name, part.line, moved=True) for part in moved[:1]]
    if not found and own.digest != row.form:
        # Statements that count as one, such as imports, with others between them.
        found.append(Difference("statements", None, moved=True))
    return found


def _in_words(differs: Sequence[Difference]) -> tuple[str, ...]:
    return tuple(map(_place, differs))


def _place(differs: Difference) -> str:
    name, line = differs.name, differs.line
    if differs.moved:
        if line is None:
            return _("the order of its statements")
        return _("{name} line {line} (in another place)", name=name, line=line)
    if line is None:
        return _("{name} is missing", name=name)
    return _("{name} line {line}", name=name, line=line)


def with_neighbour(
    target: Target, found: Examination, rows: Sequence[Row], beside: Unknown | None
) -> Examination:
    """A file that counts on one that is not as released: numbers go through that one too, and
    answers only in part."""
    if beside is None or not isinstance(found.patch.proof, Answers):
        return found
    if not rows and as_released(target, beside.file, found.neighbours[beside.file]):
        return found
    return replace(
        found,
        unasked=(*found.unasked, beside.file),
        unasked_now=(*found.unasked_now, beside.file),
    )


def with_reason(target: Target, found: Examination, rows: Sequence[Row], own: Form) -> Examination:
    """Drifted: the first place that was not found says why."""
    assert found.plan is not None
    problem, line = found.plan.problem, found.plan.line
    lost = next((f for f in found.findings if f.reason), None)
    if not problem and lost is not None:
        problem, line = f"{lost.rewrite}: {lost.reason}", lost.line
    lacking = unasked(target, found, rows, own)
    return replace(
        found,
        state=PatchState.DRIFTED,
        problem=problem,
        line=line,
        differs=_in_words(_differences(rows, own)),
        unasked=lacking,
        unasked_now=lacking,
    )
