"""What users of these models meet and no patch mends: ``patches/unpatched.json``."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from glmpatch.versions import covers


@dataclass(frozen=True)
class Unpatched:
    """Something that users of these models meet and that glmpatch does not mend, and what helps."""

    id: str
    symptoms: tuple[str, ...]
    what: str
    helps: str
    releases: str = ""
    """The releases of vLLM that it is about, a PEP 440 specifier; empty where it may be any."""
    in_status: bool = False
    """Whether ``status`` says it of these releases: silent, and mended by the next one."""

    def covers(self, version: str | None) -> bool:
        """Whether it is about this release; where none is known it may be."""
        return not self.releases or version is None or covers(self.releases, version)


@functools.cache
def unpatched() -> tuple[Unpatched, ...]:
    path = Path(__file__).parent / "patches" / "unpatched.json"
    entries = json.loads(path.read_text("utf-8"))
    return tuple(Unpatched(**{**each, "symptoms": tuple(each["symptoms"])}) for each in entries)
