"""Finds what a server's words are about: a patch, or something known that no patch mends.

A symptom is the text of an error, with ``...`` where it differs from case to case; one that begins
with ``silent:`` says what one sees where there is no error.
"""

from __future__ import annotations

from collections.abc import Sequence

from glmpatch.patch import Patch
from glmpatch.symptoms.errors import by_errors
from glmpatch.symptoms.known import SILENT, Match
from glmpatch.symptoms.pasted import clean
from glmpatch.symptoms.words import by_words
from glmpatch.unpatched import Unpatched, unpatched

__all__ = ["SILENT", "Match", "search"]


def search(text: str, patches: Sequence[Patch]) -> list[Match]:
    """What a text (an error, a server's log, a few words) is about; the surest first.

    The words of an error decide; where none is found, shared words do.
    """
    every: list[Patch | Unpatched] = [*patches, *unpatched()]
    text = clean(text)
    return by_errors(text, every) or by_words(text, every)
