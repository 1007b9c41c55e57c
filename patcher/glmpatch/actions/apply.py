"""Repairs what needs it, all of it or nothing; proven first, where that was asked for."""

from __future__ import annotations

from collections.abc import Sequence

from glmpatch.actions.candidates import Prove
from glmpatch.actions.outcome import Outcome, Step
from glmpatch.actions.prepare import Verdict, left_over, prepare, to_write
from glmpatch.errors import Exit, Failure
from glmpatch.language import _
from glmpatch.patch import Patch
from glmpatch.site.examination import Examination
from glmpatch.site.target import Target
from glmpatch.words import COMPILED, RESTART, Words, together


def apply(
    target: Target,
    patches: Sequence[Patch],
    words: Words,
    *,
    named: bool,
    prove: Prove | None = None,
    dry_run: bool = False,
    any_version: bool = False,
    allow_editable: bool = False,
) -> Outcome:
    """Repair what needs it; all of it or nothing.

    ``named``: the user asked for these patches by name, so that those that are not advised count
    too. ``prove`` measures files before anything is written.
    """
    from glmpatch.site import undo

    prepared = prepare(
        target,
        patches,
        words,
        named=named,
        prove=prove,
        dry_run=dry_run,
        any_version=any_version,
        allow_editable=allow_editable,
    )
    found, verdicts, outcome = prepared.found, prepared.verdicts, prepared.outcome
    outcome.named = named
    if outcome.failures:
        outcome.steps = [Step(each) for each in found]
        return outcome
    for each in found:
        verdict = verdicts.get(each.patch.id)
        try:
            outcome.steps.append(_carry_out(target, each, verdict, words, dry_run))
        except Failure as failure:
            outcome.failures.append(_after(failure, outcome.steps))
            break
        except KeyboardInterrupt:
            hint = _("{command} tells what was done", command=words.next("status"))
            outcome.failures.append(
                _after(Failure(Exit.INTERRUPTED, _("interrupted"), hint), outcome.steps)
            )
            break
    if not dry_run and not outcome.failures:
        for each in found:
            if each.patch.id not in verdicts:
                undo.tidy(target, each.patch.id, each.file)
    if any(step.changed for step in outcome.steps):
        told = [
            _(text)
            for step in outcome.steps
            if step.changed
            for text in step.found.patch.afterwards
        ]
        outcome.messages += [_(RESTART), *dict.fromkeys(told), _(COMPILED)]
    left = left_over(target, found, words, named)
    outcome.warnings += left.warnings
    if not outcome.failures:
        outcome.failures += left.failures
    return outcome


def _carry_out(
    target: Target,
    found: Examination,
    verdict: Verdict | None,
    words: Words,
    dry_run: bool,
) -> Step:
    if verdict is None:
        return Step(found, words.nothing_to_do(found))
    from glmpatch.site import install

    writing = to_write(target, found, verdict)
    if writing is not None and not dry_run:
        install.install(target, *writing)
    if verdict.after is None:
        return Step(found, words.proven(found, writing is not None and not dry_run))
    return Step(found, words.repaired(found, dry_run), changed=not dry_run)


def _after(failure: Failure, steps: Sequence[Step]) -> Failure:
    """A failure of one file says which others have been changed before it."""
    done = [step.found.patch.id for step in steps if step.changed]
    if not done:
        return failure
    kept = _("{patches}: applied before that, and stays so", patches=together(done))
    return Failure(failure.code, f"{failure.message}\n{kept}", failure.hint)
