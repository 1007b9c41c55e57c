"""What a text is found to be about."""

from __future__ import annotations

from dataclasses import dataclass

from glmpatch.patch import Patch
from glmpatch.unpatched import Unpatched

SILENT = "silent:"


@dataclass(frozen=True)
class Match:
    """What a text is about. ``sure``: its words are there; else only some of them are shared."""

    about: Patch | Unpatched
    symptom: str
    sure: bool
