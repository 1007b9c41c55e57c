"""The first half of apply, everything but writing: what has to be written, proven where that was
asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glmpatch import catalogue
from glmpatch.actions.candidates import AS_IT_STANDS, INSTALLED, PLANNED, Prove
from glmpatch.actions.outcome import Outcome, asked_for, is_plainly_needed, stale, unsure_of
from glmpatch.actions.transformers import too_old
from glmpatch.actions.writable import require_writable
from glmpatch.errors import Failure
from glmpatch.patch import Patch, PatchState
from glmpatch.site.examination import Examination
from glmpatch.site.examine import examine_all, planned
from glmpatch.site.target import Target
from glmpatch.words import Words

if TYPE_CHECKING:
    from glmpatch.proof.driver import Candidate, Verification
    from glmpatch.site.install import Change, Proof


@dataclass(frozen=True, eq=False, repr=False)
class Prepared:
    """What apply would do; where the outcome has failures, it must not do any of it."""

    found: tuple[Examination, ...]
    verdicts: Mapping[str, Verdict]
    outcome: Outcome


def prepare(
    target: Target,
    patches: Sequence[Patch],
    words: Words,
    *,
    named: bool,
    prove: Prove | None = None,
    dry_run: bool = False,
    any_version: bool = False,
    allow_editable: bool = False,
) -> Prepared:
    """What apply would do with these patches; nothing is written."""
    found, outcome = examine_all(target, patches, any_version), Outcome()
    verdicts: dict[str, Verdict] = {}
    try:
        verdicts = _decide(target, asked_for(found, named), words, prove, dry_run, allow_editable)
    except Failure as failure:
        outcome.failures.append(failure)
    # What is written has a receipt of its own then.
    written = {name for name, verdict in verdicts.items() if verdict.after is not None}
    outcome.warnings = stale([e for e in found if e.patch.id not in written], words)
    return Prepared(found, verdicts, outcome)


def left_over(target: Target, found: Sequence[Examination], words: Words, named: bool) -> Outcome:
    """What no apply mends: a Transformers that is too old, a defect in a release not covered."""
    outcome = Outcome()
    unable = too_old(target, found)
    if unable:
        outcome.warnings.append(unable)
    defects = [e for e in found if e.defect and (named or e.patch.advised)]
    if defects:
        outcome.failures.append(words.has_defect(defects))
    return outcome


@dataclass(frozen=True, eq=False, repr=False)
class Verdict:
    """What is to be written for a patch: new bytes, or the proof of those that are there."""

    after: bytes | None
    verification: Verification | None = None


def _decide(
    target: Target,
    asked: Sequence[Examination],
    words: Words,
    prove: Prove | None,
    dry_run: bool,
    allow_editable: bool,
) -> dict[str, Verdict]:
    """By patch what is to be written; a Failure where one that was asked for cannot be."""
    unsure = unsure_of(asked)
    # A drifted file without a plan is none that can be read.
    lost = [
        e
        for e in unsure
        if e.data is None or e.unasked or (e.state is PatchState.DRIFTED and e.plan is None)
    ]
    if lost or (unsure and prove is None):
        others = [each for each in asked if is_plainly_needed(each)]
        raise words.refused(unsure, others, writing=True)
    needed = [e for e in asked if e.state is PatchState.NEEDED]
    plans = {
        e.patch.id: planned(target, e)
        for e in asked
        if e.state in (PatchState.NEEDED, PatchState.UNPROVEN)
    }
    if (needed or unsure) and not dry_run:
        require_writable(target, [*needed, *unsure], words, allow_editable)
    if prove is None:
        return {e.patch.id: Verdict(plans[e.patch.id].after) for e in needed}
    candidates = [
        candidate
        for each in asked
        if each.state is not PatchState.NOT_APPLICABLE
        for candidate in _candidates(each, plans.get(each.patch.id))
    ]
    if not candidates:
        return {}
    verification = prove(candidates)
    verdicts: dict[str, Verdict] = {}
    wrong = []
    for each in asked:
        name = each.patch.id
        if each.state is PatchState.NOT_APPLICABLE:
            continue
        if each in unsure and verification.passed_file(name, AS_IT_STANDS):
            verdicts[name] = Verdict(None, verification)
        elif name in plans and verification.passed_file(name, PLANNED):
            verdicts[name] = Verdict(plans[name].after, verification)
        elif each in unsure or name in plans or not verification.passed_file(name, INSTALLED):
            wrong.append(name)
    if wrong:
        raise words.proof_failed(wrong, planned=True)
    return verdicts


def _candidates(found: Examination, plan: object) -> list[Candidate]:
    """What is measured: the file as it stands, where nothing vouches for it, and the mended one."""
    from glmpatch.proof.driver import Candidate

    def candidate(name: str, source: bytes | None) -> Candidate:
        return Candidate(found.patch.id, name, found.patch.proof, found.file, source)

    unsure = found.state in (PatchState.UNPROVEN, PatchState.DRIFTED)
    # Its bytes, as the receipt will name them: an import could take old bytecode for the file.
    every = [candidate(AS_IT_STANDS, found.data)] if unsure and not found.unasked_now else []
    after = getattr(plan, "after", None)
    if after is not None and after != found.data:
        every.append(candidate(PLANNED, after))
    return every or [candidate(INSTALLED, None)]


def to_write(
    target: Target, found: Examination, verdict: Verdict
) -> tuple[Change, Proof | None] | None:
    """What a verdict has written; nothing, for a file that is right, unless its proof is kept."""
    from glmpatch.site.install import Change, Proof

    assert found.data is not None
    proof = None
    if verdict.verification is not None:
        full = verdict.verification.full
        proof = Proof(verdict.verification.to_dict(), found.neighbours, full)
    if verdict.after is not None:
        change = Change(
            found.patch.id,
            found.file,
            found.data,
            verdict.after,
            found.broken,
            tuple(row.sha256 for row in catalogue.table(found.patch).of(target.version)),
        )
        return change, proof
    if proof is None or not proof.full:
        return None
    return Change(found.patch.id, found.file, found.data, found.data), proof
