"""What a text may be about: a patch, or what ``patches/unpatched.json`` knows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from glmpatch.patch import Patch
from glmpatch.versions import covers

SILENT = "silent:"


@dataclass(frozen=True)
class Unpatched:
    """Something that users of these models meet and that glmpatch does not mend, and what helps."""

    id: str
    symptoms: tuple[str, ...]
    what: str
    helps: str
    releases: str = ""
    """The releases of vLLM that it is about, a PEP 440 specifier; empty where it may be any."""

    def covers(self, version: str | None) -> bool:
        """Whether it is about this release; where none is known it may be."""
        return not self.releases or version is None or covers(self.releases, version)


@dataclass(frozen=True)
class Match:
    """What a text is about. ``sure``: its words are there; else only some of them are shared."""

    about: Patch | Unpatched
    symptom: str
    sure: bool


def unpatched() -> tuple[Unpatched, ...]:
    """What is known and not mended: ``patches/unpatched.json``."""
    path = Path(__file__).parents[1] / "patches" / "unpatched.json"
    entries = json.loads(path.read_text("utf-8"))
    return tuple(Unpatched(**{**each, "symptoms": tuple(each["symptoms"])}) for each in entries)
