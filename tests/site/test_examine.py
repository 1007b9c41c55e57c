"""The state of a patch on a target: known, to be proven, or nothing that it knows."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from glmpatch import catalogue
from glmpatch.errors import Failure
from glmpatch.patch import PatchState
from glmpatch.site.examination import Examination
from glmpatch.site.examine import examine, examine_all, planned
from glmpatch.site.target import find_target
from tests.site.conftest import make
from tests.support import toy
from tests.support.command import glmpatch, state
from tests.support.site import Site
from tests.support.toy import PATCH, RELEASED, REPAIRED

HALF = RELEASED.replace(b"-total", b"total")
REFORMATTED = REPAIRED.replace(b"hidden + residual", b"(  # sum\n            hidden + residual)")
ELSEWHERE = RELEASED + b"SPEED = 3\n"
UNKNOWN = RELEASED.replace(b"hidden - residual", b"hidden * residual")


def look(tree: Site, any_version: bool = False, owner: bool = True) -> Examination:
    python = sys.executable if owner else None
    return examine(find_target(python, str(tree.root)), PATCH, any_version)


FILES = {
    "released": (RELEASED, PatchState.NEEDED),
    "half repaired": (HALF, PatchState.NEEDED),
    "with comments": (b"# mine\n" + RELEASED, PatchState.NEEDED),
    "repaired": (REPAIRED, PatchState.FIXED),
    "repaired and reformatted": (REFORMATTED, PatchState.FIXED),
    "another difference": (ELSEWHERE, PatchState.UNPROVEN),
    "repaired, another difference": (REPAIRED + b"SPEED = 3\n", PatchState.UNPROVEN),
    "a print": (RELEASED.replace(b"return", b"print(1)\n        return"), PatchState.UNPROVEN),
    "of another release": (toy.NEXT, PatchState.UNPROVEN),
    "a place that is not known": (UNKNOWN, PatchState.DRIFTED),
    "no Python": (b"def", PatchState.DRIFTED),
    "empty": (b"", PatchState.DRIFTED),
}


@pytest.mark.parametrize(("data", "wanted"), FILES.values(), ids=FILES)
def test_a_file_is_judged_whole(tree: Site, data: bytes, wanted: PatchState) -> None:
    tree.model.write_bytes(data)
    found = look(tree)
    assert found.state is wanted, found.problem
    assert found.covered
    assert not found.defect
    assert bool(found.problem) is (wanted in (PatchState.UNPROVEN, PatchState.DRIFTED))


def test_released_and_repaired_files_are_known_without_an_interpreter(tree: Site) -> None:
    for data, wanted in ((RELEASED, PatchState.NEEDED), (REPAIRED, PatchState.FIXED)):
        tree.model.write_bytes(data)
        assert look(tree, owner=False).state is wanted
    for data in (HALF, REFORMATTED):
        tree.model.write_bytes(data)
        found = look(tree, owner=False)
        assert found.state is PatchState.UNPROVEN
        assert found.problem == "no interpreter is known that could tell whether it compiles"


@pytest.mark.parametrize("compiled", [RELEASED, REPAIRED], ids=["released", "repaired"])
@pytest.mark.parametrize("mode", list(py_compile.PycInvalidationMode), ids=lambda mode: mode.name)
def test_a_right_file_whose_old_bytecode_is_run_is_not_right(
    tree: Site, compiled: bytes, mode: py_compile.PycInvalidationMode
) -> None:
    tree.model.write_bytes(compiled)
    written = py_compile.compile(str(tree.model), doraise=True, invalidation_mode=mode)
    assert written is not None
    tree.model.write_bytes(REPAIRED)
    found = look(tree)
    if compiled == REPAIRED or mode is not py_compile.PycInvalidationMode.UNCHECKED_HASH:
        assert found.state is PatchState.FIXED
        return
    assert found.state is PatchState.DRIFTED
    before = tree.tree()
    done = glmpatch(tree, "apply")
    assert done.code == 5
    assert tree.tree() == before
    subprocess.run(found.problem.partition(": ")[2], shell=True, check=True)
    assert look(tree).state is PatchState.FIXED


@pytest.mark.parametrize("data", [RELEASED, REPAIRED], ids=["released", "repaired"])
def test_a_known_file_beside_which_old_bytecode_is_run_is_not_known(
    tree: Site, data: bytes
) -> None:
    beside = tree.root / toy.BESIDE
    source = beside.read_bytes()
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    beside.write_bytes(b"x = 1\n")
    py_compile.compile(str(beside), doraise=True, invalidation_mode=mode)
    beside.write_bytes(source)
    tree.model.write_bytes(data)
    found = look(tree)
    assert found.state is PatchState.DRIFTED
    assert glmpatch(tree, "apply").code == 5
    assert tree.model.read_bytes() == data
    subprocess.run(found.problem.partition(": ")[2], shell=True, check=True)
    assert look(tree).state in (PatchState.FIXED, PatchState.NEEDED)


def test_old_bytecode_does_not_keep_a_released_file_from_being_mended(tree: Site) -> None:
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    tree.model.write_bytes(HALF)
    py_compile.compile(str(tree.model), doraise=True, invalidation_mode=mode)
    tree.model.write_bytes(RELEASED)
    assert glmpatch(tree, "apply").code == 0
    assert state(tree) == "applied"


def test_our_receipt_tells_applied_from_fixed(tree: Site) -> None:
    assert glmpatch(tree, "apply").code == 0
    assert state(tree) == "applied"
    tree.receipt.unlink()
    assert state(tree) == "fixed"


def test_where_an_unproven_file_differs_is_told(tree: Site) -> None:
    tree.model.write_bytes(ELSEWHERE)
    found = look(tree)
    assert found.problem == "it differs from every known file elsewhere"
    assert found.differs == ("SPEED line 9",)
    assert found.place == f"{tree.model}:9"
    run = glmpatch(tree, "status")
    assert f"{tree.model}:9" in run.output
    assert "SPEED line 9" in run.output


def test_a_file_of_another_release_is_named(tree: Site) -> None:
    tree.model.write_bytes(toy.NEXT)
    found = look(tree)
    assert found.origin == ("0.8.5",)
    assert found.problem == "this is the file of vLLM 0.8.5, not of 0.8.4"


def test_a_thousand_differences_stay_readable(tree: Site) -> None:
    lines = b"".join(b"V%d = %d\n" % (n, n) for n in range(3000))
    tree.model.write_bytes(RELEASED + lines)
    assert len(look(tree).differs) == 3000
    run = glmpatch(tree, "status", "--check")
    assert run.code == 5
    assert "and 2996 more" in run.output
    assert len(run.output) < 3000


def test_the_first_place_that_is_not_known_is_named(tree: Site) -> None:
    tree.model.write_bytes(UNKNOWN)
    found = look(tree)
    assert "add-up" in found.problem
    assert found.plan is not None
    assert found.plan.after == UNKNOWN


# -- neighbours ---------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [RELEASED, REPAIRED])
def test_a_neighbour_must_be_as_released(tree: Site, data: bytes) -> None:
    tree.model.write_bytes(data)
    beside = tree.root / toy.BESIDE
    known = look(tree).state
    for neighbour, reason in (
        (b"class Base:\n    depth = 1\n", "which is not as released"),
        (b"def", "no Python"),
        (None, "which is missing"),
    ):
        beside.write_bytes(neighbour) if neighbour is not None else beside.unlink()
        found = look(tree)
        assert found.state is PatchState.UNPROVEN
        assert reason in found.problem
        assert toy.BESIDE in found.problem
    beside.write_bytes(b"# formatted\nclass Base:\n\n    pass\n")
    assert look(tree).state is known


# -- other releases -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.9.0", "0.8.3", "0.8.3rc2.dev107+gdb95cbc1e", "odd", ""])
def test_other_versions_are_not_applicable_whatever_the_file(tmp_path: Path, version: str) -> None:
    tree = make(tmp_path / "site")
    (tree.dist_info / "METADATA").write_text(f"Metadata-Version: 2.1\nVersion: {version}\n")
    for data, defect in {RELEASED: True, toy.NEXT: True, REPAIRED: False, b"x": False}.items():
        tree.model.write_bytes(data)
        found = look(tree)
        assert (found.state, found.defect) == (PatchState.NOT_APPLICABLE, defect)
        assert not found.covered
        assert glmpatch(tree, "apply").code == (4 if defect else 0)
        assert tree.model.read_bytes() == data


def test_any_version_makes_a_file_unproven_at_best(tmp_path: Path) -> None:
    tree = make(tmp_path / "site", version="0.9.9")
    for data, wanted in {
        RELEASED: PatchState.UNPROVEN,
        ELSEWHERE: PatchState.UNPROVEN,
        UNKNOWN: PatchState.DRIFTED,
    }.items():
        tree.model.write_bytes(data)
        found = look(tree, any_version=True)
        assert found.state is wanted, data
        assert glmpatch(tree, "apply", "--any-version").code == 5
        assert tree.model.read_bytes() == data
    tree.model.unlink()
    assert look(tree, any_version=True).state is PatchState.NOT_APPLICABLE


def test_a_release_that_the_table_does_not_know_is_unproven(tmp_path: Path) -> None:
    tree = make(tmp_path / "site", version="0.8.9")
    found = look(tree)
    assert found.state is PatchState.UNPROVEN
    assert toy.BESIDE in found.problem or "0.8.9" in found.problem


def test_the_local_part_of_a_version_is_no_matter(tmp_path: Path) -> None:
    assert look(make(tmp_path / "site", version="0.8.4+cu118")).state is PatchState.NEEDED


# -- the table ----------------------------------------------------------------------------------


def test_released_and_repaired_files_are_not_parsed(
    tree: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parsed(*_: object, **__: object) -> None:
        raise AssertionError("it was parsed")

    toy.table()
    monkeypatch.setattr("glmpatch.source.form.read", parsed)
    monkeypatch.setattr("glmpatch.source.plan.make_plan", parsed)
    assert glmpatch(tree, "status").code == 0
    tree.model.write_bytes(REPAIRED)
    assert glmpatch(tree, "status").code == 0
    assert glmpatch(tree, "apply").code == 0


def test_a_result_that_is_not_what_the_table_says_is_a_fault_of_ours(
    tree: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = toy.table()
    (row,) = right.of("0.8.4")
    wrong = replace(right, rows=(replace(row, mended="0" * 64),))
    monkeypatch.setattr(catalogue, "table", lambda patch: wrong)
    before = tree.tree()
    target = find_target(path=str(tree.root))
    with pytest.raises(Failure) as caught:
        planned(target, examine(target, PATCH))
    assert caught.value.code == 70
    for name in ("apply", "diff"):
        assert glmpatch(tree, name).code == 70
        assert tree.tree() == before


# -- what is no file ----------------------------------------------------------------------------


def test_a_missing_file_is_drift_where_the_release_has_it(tree: Site) -> None:
    tree.model.unlink()
    found = look(tree)
    assert (found.state, found.plan, found.data) == (PatchState.DRIFTED, None, None)
    assert found.problem == "the file is missing"
    assert found.place == str(found.path)


def test_a_linked_file_is_read_and_a_linked_folder_is_not(tree: Site, tmp_path: Path) -> None:
    tree.model.rename(tmp_path / "toy.py")
    tree.model.symlink_to(tmp_path / "toy.py")
    assert look(tree).state is PatchState.NEEDED
    for folder in (tree.model.parent, tree.model.parent.parent, tree.root / "vllm"):
        folder.rename(tmp_path / folder.name)
        folder.symlink_to(tmp_path / folder.name)
        found = look(tree)
        assert found.state is PatchState.DRIFTED
        assert found.problem == f"{folder} is a symbolic link to another folder"
        folder.unlink()
        (tmp_path / folder.name).rename(folder)


def _fifo(path: Path) -> None:
    os.mkfifo(path)  # opening it would wait for a writer for ever


@pytest.mark.parametrize(
    "put", [_fifo, Path.mkdir, lambda path: path.symlink_to("toy.py")], ids=["FIFO", "dir", "loop"]
)
def test_what_is_no_file_is_not_opened(tree: Site, put: Callable[[Path], None]) -> None:
    tree.model.unlink()
    put(tree.model)
    found = look(tree)
    assert found.state is PatchState.DRIFTED
    assert found.problem
    assert found.data is None


def test_a_receipt_of_another_file_is_named_stale(tree: Site) -> None:
    assert glmpatch(tree, "apply").code == 0
    assert not look(tree).stale_receipt
    tree.model.write_bytes(REPAIRED + b"# mine\n")
    found = look(tree)
    assert found.state is PatchState.FIXED
    assert found.stale_receipt
    assert "receipt" in glmpatch(tree, "status").output
    tree.model.unlink()
    assert look(tree).stale_receipt


def test_examining_writes_nothing(tree: Site) -> None:
    before = tree.seen()
    (found,) = examine_all(find_target(path=str(tree.root)), [PATCH])
    assert found.state is PatchState.NEEDED
    assert tree.seen() == before


def test_the_interpreter_that_owns_vllm_has_the_last_word(tree: Site, tmp_path: Path) -> None:
    """It may be older than the tool's, and not read what the tool reads."""
    tree.model.write_bytes(HALF)
    answers = {
        '{"unreadable": "syntax error", "line": 3}': PatchState.DRIFTED,
        '{"form": "another"}': PatchState.DRIFTED,
        "junk": PatchState.UNPROVEN,
    }
    for said, wanted in answers.items():
        old = tmp_path / "python"
        old.write_text(f"#!/bin/sh\ncat > /dev/null\necho '{said}'\n")
        old.chmod(0o755)
        target = find_target(path=str(tree.root))
        assert examine(replace(target, python=old), PATCH).state is wanted


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ('{"unreadable": "syntax error", "line": 3}', "reads it otherwise: syntax error (line 3)"),
        ('{"form": "another"}', "reads it otherwise: another program"),
        ("junk", "no interpreter is known"),
    ],
)
@pytest.mark.parametrize("data", [RELEASED, REPAIRED])
def test_so_it_has_of_a_neighbour_that_is_written_otherwise(
    tree: Site, tmp_path: Path, data: bytes, said: str, reason: str
) -> None:
    tree.model.write_bytes(data)
    (tree.root / toy.BESIDE).write_bytes(b"# formatted\n" + toy.NEIGHBOUR)
    old = tmp_path / "python"
    old.write_text(f"#!/bin/sh\ncat > /dev/null\necho '{said}'\n")
    old.chmod(0o755)
    found = examine(replace(find_target(path=str(tree.root)), python=old), PATCH)
    assert found.state in (PatchState.UNPROVEN, PatchState.DRIFTED)
    if said != "junk":
        assert reason in found.problem
