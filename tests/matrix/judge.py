"""What glmpatch says of every release, cell by cell, and what of that the table did not expect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from glmpatch.catalogue import load_patches
from glmpatch.patch import Patch
from glmpatch.site.examine import examine
from glmpatch.site.target import Target, find_target
from tests.matrix.table import Table
from tests.support import releases


@dataclass(frozen=True)
class Cell:
    """One patch on one release. ``fault`` is empty where all is as expected."""

    release: str
    patch: str
    state: str
    known: bool
    """Whether the release is in the table."""
    fault: str


def patches(table: Table) -> tuple[Patch, ...]:
    """Those that the table has rows for."""
    return tuple(patch for patch in load_patches() if patch.id in table.patches)


def judge(table: Table, names: Iterable[str] | None = None) -> list[Cell]:
    """The cells of some releases; of all, by default."""
    cells = []
    for name, root in releases.trees(names).items():
        target = find_target(path=str(root))
        assert target.version == name, (target.version, root)
        known = name in table.releases
        cell = _known if known else _new
        for patch in patches(table):
            state, fault = cell(table, target, patch, name)
            cells.append(Cell(name, patch.id, state, known, fault))
    return cells


def _known(table: Table, target: Target, patch: Patch, name: str) -> tuple[str, str]:
    found, row = examine(target, patch), table.row(name, patch.id)
    faults = [each.fault(releases.read(name, each.file)) for each in row.evidence]
    # What the patch is not for is not examined: that such a file is right, the evidence says.
    expected = row.cell if patch.covers(name) else "not-applicable"
    if found.state.value != expected:
        faults.append(f"the table says {row.cell}: {row.why}")
    if found.defect:
        faults.append("status would call it broken, although it is not meant for this release")
    fault = "; ".join(filter(None, faults))
    return (found.state.value if fault else row.cell), fault


def _new(table: Table, target: Target, patch: Patch, name: str) -> tuple[str, str]:
    """A release that came after the table was written: no rewrite may find its defect."""
    found = examine(target, patch, any_version=True)
    broken = [each for each in found.broken if each not in _mended_elsewhere(table, patch)]
    fault = f"a newer release has {', '.join(broken)}" if broken else ""
    return found.state.value, fault


def _mended_elsewhere(table: Table, patch: Patch) -> tuple[str, ...]:
    """What the file still seems to have where upstream mended it in another file."""
    fixed = [each for each in table.releases if table.row(each, patch.id).cell == "fixed"]
    if not fixed:
        return ()
    target = find_target(path=str(releases.tree(fixed[-1])))
    return examine(target, patch, any_version=True).broken


def format_table(cells: Iterable[Cell]) -> str:
    """One line a release, one column a patch."""
    by_release: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        by_release.setdefault(cell.release, {})[cell.patch] = cell
    names = list(dict.fromkeys(cell.patch for row in by_release.values() for cell in row.values()))
    lines = [_line("vLLM", {name: name for name in names})]
    for release, row in by_release.items():
        mark = "" if all(cell.known for cell in row.values()) else "  new: judged by structure"
        lines.append(_line(release, {name: row[name].state for name in names}) + mark)
    return "\n".join(lines)


def _line(first: str, rest: Mapping[str, str]) -> str:
    return f"{first:<13}" + "".join(f"{text:<{max(len(k), 14) + 2}}" for k, text in rest.items())
