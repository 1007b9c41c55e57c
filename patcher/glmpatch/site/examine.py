"""What the patches mean for one target: reads the files, judges them whole, writes nothing.

A file is known when its form, or that of the file with all defects mended, is the right one of
this release, and when its neighbours are. Released and repaired files are known by their sha256
alone, and nothing is parsed then. Whatever differs anywhere else is unproven: only a proof can
vouch for it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from glmpatch import catalogue
from glmpatch.catalogue import Row
from glmpatch.errors import Exit, Failure
from glmpatch.language import _
from glmpatch.patch import Finding, Patch, PatchState, RewriteState, paths_of
from glmpatch.site import receipt as receipts
from glmpatch.site.examination import Examination, all_fixed, all_lost, drifted
from glmpatch.site.folder import read_file
from glmpatch.site.neighbours import Unknown, neighbours, unknown_neighbour
from glmpatch.site.outside import outside
from glmpatch.site.path import must_be_readable, refusal
from glmpatch.site.target import Target
from glmpatch.site.unlike import unproven, with_neighbour, with_reason
from glmpatch.site.vouched import by_proof, ours
from glmpatch.source import sha256
from glmpatch.source.unreadable import told

if TYPE_CHECKING:
    from glmpatch.source.form import Form
    from glmpatch.source.plan import Plan


def examine(target: Target, patch: Patch, any_version: bool = False) -> Examination:
    """The state of a patch on a target.

    Raises:
        Failure: the file is there and may not be read, or a receipt is not understood.
    """
    meant = target.version is not None and patch.covers(target.version)
    file = _file(target, patch, meant)
    path = target.root / file
    found = Examination(
        patch,
        path,
        file,
        PatchState.NOT_APPLICABLE,
        receipt=receipts.read(target, patch.id, file),
        covered=meant or any_version,
    )
    problem = refusal(target.root, path)
    if problem:
        missing = not os.path.lexists(path)
        lost = meant or (any_version and not missing)
        return replace(
            found,
            state=PatchState.DRIFTED if lost else found.state,
            data=None if missing or not path.is_file() else must_be_readable(read_file, path),
            findings=all_lost(patch, target),
            problem=problem,
        )
    data = must_be_readable(read_file, path)
    found = replace(found, data=data, neighbours=neighbours(target, patch))
    judged = _judged(target, found) if meant else outside(target, found, any_version)
    return _run_otherwise(target, judged)


def examine_all(
    target: Target, patches: Sequence[Patch], any_version: bool = False
) -> tuple[Examination, ...]:
    return tuple(examine(target, patch, any_version) for patch in patches)


def planned(target: Target, found: Examination) -> Plan:
    """The plan for a file, made now where the table had answered; held against the table.

    Raises:
        Failure: the result is not what the table says that it is: a fault of glmpatch.
    """
    if found.plan is not None:
        return found.plan
    from glmpatch.source.plan import make_plan

    assert found.data is not None
    version = target.version if found.covered else None
    right = [found.row.mended] if found.row is not None else []
    plan = make_plan(found.patch, found.data, version, right=right)
    if found.row is not None and sha256(plan.after) != found.row.mended:
        raise Failure(
            Exit.INTERNAL,
            _(
                "{patch}: {path} mended is {found}..., and by the table of known files it must be "
                "{wanted}...; nothing was written",
                patch=found.patch.id,
                path=found.path,
                found=sha256(plan.after)[:12],
                wanted=found.row.mended[:12],
            ),
            _("report it, with the versions of glmpatch and libcst (pip list)"),
        )
    return plan


def _file(target: Target, patch: Patch, meant: bool) -> str:
    """The file that a patch is about in this vLLM."""
    if meant:
        return patch.path(target.version)
    there = (path for path in paths_of(patch.file) if os.path.lexists(target.root / path))
    return next(there, patch.path())


def _judged(target: Target, found: Examination) -> Examination:
    table = catalogue.table(found.patch)
    rows = [row for row in table.of(target.version) if row.file == found.file]
    digest = found.sha256
    beside = unknown_neighbour(target, table, found)
    row = next((row for row in rows if digest in (row.sha256, row.mended)), None)
    if row is None or beside:
        read = with_neighbour(target, _read(target, found, rows, beside), rows, beside)
        return by_proof(target, read)
    if digest == row.sha256:
        listed = tuple(Finding(r, RewriteState(s), n) for r, s, n in row.findings)
        return ours(target, replace(found, state=row.state, row=row, findings=listed))
    return ours(target, replace(found, state=PatchState.FIXED, findings=all_fixed(found, target)))


def _read(
    target: Target, found: Examination, rows: Sequence[Row], beside: Unknown | None
) -> Examination:
    """The state of a file that is no released or repaired one byte for byte."""
    from glmpatch.source import form
    from glmpatch.source.plan import make_plan

    assert found.data is not None
    right = {row.form for row in rows}
    try:
        own = form.read(found.data)
    except form.Unreadable as error:
        return drifted(found, target, told(error.reason), error.line)
    if own.digest in right:
        fixed = replace(found, state=PatchState.FIXED, findings=all_fixed(found, target))
        return _vouched(target, fixed, found.data, own, beside)
    plan = make_plan(found.patch, found.data, target.version)
    found = replace(found, plan=plan, findings=plan.findings)
    if plan.state is PatchState.DRIFTED:
        return with_reason(target, found, rows, own)
    try:
        result = form.read(plan.after) if plan.after != plan.before else own
    except form.Unreadable as error:
        problem = _("mended, it is no Python: {reason}", reason=told(error.reason))
        return drifted(found, target, problem, error.line)
    if result.digest in right:
        needed = replace(found, state=PatchState.NEEDED)
        return _vouched(target, needed, plan.after, result, beside)
    return unproven(target, found, rows, own, result)


def _vouched(
    target: Target, found: Examination, data: bytes, own: Form, beside: Unknown | None
) -> Examination:
    """The examination, where the owner of vLLM reads the same program, and the neighbours are
    known."""
    from glmpatch.site import owner

    reason = owner.refuses(target, data, own.digest)
    if reason:
        return drifted(found, target, reason, None)
    if beside or reason is None:
        problem = beside.problem if beside else _(owner.NOBODY_TELLS)
        return replace(found, state=PatchState.UNPROVEN, problem=problem)
    return found


def _run_otherwise(target: Target, found: Examination) -> Examination:
    """Drifted, where the source is right, and Python runs an old compiled form all the same.

    A file that is written loses its bytecode; one that was right before may have kept it.
    """
    known = (PatchState.FIXED, PatchState.APPLIED, PatchState.NEEDED)
    if found.state not in known or found.data is None:
        return found
    from glmpatch.site import bytecode

    own = [] if found.state is PatchState.NEEDED else [found.path]
    every = [*own, *(target.root / file for file in found.neighbours)]
    run = (must_be_readable(bytecode.in_place_of, path) for path in every)
    old = next((each for each in run if each is not None), None)
    if old is None:
        return found
    problem = _(
        "Python runs {compiled} in its place, compiled from another source: {command}",
        compiled=old,
        command="rm " + shlex.quote(str(old)),
    )
    return drifted(replace(found, proven=False, wheel=""), target, problem, None)
