"""Makes a repaired wheel out of a released one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from glmpatch.actions.candidates import PLANNED, Prove
from glmpatch.patch import Patch
from glmpatch.words import Words

if TYPE_CHECKING:
    from pathlib import Path

    from glmpatch.fleet.wheel import Repaired
    from glmpatch.source.plan import Plan


def wheel(
    source: Path,
    folder: Path,
    names: Sequence[str],
    warn: Callable[[str, str], None],
    prove: Prove | None,
    words: Words,
) -> Repaired:
    """A repaired wheel out of a released one; proven first, where ``prove`` is given.

    Raises:
        Failure: as ``repair_wheel``; the proof failed.
    """
    from glmpatch.fleet.wheel import wheel as repaired

    def proven(version: str, plans: Sequence[tuple[Patch, Plan]]) -> dict[str, dict[str, str]]:
        from glmpatch.proof.driver import Candidate

        assert prove is not None
        verification = prove(
            [Candidate(p.id, PLANNED, p.proof, p.path(version), plan.after) for p, plan in plans]
        )
        wrong = [p.id for p, _plan in plans if not verification.passed_file(p.id, PLANNED)]
        if wrong:
            raise words.proof_failed(wrong, planned=True)
        return {p.id: {"kind": p.proof.kind, "way": verification.way} for p, _plan in plans}

    return repaired(source, folder, names, proven if prove else None, warn)
