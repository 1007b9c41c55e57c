"""What an error, a log or the name of a patch is about."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from glmpatch import catalogue
from glmpatch.errors import Exit, Failure
from glmpatch.language import _
from glmpatch.patch import Patch, PatchState
from glmpatch.site.examination import Examination
from glmpatch.site.examine import examine_all
from glmpatch.words import Words

if TYPE_CHECKING:
    from glmpatch.symptoms import Match

RANKS = {
    PatchState.NEEDED: 0,
    PatchState.UNPROVEN: 1,
    PatchState.DRIFTED: 1,
    PatchState.APPLIED: 2,
    PatchState.FIXED: 2,
    PatchState.NOT_APPLICABLE: 3,
}
LAST = RANKS[PatchState.NOT_APPLICABLE]


@dataclass(frozen=True, eq=False, repr=False)
class Explained:
    """What a text is about; ``found`` says what each patch means for the vLLM that is here."""

    matches: tuple[Match, ...]
    found: Mapping[str, Examination]
    named: bool
    """Whether it was the name of a patch, or of several."""
    release: str | None = None
    """Of the vLLM that is here, where one is."""

    def is_for_others(self, match: Match) -> bool:
        """Whether it has nothing to do with the vLLM that is here."""
        return _rank(self, match) == LAST

    def sorted(self) -> Explained:
        """What matters most for the vLLM that is here first; else as it was found."""
        return replace(self, matches=tuple(sorted(self.matches, key=partial(_rank, self))))


def _rank(explained: Explained, match: Match) -> int:
    """How much a match matters for the vLLM that is here; less is more."""
    if not isinstance(match.about, Patch):
        return 1 if match.about.covers(explained.release) else LAST
    found = explained.found.get(match.about.id)
    return 1 if found is None else 0 if found.defect else RANKS[found.state]


def explain(
    text: str,
    words: Words,
    warn: Callable[[str, str], None],
    python: str | None = None,
    path: str | None = None,
) -> Explained:
    """What a name of a patch, an error or a log is about, and whether the vLLM here needs it.

    Raises:
        Failure: nothing that is known.
    """
    from glmpatch.site.target import find_target
    from glmpatch.symptoms import Match, search

    patches = catalogue.load_patches(warn)
    known = {patch.id: patch for patch in patches}
    names = list(dict.fromkeys(text.split()))
    named = [known[name] for name in names if name in known]
    if len(named) < len(names):
        named = []  # words that happen to be names as well
        _refuse_file(text, words)
    matches = [Match(patch, "", True) for patch in named] or search(text, patches)
    if not matches:
        raise _nothing(text, words, patches)
    about = [match.about for match in matches if isinstance(match.about, Patch)]
    found: dict[str, Examination] = {}
    try:
        words.target = find_target(python, path)
        found = {each.patch.id: each for each in examine_all(words.target, about)}
    except Failure:
        if python is not None or path is not None:
            raise  # without an option there need not be any vLLM here
    explained = Explained(tuple(matches), found, bool(named), words.release())
    return explained if named else explained.sorted()


def _refuse_file(text: str, words: Words) -> None:
    """The name of a log is not what stands in it.

    Raises:
        Failure: there is a file of that name.
    """
    if os.path.isfile(text):
        raise Failure(
            Exit.USAGE,
            _("{file} is a file; a log is read from standard input", file=text),
            words.next("explain -") + f" < {shlex.quote(text)}",
        )


def _nothing(text: str, words: Words, patches: Sequence[Patch]) -> Failure:
    """What to do about a text that says nothing to glmpatch."""
    name = text.strip()
    near = catalogue.near(name, patches)
    return Failure(
        Exit.USAGE,
        _("no patch is named {name}, and none is known for these words", name=repr(name))
        if len(text) < 80
        else _("none of these words are known to glmpatch"),
        _("did you mean {patch}?", patch=near)
        if near
        else _(
            "{command} finds the defects that this vLLM has, also those that have no error",
            command=words.next("status"),
        )
        + "\n"
        + _("{start} list names the patches", start=words.start),
    )
