"""Takes patches back."""

from __future__ import annotations

from collections.abc import Sequence

from glmpatch import catalogue
from glmpatch.actions.outcome import Outcome, Step, look
from glmpatch.actions.writable import require_writable
from glmpatch.errors import Exit, Failure
from glmpatch.language import _
from glmpatch.patch import Patch
from glmpatch.site.target import Target
from glmpatch.words import COMPILED, RESTART, Words


def revert(
    target: Target,
    patches: Sequence[Patch],
    words: Words,
    force: bool = False,
    allow_editable: bool = False,
) -> Outcome:
    """Take the patches back, each file by itself."""
    from glmpatch.site import undo

    found, outcome = look(target, patches, words, warn=False)
    # The last one first: each finds what it wrote into RECORD as it left it.
    for each in reversed(found):
        changed = False
        try:
            if each.receipt is None:
                undo.tidy(target, each.patch.id, each.file)
            else:
                if each.data is None:
                    raise Failure(
                        Exit.DRIFT,
                        _(
                            "{path}: {reason}; glmpatch patched another file there",
                            path=each.path,
                            reason=each.problem,
                        ),
                        words.restore(),
                    )
                require_writable(target, [each], words, allow_editable)
                table = catalogue.table(each.patch)
                known = {d for row in table.rows for d in (row.sha256, row.mended)}
                known.update(table.elsewhere)
                changed = undo.revert(target, each.patch.id, each.file, known, force)
        except Failure as failure:
            outcome.failures.append(failure)  # the other files can be taken back all the same
            outcome.steps.append(Step(each))
        else:
            outcome.steps.append(Step(each, words.taken_back(each, changed), changed))
    if any(step.changed for step in outcome.steps):
        outcome.messages += [_(RESTART), _(COMPILED)]
    return outcome
