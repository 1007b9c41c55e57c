"""What a command found and did, for each patch and over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glmpatch.errors import Exit, Failure, combined, worst
from glmpatch.language import _
from glmpatch.patch import Patch, PatchState
from glmpatch.site.examination import Examination
from glmpatch.site.examine import examine_all
from glmpatch.site.target import Target
from glmpatch.words import Words

if TYPE_CHECKING:
    from glmpatch.site.plugins import Plugin


@dataclass(frozen=True, eq=False, repr=False)
class Step:
    """What became of one patch."""

    found: Examination
    line: str = ""
    changed: bool = False
    diff: str = ""


@dataclass(eq=False, repr=False)
class Outcome:
    """What a command found and did, in order; ``failures`` stopped it, or some of it."""

    steps: list[Step] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    plugins: tuple[Plugin, ...] = ()
    named: bool = False
    """Whether the user named the patches."""
    exit: Exit = Exit.OK

    def end(self) -> Exit:
        """The exit code.

        Raises:
            Failure: all that stopped the command, in one.
        """
        if self.failures:
            failure = combined(self.failures)
            raise Failure(worst([failure.code, self.exit]), failure.message, failure.hint)
        return self.exit


def look(
    target: Target,
    patches: Sequence[Patch],
    words: Words,
    any_version: bool = False,
) -> tuple[tuple[Examination, ...], Outcome]:
    """Examine the patches, for a command that writes nothing, with what has to be said of them."""
    found = examine_all(target, patches, any_version)
    return found, Outcome(warnings=stale(found, words))


def stale(found: Sequence[Examination], words: Words) -> list[tuple[str, str]]:
    """Warning and hint for each receipt of another file than the one that is there."""
    return [
        (
            _(
                "{path} is not the file that glmpatch left there: it was edited or reinstalled "
                "since",
                path=each.path,
            ),
            words.stale(each),
        )
        for each in found
        if each.stale_receipt and each.data is not None
    ]


def asked_for(found: Sequence[Examination], named: bool) -> list[Examination]:
    """Without names, what is not advised counts only where it was applied."""
    return [e for e in found if named or e.patch.advised or e.receipt is not None]


def unsure_of(found: Sequence[Examination]) -> list[Examination]:
    return [e for e in found if e.state in (PatchState.UNPROVEN, PatchState.DRIFTED)]


def is_plainly_needed(found: Examination) -> bool:
    return found.state is PatchState.NEEDED and found.patch.advised
