"""Takes patches back."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from glmpatch import catalogue
from glmpatch.actions.outcome import Outcome, Step
from glmpatch.actions.writable import require_writable
from glmpatch.errors import Exit, Failure
from glmpatch.language import _
from glmpatch.patch import Patch
from glmpatch.site import receipt as receipts
from glmpatch.site.examination import Examination
from glmpatch.site.examine import examine_all
from glmpatch.site.path import unreadable
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

    found, outcome = examine_all(target, patches), Outcome()
    # The last one first: each finds what it wrote into RECORD as it left it.
    for each in reversed(found):
        changed = False
        try:
            if each.receipt is None:
                undo.tidy(target, each.patch.id, each.file)
                _no_original_without_receipt(target, each, words)
            else:
                if each.data is None:
                    raise Failure(
                        Exit.DRIFT,
                        _(
                            "{path}: {reason}; glmpatch patched another file there",
                            path=each.path,
                            reason=each.problem,
                        ),
                        _way_back(target, each, words),
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


def _no_original_without_receipt(target: Target, found: Examination, words: Words) -> None:
    """Somebody removed the receipt: what is in place may be ours, and nothing says so."""
    from glmpatch.site import undo

    try:
        original = undo.left_behind(target, found.patch.id, found.data)
    except OSError as error:
        raise unreadable(target.records, error) from error
    if original is None:
        return
    raise Failure(
        Exit.DRIFT,
        _(
            "{patch}: the file as it was before the patch is kept in {original}, and the receipt "
            "beside it is gone; nothing was changed",
            patch=found.patch.id,
            original=original,
        ),
        _way_back(target, found, words),
    )


def _way_back(target: Target, found: Examination, words: Words) -> str:
    """How to get the file back that was there before the patch."""
    original = target.records / receipts.names(found.patch.id)[0]
    in_the_way = found.data is None and os.path.lexists(found.path)
    if in_the_way or not os.path.lexists(original):
        return words.restore(found.file)
    command = shlex.join(["mv", "-f", str(original), str(found.path)])
    return _("put the original back with {command}", command=command)
