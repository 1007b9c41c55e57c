"""Every release of vLLM is judged as a plain reading of its sources says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from glmpatch.catalogue import load_patches
from tests.matrix import judge, table
from tests.matrix.judge import Cell
from tests.matrix.table import Evidence, Table
from tests.support import releases


@pytest.fixture(scope="module")
def known() -> Table:
    return table.load()


@pytest.fixture(scope="module")
def cells(known: Table) -> Sequence[Cell]:
    return judge.judge(known)


@pytest.mark.real
def test_no_cell_is_unexpected(cells: Sequence[Cell], capsys: pytest.CaptureFixture[str]) -> None:
    new = {cell.release for cell in cells if not cell.known}
    with capsys.disabled():
        states = [cell.state for cell in cells]
        counts = {state: states.count(state) for state in table.CELLS}
        print(f"\nmatrix: {len(cells)} cells, {counts}; releases not in the table: {new or 'none'}")
    assert [cell for cell in cells if cell.fault] == []


@pytest.mark.real
def test_no_release_of_the_table_is_missing(known: Table) -> None:
    assert set(known.releases) <= set(releases.names())


def test_the_table_has_one_row_for_every_release_and_patch(known: Table) -> None:
    assert set(known.patches) <= {patch.id for patch in load_patches()}
    for patch in judge.patches(known):
        for release in known.releases:
            row = known.row(release, patch.id)
            assert row.evidence, row


def test_the_version_range_of_a_patch_is_the_releases_that_need_it(known: Table) -> None:
    for patch in judge.patches(known):
        covered = [release for release in known.releases if patch.covers(release)]
        needed = [r for r in known.releases if known.row(r, patch.id).cell == "needed"]
        assert covered == needed != []


@pytest.mark.real
def test_a_release_that_is_not_in_the_table_is_judged_by_structure(known: Table) -> None:
    newest, broken = known.releases[-1], "0.8.4"
    older = replace(known, releases=tuple(r for r in known.releases if r not in (newest, broken)))
    cells = judge.judge(older, [broken, newest])
    assert not any(cell.known for cell in cells)
    faults = {(cell.release, cell.patch): cell.fault for cell in cells if cell.fault}
    needed = {name for name in known.patches if known.row(newest, name).cell == "needed"}
    assert {name for release, name in faults if release == newest} == needed
    assert {release for release, _ in faults} == {broken, *([newest] if needed else [])}
    assert faults[broken, "glm-rope"] == "a newer release has keep-rope-width"
    assert f"{newest:<13}" in judge.format_table(cells)
    assert "new: judged by structure" in judge.format_table(cells)


@pytest.mark.real
def test_a_wrong_cell_or_evidence_is_found(known: Table) -> None:
    def fault(rows: tuple[table.Row, ...]) -> list[tuple[str, str]]:
        cells = judge.judge(replace(known, rows=rows), ["0.8.3", "0.8.4", "0.8.5"])
        return [(cell.release, cell.patch) for cell in cells if cell.fault]

    def changed(release: str, **changes: object) -> tuple[table.Row, ...]:
        return tuple(
            replace(row, **changes) if row == known.row(release, "glm4-residual") else row  # type: ignore[arg-type]
            for row in known.rows
        )

    (evidence,) = known.row("0.8.4", "glm4-residual").evidence
    line = "hidden_states = residual + hidden_states"
    assert evidence.lines[line] == 2
    assert fault(known.rows) == []
    broken = [("0.8.4", "glm4-residual")]
    assert fault(changed("0.8.4", cell="fixed")) == broken
    once = replace(evidence, lines={**evidence.lines, line: 1})
    assert fault(changed("0.8.4", evidence=(once,))) == broken
    assert fault(changed("0.8.4", evidence=(replace(evidence, absent=True),))) == broken
    # A release that the patch is not for is held against the evidence alone.
    assert fault(changed("0.8.5", evidence=(evidence,))) == [("0.8.5", "glm4-residual")]


def test_evidence_goes_by_whole_lines_and_not_by_comments() -> None:
    evidence = Evidence("a.py", False, {"x = 1": 1, "y = 2": 0})
    assert evidence.fault(b"  x = 1\n# y = 2\n") == ""
    assert evidence.fault(b"x = 1  # why\n") == "a.py has 0 x 'x = 1', expected 1"
    assert evidence.fault(b"x = 1\ny = 2\n") == "a.py has 1 x 'y = 2', expected 0"
    assert evidence.fault(None) == "a.py is missing"
    assert Evidence("a.py", True, {}).fault(b"") == "a.py is there"
