"""What a text is about by the words of an error that stand in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from glmpatch.patch import Patch
from glmpatch.symptoms.known import SILENT, Match
from glmpatch.symptoms.named import Kind, Named
from glmpatch.symptoms.pasted import plain
from glmpatch.unpatched import Unpatched

TYPE = re.compile(r"^\w+error: (?=\w+\W+\w)")
"""Who pastes an error often leaves its type out; a single word is no error without it."""
NUMBER = re.compile(r"(?<![a-z\d])(?!(?<=\()0\\\))\d+")
"""Differs from case to case, but for that of a name, ``glm4``, and a size of nothing, ``(0)``."""
ANYBODYS = re.compile(r"invalid\sfor\sinput\sof\ssize|size\sof\stensor\sa")
"""Errors of PyTorch's that the code of any model may raise."""


def by_errors(text: str, every: Sequence[Patch | Unpatched]) -> list[Match]:
    """What has an error that stands in a text; what is sure leaves no room for a perhaps."""
    said = Named(plain(text))
    found = [match for about in every for match in _errors(about, said)]
    sure = [match for match in found if match.sure]
    return sorted(sure or found, key=lambda match: -len(match.symptom))


def _errors(about: Patch | Unpatched, said: Named) -> list[Match]:
    """The best of its errors, or none."""
    found = []
    for symptom in about.symptoms:
        if symptom.startswith(SILENT):
            continue
        places = list(_pattern(symptom).finditer(said.text))
        if places:
            sure = any(_is_its_own(symptom, place, said) for place in places)
            found.append(Match(about, symptom, sure))
    return sorted(found, key=lambda match: (match.sure, len(match.symptom)))[-1:]


def _pattern(symptom: str) -> re.Pattern[str]:
    """An error with any numbers, whose last word is a whole one."""
    words = TYPE.sub("", plain(symptom))
    pieces = [re.escape(part.strip()) for part in words.split("...")]
    numbered = [NUMBER.sub(r"\\d+", piece) for piece in pieces if piece]
    return re.compile(".{0,200}?".join(numbered) + (r"(?!\w)" if words[-1:].isalnum() else ""))


def _is_its_own(symptom: str, place: re.Match[str], said: Named) -> bool:
    """Whether an error is that of this very model, and not the same one of another."""
    if not _has_sizes(symptom, place[0]):
        return False
    if said.is_near(Kind.GLM_FILE, place):
        return True
    if said.is_near(Kind.OTHER_FILE, place):
        return False
    if said.is_near(Kind.OTHER, place) and not said.is_near(Kind.GLM, place):
        return False
    return not ANYBODYS.search(symptom) or said.is_near(Kind.ROPE, place)


def _has_sizes(symptom: str, said: str) -> bool:
    """Large numbers are computed from a model's configuration: others are another model's."""
    return set(re.findall(r"\d{4,}", symptom)) <= set(re.findall(r"\d+", said))
