"""What the patches mean for one target: reads the files, asks the rewriting, writes nothing."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patcher import receipts
from patcher.errors import Exit, Failure
from patcher.folder import read_file
from patcher.patch import Patch, PatchState, RewriteState, Unrecognized
from patcher.receipts import Receipt
from patcher.rewriting import Finding, Plan, Unreadable, make_plan, parse, sha256
from patcher.target import Target


@dataclass(frozen=True)
class Examination:
    """One patch on one target. ``plan`` is None where there is no file to judge."""

    patch: Patch
    path: Path
    state: PatchState
    plan: Plan | None
    receipt: Receipt | None
    covered: bool
    """Whether the patch is meant for this version."""
    problem: str = ""
    line: int | None = None

    @property
    def defect(self) -> bool:
        """A version that is not covered, whose file has exactly the known defect."""
        return (
            self.state is PatchState.NOT_APPLICABLE
            and self.plan is not None
            and self.plan.state is PatchState.NEEDED
        )

    @property
    def can_be_proven(self) -> bool:
        """Whether the proof has something to say: not of another release's file that is right or
        just needs the patch, but of one that nobody knows."""
        if self.state is not PatchState.NOT_APPLICABLE:
            return True
        plan = self.plan
        return plan is not None and plan.state is PatchState.DRIFTED and not plan.problem

    @property
    def stale_receipt(self) -> bool:
        """A receipt of another file than the one that is there; it is named and ignored."""
        if self.receipt is None:
            return False
        now = sha256(self.plan.before) if self.plan is not None else ""
        return now not in (self.receipt.before, self.receipt.after)

    @property
    def place(self) -> str:
        """File and line, as far as known, for a message."""
        return f"{self.path}:{self.line}" if self.line else str(self.path)


def examine(target: Target, patch: Patch, any_version: bool = False) -> Examination:
    """The state of a patch on a target; derived from the file, never from a receipt alone.

    Raises:
        Failure: the file is there and may not be read.
    """
    path = target.root / patch.file
    covered = any_version or (target.version is not None and patch.covers(target.version))
    receipt = receipts.read(target, patch)
    problem = _refusal(target, path)
    beside = [each.file for each in patch.neighbours]
    absent = [each for each in beside if not os.path.lexists(target.root / each)]
    if absent:
        problem = problem or f"it counts on {absent[0]}, which is missing"
    if problem:
        missing = absent or not os.path.lexists(path)
        state = PatchState.NOT_APPLICABLE
        if covered and not (missing and any_version):
            state = PatchState.DRIFTED
        # Without a file that it counts on there is no repair, but one can still be taken back.
        plan = None if _refusal(target, path) else _no_plan(patch, _read(path), problem)
        return Examination(patch, path, state, plan, receipt, covered, problem)
    data = _read(path)
    plan = make_plan(patch, data)
    if plan.state is PatchState.NEEDED:
        plan = _beside_neighbours(target, patch, plan)
    mine = receipt is not None and receipt.after == sha256(data)
    state = plan.state
    if state is PatchState.FIXED and mine:
        state = PatchState.APPLIED
    elif not covered:
        state = PatchState.NOT_APPLICABLE
    lost = next((f for f in plan.findings if f.reason), None)
    problem, line = plan.problem, plan.line
    if not problem and lost is not None:
        problem, line = f"{lost.rewrite}: {lost.reason}", lost.line
    return Examination(patch, path, state, plan, receipt, covered, problem, line)


def _no_plan(patch: Patch, data: bytes, problem: str) -> Plan:
    lost = tuple(Finding(r.id, RewriteState.UNRECOGNIZED) for r in patch.rewrites)
    return Plan(data, data, lost, problem)


def _beside_neighbours(target: Target, patch: Patch, plan: Plan) -> Plan:
    """The plan, or one that changes nothing where a neighbour is not what the patch counts on."""
    for neighbour in patch.neighbours:
        path = target.root / neighbour.file
        problem = _refusal(target, path)
        if not problem:
            try:
                neighbour.check(parse(_read(path)))
            except (Unreadable, Unrecognized) as error:
                problem = error.reason
        if problem:
            problem = f"the file cannot be mended beside {neighbour.file}: {problem}"
            return _no_plan(patch, plan.before, problem)
    return plan


def is_present(target: Target, patch: Patch) -> bool:
    """Whether the file is there, and those without which the patch means nothing."""
    files = (patch.file, *(neighbour.file for neighbour in patch.neighbours))
    return all((target.root / file).exists() for file in files)


def examine_all(
    target: Target, patches: Sequence[Patch], any_version: bool = False
) -> tuple[Examination, ...]:
    return tuple(examine(target, patch, any_version) for patch in patches)


def _read(path: Path) -> bytes:
    try:
        return read_file(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> Failure:
    return Failure(
        Exit.TARGET,
        f"cannot read {path}: {error.strerror}",
        "run as a user who may read the environment of vLLM",
    )


def _refusal(target: Target, path: Path) -> str:
    """Why this path is none that glmpatch reads and replaces; empty when it is one.

    The file itself may be a link to a regular file (uv and conda link files), the folders between
    the package and it may not: what they lead to belongs to somebody else.
    """
    folder = target.root
    try:
        for part in path.parent.relative_to(target.root).parts:
            folder = folder / part
            if folder.is_symlink():
                return f"{folder} is a symbolic link to another folder"
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "a link that leads nowhere" if path.is_symlink() else "the file is missing"
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise _unreadable(path, error) from error
        return f"cannot be looked at: {error.strerror}"
    if not stat.S_ISREG(mode):
        return "not a regular file"
    return ""
