"""What glmpatch says of every release, cell by cell, and what of that the table did not expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from patcher.examine import Examination, examine
from patcher.patch import Patch, PatchState, load_patches
from patcher.target import find_target
from tests.matrix.registry import Wheel, wheels
from tests.matrix.table import Table


@dataclass(frozen=True)
class Cell:
    """One patch on one release. ``fault`` is empty where all is as expected."""

    release: str
    patch: str
    state: str
    known: bool
    """Whether the release is in the table."""
    fault: str


def read_all(table: Table) -> list[Wheel]:
    """The wheels of all releases with every file that the table or a patch looks at."""
    files = set(table.files)
    for patch in load_patches():
        files |= {patch.file, *(neighbour.file for neighbour in patch.neighbours)}
    return wheels(files)


def judge(table: Table, read: Sequence[Wheel]) -> list[Cell]:
    patches = load_patches()
    cells: dict[tuple[str, str], Cell] = {}
    for wheel in read:
        target = find_target(path=str(wheel.root))
        assert target.version == wheel.release, (target.version, wheel)
        for patch in patches:
            cell = _cell(table, wheel, patch, examine(target, patch))
            before = cells.setdefault((wheel.release, patch.id), cell)
            # A release can have several builds; the faulty one counts.
            if cell.fault and not before.fault:
                cells[wheel.release, patch.id] = cell
    return list(cells.values())


def _cell(table: Table, wheel: Wheel, patch: Patch, found: Examination) -> Cell:
    state = found.state.value
    if found.plan is not None and found.plan.state is PatchState.FIXED:
        state = "fixed"
    known = wheel.release in table.releases
    if known:
        row = table.row(wheel.release, patch.id)
        faults = [each.fault(wheel.read(each.file)) for each in row.evidence]
        if state != row.cell:
            faults.append(f"the table says {row.cell}: {row.why}")
    else:
        faults = ["a newer release must not need it"] if state == "needed" else []
    if found.defect:
        faults.append("status would call it broken, although it is not meant for this release")
    return Cell(wheel.release, patch.id, state, known, "; ".join(filter(None, faults)))


def format_table(cells: Sequence[Cell]) -> str:
    """One line a release, one column a patch."""
    by_release: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        by_release.setdefault(cell.release, {})[cell.patch] = cell
    names = list(dict.fromkeys(cell.patch for cell in cells))
    lines = [_line("vLLM", {name: name for name in names})]
    for release, row in by_release.items():
        mark = "" if all(cell.known for cell in row.values()) else "  new: judged by structure"
        lines.append(_line(release, {name: row[name].state for name in names}) + mark)
    return "\n".join(lines)


def _line(first: str, rest: Mapping[str, str]) -> str:
    return f"{first:<13}" + "".join(f"{text:<{max(len(k), 14) + 2}}" for k, text in rest.items())
