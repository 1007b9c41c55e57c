"""What the judge makes of a source, without a disk: known, unproven or drifted."""

from __future__ import annotations

from dataclasses import dataclass

from glmpatch.catalogue import table
from glmpatch.patch import Patch, PatchState
from glmpatch.source import form
from glmpatch.source.plan import Plan, make_plan


@dataclass(frozen=True)
class Judged:
    """``known`` is the file that is vouched for: the source or the mended one; None for no such."""

    state: PatchState
    plan: Plan | None
    known: bytes | None


def right_forms(patch: Patch, release: str) -> frozenset[str]:
    return frozenset(row.form for row in table(patch).of(release))


def judge(patch: Patch, source: bytes, release: str) -> Judged:
    """As ``site.examine`` does it for a file that is no released or repaired one byte for byte."""
    right = right_forms(patch, release)
    try:
        if form.read(source).digest in right:
            return Judged(PatchState.FIXED, None, source)
        plan = make_plan(patch, source, release)
        if plan.state is PatchState.DRIFTED:
            return Judged(PatchState.DRIFTED, plan, None)
        if form.read(plan.after).digest in right:
            return Judged(PatchState.NEEDED, plan, plan.after)
    except form.Unreadable:
        return Judged(PatchState.DRIFTED, None, None)
    return Judged(PatchState.UNPROVEN, plan, None)
