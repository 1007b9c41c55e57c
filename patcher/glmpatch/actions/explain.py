"""What an error, a log or the name of a patch is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glmpatch import catalogue
from glmpatch.errors import Exit, Failure
from glmpatch.language import _
from glmpatch.patch import Patch
from glmpatch.site.examination import Examination
from glmpatch.site.examine import examine_all
from glmpatch.words import Words

if TYPE_CHECKING:
    from glmpatch.symptoms import Match


@dataclass(frozen=True, eq=False, repr=False)
class Explained:
    """What a text is about; ``found`` says what each patch means for the vLLM that is here."""

    matches: tuple[Match, ...]
    found: Mapping[str, Examination]
    named: bool
    """Whether it was the name of a patch."""


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
    named = [patch for patch in patches if patch.id == text.strip()]
    matches = [Match(patch, "", True) for patch in named] or search(text, patches)
    if not matches:
        name = text.strip()
        near = catalogue.near(name, patches)
        raise Failure(
            Exit.USAGE,
            _("no patch is named {name}, and none is known for these words", name=repr(name))
            if len(text) < 80
            else _("none of these words are known to glmpatch"),
            _("did you mean {patch}?", patch=near)
            if near
            else _("{start} list names the patches", start=words.start),
        )
    about = [match.about for match in matches if isinstance(match.about, Patch)]
    found: dict[str, Examination] = {}
    try:
        words.target = find_target(python, path)
        found = {each.patch.id: each for each in examine_all(words.target, about)}
    except Failure:
        if python is not None or path is not None:
            raise  # without an option there need not be any vLLM here
    return Explained(tuple(matches), found, bool(named))
