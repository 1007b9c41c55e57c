"""What apply would change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from glmpatch.actions.outcome import Outcome, Step, asked_for, is_plainly_needed, look, unsure_of
from glmpatch.language import _
from glmpatch.patch import Patch, PatchState
from glmpatch.site.examination import Examination
from glmpatch.site.examine import planned
from glmpatch.site.target import Target
from glmpatch.words import Words


def diff(
    target: Target,
    patches: Sequence[Patch],
    words: Words,
    *,
    named: bool,
    any_version: bool,
    show: Callable[[Examination, bytes], str],
) -> Outcome:
    """``show`` makes the diff of a file and its planned bytes."""
    found, outcome = look(target, patches, words, any_version)
    outcome.named = named
    asked = asked_for(found, named)
    for each in found:
        change = each.state in (PatchState.NEEDED, PatchState.UNPROVEN) and each in asked
        after = planned(target, each).after if change else each.data
        text = show(each, after) if after is not None and after != each.data else ""
        line = "" if text or each.state is PatchState.DRIFTED else _nothing_to_change(each)
        if each.state is PatchState.NEEDED and not change:
            line = words.nothing_to_do(each)
        outcome.steps.append(Step(each, line, diff=text))
        if each.defect:
            outcome.hints.append(words.next(f"diff {each.patch.id} --any-version"))
    unsure = unsure_of(asked)
    if unsure:
        outcome.failures.append(words.refused(unsure, [e for e in found if is_plainly_needed(e)]))
    return outcome


def _nothing_to_change(found: Examination) -> str:
    return _(
        "{patch}: {state}, nothing to change", patch=found.patch.id, state=_(found.state.value)
    )
