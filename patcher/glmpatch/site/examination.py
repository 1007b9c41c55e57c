"""What is found of one patch on one target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmpatch.catalogue import Row
from glmpatch.patch import Finding, Patch, PatchState, RewriteState
from glmpatch.site.receipt import Receipt
from glmpatch.site.target import Target
from glmpatch.source import sha256

if TYPE_CHECKING:
    from glmpatch.source.plan import Plan


@dataclass(frozen=True, eq=False, repr=False)
class Examination:
    """One patch on one target. ``data`` is None where there is no file to judge.

    ``problem`` says why the state is not a better one (and ``line`` where); ``differs`` where an
    unproven file is unlike the nearest known one: names of definitions with their lines.
    """

    patch: Patch
    path: Path
    file: str
    state: PatchState
    data: bytes | None = None
    findings: tuple[Finding, ...] = ()
    plan: Plan | None = None
    """Where the file had to be read; else ``planned`` makes one."""
    row: Row | None = None
    """Where the file is a released one, byte for byte."""
    receipt: Receipt | None = None
    covered: bool = True
    """Whether the patch is meant for this version."""
    proven: bool = False
    """Fixed or applied, by the receipt of a full proof and nothing else."""
    neighbours: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    line: int | None = None
    differs: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()
    """Where the file, mended, is unlike the known ones and the patch's proof asks nothing: it
    cannot vouch for it."""
    unasked_now: tuple[str, ...] = ()
    """The same of the file as it stands: a mend may put a definition right that nothing asks."""
    origin: tuple[str, ...] = ()
    """Other releases whose file this is."""
    wheel: str = ""
    """The released wheel that the one which was installed, repaired already, was made from."""

    @property
    def sha256(self) -> str:
        return sha256(self.data) if self.data is not None else ""

    @property
    def broken(self) -> tuple[str, ...]:
        """Ids of the rewrites that find their defect."""
        found = (f.rewrite for f in self.findings if f.state is RewriteState.BROKEN)
        return tuple(dict.fromkeys(found))

    @property
    def defect(self) -> bool:
        """A version that is not covered, whose file is one that is known to have the defect."""
        return self.state is PatchState.NOT_APPLICABLE and self.row is not None

    @property
    def stale_receipt(self) -> bool:
        """A receipt of another file than the one that is there; it is named and ignored."""
        if self.receipt is None:
            return False
        return self.sha256 not in (self.receipt.before, self.receipt.after)

    @property
    def place(self) -> str:
        """File and line, as far as known, for a message."""
        return f"{self.path}:{self.line}" if self.line else str(self.path)

    def to_dict(self) -> dict[str, Any]:
        """What the command prints with ``--json``, and what a node of a cluster reports."""
        return {
            "id": self.patch.id,
            "state": self.state.value,
            "file": str(self.path),
            "sha256": self.sha256,
            "rewrites": [
                {"id": f.rewrite, "state": f.state.value, "line": f.line, "reason": f.reason}
                for f in self.findings
            ],
            "advised": self.patch.advised,
            "proven": self.proven,
            "wheel": self.wheel or None,
            "known_defect": self.defect,
            "problem": self.problem,
            "differs": list(self.differs),
            "unasked": list(self.unasked),
        }


def all_lost(patch: Patch, target: Target) -> tuple[Finding, ...]:
    rewrites = patch.rewrites_in(target.version)
    return tuple(Finding(r.id, RewriteState.UNRECOGNIZED) for r in rewrites)


def all_fixed(found: Examination, target: Target) -> tuple[Finding, ...]:
    rewrites = found.patch.rewrites_in(target.version)
    return tuple(Finding(r.id, RewriteState.FIXED) for r in rewrites)


def drifted(found: Examination, target: Target, reason: str, line: int | None) -> Examination:
    return replace(
        found,
        state=PatchState.DRIFTED,
        findings=all_lost(found.patch, target),
        plan=None,
        problem=reason,
        line=line,
    )
