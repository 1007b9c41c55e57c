"""Which patches a vLLM needs."""

from __future__ import annotations

from collections.abc import Sequence

from glmpatch.actions.outcome import Outcome, Step, asked_for, look, unsure_of
from glmpatch.actions.transformers import too_old
from glmpatch.errors import Exit, worst
from glmpatch.language import _
from glmpatch.patch import Patch, PatchState
from glmpatch.site.target import Target
from glmpatch.unpatched import unpatched
from glmpatch.words import Words


def status(
    target: Target, patches: Sequence[Patch], words: Words, *, named: bool, check: bool
) -> Outcome:
    every, outcome = look(target, patches, words)
    outcome.steps = [Step(each) for each in every]
    outcome.named = named
    found = asked_for(every, named)
    unable = too_old(target, found)
    if unable:
        outcome.warnings.append(unable)
    outcome.warnings += [
        (_(each.what), _(each.helps))
        for each in unpatched()
        if each.in_status and target.version is not None and each.covers(target.version)
    ]
    from glmpatch.site import plugins

    outcome.plugins = plugins.find(target)
    needed = [e for e in found if e.state is PatchState.NEEDED]
    unsure = unsure_of(found)
    defects = [e for e in found if e.defect]
    # Without names, apply does nothing at all where one is drifted or unproven, and leaves alone
    # what is not advised.
    names = [e.patch.id for e in needed] if unsure or named else []
    if needed:
        outcome.hints.append(words.next(" ".join(["apply", *names, "--verify"])))
    if defects:
        failure = words.has_defect(defects)
        outcome.hints.append(failure.hint)
    if unsure and not check:
        outcome.hints += words.refused(unsure, ()).hint.split("\n")
    for each in every:
        if each.state is PatchState.NEEDED and not each.patch.advised:
            outcome.messages.append(words.not_advised(each))
    if check:
        codes = [Exit.NEEDED] if needed or defects or unable else []
        if unsure:
            outcome.failures.append(words.refused(unsure, needed))
        outcome.exit = worst(codes)
    return outcome
