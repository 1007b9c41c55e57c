"""Small edits of released files, with what is known of each result: ``tests/real/cases.json``.

No source of vLLM is kept here. Lines from ``edits[i][0]`` to ``edits[i][1]``, counted from 0, the
end excluded, are replaced by a text, in the released file or in the repaired one.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from glmpatch.catalogue import load_patches
from glmpatch.patch import Patch
from glmpatch.source.plan import make_plan
from tests.support.releases import read

RELEASE = "0.8.4"
PATCHES = {
    Path(patch.path(RELEASE)).name: patch for patch in load_patches() if patch.covers(RELEASE)
}


@dataclass(frozen=True)
class Case:
    """``kind`` is what the file is as it stands, by measurement: ``right``, ``wrong``, ``mendable``
    (wrong, and right once it is mended), ``open`` (right for some checkpoints, or never measured),
    ``no Python``."""

    name: str
    patch: Patch
    base: str
    kind: str
    edits: tuple[tuple[int, int, str], ...]

    def source(self) -> bytes:
        released, repaired = bases(self.patch.id)
        lines = (released if self.base == "released" else repaired).decode().splitlines(True)
        for first, end, new in reversed(self.edits):
            lines[first:end] = new.splitlines(True)
        return "".join(lines).encode()


@functools.cache
def bases(patch_id: str) -> tuple[bytes, bytes]:
    """The released file and the repaired one."""
    patch = next(patch for patch in PATCHES.values() if patch.id == patch_id)
    released = read(RELEASE, patch.path(RELEASE))
    assert released is not None
    return released, make_plan(patch, released, RELEASE).after


def load() -> tuple[Case, ...]:
    data = json.loads((Path(__file__).parent.parent / "real" / "cases.json").read_text("utf-8"))
    return tuple(
        Case(
            name,
            PATCHES[each["file"]],
            each["base"],
            each["is"],
            tuple((first, end, new) for first, end, new in each["edits"]),
        )
        for name, each in data.items()
    )
