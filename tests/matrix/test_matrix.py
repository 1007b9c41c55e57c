"""Every release of vLLM is judged as a plain reading of its sources says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from patcher.patch import load_patches
from tests.matrix import judge, table
from tests.matrix.judge import Cell
from tests.matrix.registry import Wheel
from tests.matrix.table import Evidence, Table

PATCHES = load_patches()


@pytest.fixture(scope="module")
def known() -> Table:
    return table.load()


@pytest.fixture(scope="module")
def read(known: Table) -> Sequence[Wheel]:
    return judge.read_all(known)


@pytest.fixture(scope="module")
def cells(known: Table, read: Sequence[Wheel]) -> Sequence[Cell]:
    return judge.judge(known, read)


def test_no_cell_is_unexpected(cells: Sequence[Cell], capsys: pytest.CaptureFixture[str]) -> None:
    new = {cell.release for cell in cells if not cell.known}
    with capsys.disabled():
        states = [cell.state for cell in cells]
        counts = {state: states.count(state) for state in table.CELLS}
        print(f"\nmatrix: {len(cells)} cells, {counts}; releases not in the table: {new or 'none'}")
    assert [cell for cell in cells if cell.fault] == []


def test_no_release_of_the_table_is_missing(known: Table, read: Sequence[Wheel]) -> None:
    assert set(known.releases) <= {wheel.release for wheel in read}


def test_the_table_has_one_row_for_every_release_and_patch(known: Table) -> None:
    assert set(known.patches) == {patch.id for patch in PATCHES}
    for patch in PATCHES:
        for release in known.releases:
            row = known.row(release, patch.id)
            assert row.evidence, row


def test_the_version_range_of_a_patch_is_the_releases_that_need_it(known: Table) -> None:
    for patch in PATCHES:
        covered = [release for release in known.releases if patch.covers(release)]
        needed = [r for r in known.releases if known.row(r, patch.id).cell == "needed"]
        assert covered == needed != []


def test_a_release_that_is_not_in_the_table_is_judged_by_structure(
    known: Table, read: Sequence[Wheel]
) -> None:
    newest = read[-1].release
    older = replace(known, releases=tuple(r for r in known.releases if r != newest))
    cells = judge.judge(older, [wheel for wheel in read if wheel.release == newest])
    assert {cell.patch for cell in cells} == {patch.id for patch in PATCHES}
    assert not any(cell.known for cell in cells)
    assert {cell.patch: cell.state for cell in cells}["glm4-residual"] == "fixed"
    assert [cell.fault for cell in cells if cell.fault] == []
    assert f"{newest:<13}" in judge.format_table(cells)
    assert "new: judged by structure" in judge.format_table(cells)


def test_a_wrong_cell_or_evidence_is_found(known: Table, read: Sequence[Wheel]) -> None:
    some = [wheel for wheel in read if wheel.release in ("0.8.3", "0.8.4", "0.8.5")]

    def fault(rows: tuple[table.Row, ...]) -> list[tuple[str, str]]:
        cells = judge.judge(replace(known, rows=rows), some)
        return [(cell.release, cell.patch) for cell in cells if cell.fault]

    def changed(**changes: object) -> tuple[table.Row, ...]:
        return tuple(
            replace(row, **changes) if row == known.row("0.8.4", "glm4-residual") else row  # type: ignore[arg-type]
            for row in known.rows
        )

    (evidence,) = known.row("0.8.4", "glm4-residual").evidence
    line = "hidden_states = residual + hidden_states"
    assert evidence.lines[line] == 2
    assert fault(known.rows) == []
    broken = [("0.8.4", "glm4-residual")]
    assert fault(changed(cell="fixed")) == broken
    once = replace(evidence, lines={**evidence.lines, line: 1})
    assert fault(changed(evidence=(once,))) == broken
    assert fault(changed(evidence=(replace(evidence, absent=True),))) == broken


def test_evidence_goes_by_whole_lines_and_not_by_comments() -> None:
    evidence = Evidence("a.py", False, {"x = 1": 1, "y = 2": 0})
    assert evidence.fault(b"  x = 1\n# y = 2\n") == ""
    assert evidence.fault(b"x = 1  # why\n") == "a.py has 0 x 'x = 1', expected 1"
    assert evidence.fault(b"x = 1\ny = 2\n") == "a.py has 1 x 'y = 2', expected 0"
    assert evidence.fault(None) == "a.py is missing"
    assert Evidence("a.py", True, {}).fault(b"") == "a.py is there"
