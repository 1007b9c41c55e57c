"""Which of the installed files ``verify`` measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glmpatch.actions.candidates import INSTALLED
from glmpatch.actions.outcome import Outcome, Step, look
from glmpatch.errors import Exit, Failure
from glmpatch.language import _
from glmpatch.patch import Patch, PatchState
from glmpatch.site.target import Target
from glmpatch.words import Words

if TYPE_CHECKING:
    from glmpatch.proof.driver import Candidate


@dataclass(frozen=True, eq=False, repr=False)
class Asked:
    """What is measured. ``unasked`` ends the command even where all of it is right: a file differs
    from the known ones where its proof asks nothing."""

    candidates: list[Candidate]
    outcome: Outcome
    unasked: Failure | None


def to_verify(
    target: Target,
    patches: Sequence[Patch],
    words: Words,
    *,
    named: bool,
    any_version: bool = False,
) -> Asked:
    """The installed files that ``verify`` measures, and what is said of those that it does not."""
    from glmpatch.proof.driver import Candidate

    found, outcome = look(target, patches, words, any_version)
    outcome.named = named
    outcome.steps = [Step(each) for each in found]
    candidates, unasked = [], []
    for each in found:
        name = each.patch.id
        outside = not each.covered or (each.state is PatchState.NOT_APPLICABLE and not each.data)
        if outside and not (named and each.data is not None and any_version):
            if named or not words.is_for_others(each):
                outcome.messages.append(_("not proven: {reason}", reason=words.nothing_to_do(each)))
        elif each.data is None:
            outcome.failures.append(words.missing(each))
        elif not named and not each.patch.advised and each.state is PatchState.NEEDED:
            outcome.messages.append(
                _(
                    "not proven: {patch}, which is not advised and not applied: {command} proves "
                    "it",
                    patch=name,
                    command=words.next(f"verify {name}"),
                )
            )
        else:
            candidates.append(Candidate(name, INSTALLED, each.patch.proof, each.file, None))
            unasked += [each] if each.unasked_now else []
    if not candidates and not outcome.failures:
        version = words.version()
        outcome.failures.append(
            Failure(
                Exit.VERSION,
                _("none of the patches named is for {vllm}; nothing to verify", vllm=version)
                if named
                else _("no patch is for {vllm}; nothing to verify", vllm=version),
                _("{start} list tells the releases that they are for", start=words.start)
                if any_version
                else _(
                    "{start} list tells the releases that they are for; --any-version proves the "
                    "files of another one",
                    start=words.start,
                ),
            )
        )
    return Asked(candidates, outcome, words.unasked(unasked) if unasked else None)
