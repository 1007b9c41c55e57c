"""What the tests of one patch declare; ``tests/test_every_patch.py`` runs them for every patch.

A case is an edit of the released file, made when the test runs: no source of vLLM is kept here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from patcher.patch import Patch
from tests.support.sources import replace

Edits = tuple[tuple[str, str], ...]
"""Texts and what stands in their places; each text must stand there exactly once."""


@dataclass(frozen=True)
class Cases:
    """Forms of the code that a patch must mend, leave alone or refuse."""

    patch: Patch
    release: str
    """The release whose file is edited."""
    mended: Mapping[str, tuple[Edits, Edits]] = field(default_factory=dict)
    """Edits of the released file, and the same edits of the repaired one, which must result."""
    fixed: Mapping[str, Edits] = field(default_factory=dict)
    """Edits of the repaired file that leave it right."""
    drifted: Mapping[str, tuple[Edits, str]] = field(default_factory=dict)
    """Edits of the released file that make it something unknown, and a part of the reason."""


def edited(source: bytes, edits: Edits) -> bytes:
    for old, new in edits:
        source = replace(source, old, new)
    return source
