"""The table, and a plain reading of the sources that it rests on: which line stands in which file.

Nothing here knows glmpatch's way of judging a file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import Version

CELLS = ("needed", "fixed", "not-applicable")


@dataclass(frozen=True)
class Evidence:
    """What a file of a release must look like: lines that stand in it so many times (0: nowhere).

    Indentation does not count. ``absent`` files are in no wheel of the release.
    """

    file: str
    absent: bool
    lines: Mapping[str, int]

    def fault(self, source: bytes | None) -> str:
        """What contradicts the evidence; empty where nothing does."""
        if source is None or self.absent:
            wrong = (source is None) != self.absent
            return f"{self.file} is {'missing' if source is None else 'there'}" if wrong else ""
        found = Counter(line.strip() for line in source.decode().splitlines())
        for line, count in self.lines.items():
            if found[line] != count:
                return f"{self.file} has {found[line]} x {line!r}, expected {count}"
        return ""


@dataclass(frozen=True)
class Row:
    """What one patch means for the releases from ``first`` to ``last``, and how one can tell."""

    patch: str
    first: str
    last: str
    cell: str
    why: str
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Table:
    """``releases`` are all that were known when the table was written, in order."""

    releases: tuple[str, ...]
    rows: tuple[Row, ...]

    def row(self, release: str, patch: str) -> Row:
        """The one row of a patch that holds for a release; any other number is an error."""
        (row,) = (
            row
            for row in self.rows
            if row.patch == patch and Version(row.first) <= Version(release) <= Version(row.last)
        )
        return row

    @property
    def patches(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.patch for row in self.rows))

    @property
    def files(self) -> tuple[str, ...]:
        """All files that the evidence names."""
        return tuple(sorted({each.file for row in self.rows for each in row.evidence}))


def load() -> Table:
    data = json.loads(Path(__file__).with_name("table.json").read_text("utf-8"))
    rows = tuple(_row(patch, row) for patch, rows in data["patches"].items() for row in rows)
    return Table(tuple(data["releases"]), rows)


def _row(patch: str, data: Mapping[str, Any]) -> Row:
    assert data["cell"] in CELLS, data
    evidence = tuple(
        Evidence(each["file"], each.get("absent", False), each.get("lines", {}))
        for each in data["evidence"]
    )
    return Row(patch, data["first"], data["last"], data["cell"], data["why"], evidence)
