"""A patch that is no good is named, and the others work without it; what a table says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from glmpatch import catalogue
from glmpatch.catalogue import fault, load_patches, parse_table, select_patches, table
from glmpatch.errors import Exit, Failure
from glmpatch.patch import Patch, PatchState, Rewrite
from glmpatch.patches.glm4_residual.patch import PATCH

ROOT = Path(__file__).resolve().parent.parent
PATCHES = load_patches()
each_patch = pytest.mark.parametrize("patch", PATCHES, ids=lambda each: each.id)
BAD: Mapping[str, tuple[dict[str, Any], str]] = {
    "another id": ({"id": "glm4"}, "has the id 'glm4'; the name of its folder makes it"),
    "no reason": ({"why": " \n"}, "says nothing under why"),
    "no symptoms": ({"symptoms": ()}, "says nothing under symptoms"),
    "no caution": ({"advised": False}, "says nothing under caution, though it is not advised"),
    "a long title": ({"title": "one\ntwo"}, "title of more than one line"),
    "a file outside of vLLM": ({"file": "torch/nn/init.py"}, "no Python file of the package vllm"),
    "a file above": ({"file": "vllm/../torch/a.py"}, "no Python file of the package vllm"),
    "an absolute file": ({"file": "/etc/passwd"}, "no Python file of the package vllm"),
    "one of two files": ({"file": {"<1": "vllm/a.py", ">=1": "b.py"}}, "names 'b.py'"),
    "no rewrites": ({"rewrites": ()}, "has no rewrites"),
    "twin rewrites": ({"rewrites": PATCH.rewrites[:1] * 2}, "two rewrites of one id"),
    "no specifier": ({"versions": "0.8.4"}, "no PEP 440 specifier"),
    "an empty range": ({"versions": ">=0.9,<0.8"}, "which no version is"),
    "two versions at once": ({"versions": "==0.8.4,==0.8.5"}, "which no version is"),
    "a rewrite of no version": (
        {"rewrites": (Rewrite("a", "a", versions=">1,<1"),)},
        "which no version is",
    ),
    "a file of no version": ({"file": {"0.8": "vllm/a.py"}}, "no PEP 440 specifier"),
}


@pytest.mark.parametrize("name", BAD)
def test_nonsense_in_a_declaration_is_named(name: str) -> None:
    changes, expected = BAD[name]
    assert expected in fault(replace(PATCH, **changes), "glm4_residual")


@pytest.mark.parametrize("declared", [None, "glm4-residual", Patch])
def test_something_else_than_a_patch_is_named(declared: object) -> None:
    assert fault(declared, "glm4_residual") == "defines no PATCH that is a Patch"


@pytest.mark.parametrize(
    "versions",
    ["==0.8.4", "==0.8.*", ">=0.7.3,<0.8.5", "~=0.8.1", ">0.8.4,<0.8.5", "!=0.8.4", "<0.1", ">9"],
)
def test_a_range_that_some_version_satisfies_is_sound(versions: str) -> None:
    assert fault(replace(PATCH, versions=versions), "glm4_residual") == ""


# -- the folder of patches ----------------------------------------------------------------------


def test_no_name_selects_all_and_names_select_in_order_each_once() -> None:
    assert select_patches([]) == PATCHES
    last, first = PATCHES[-1], PATCHES[0]
    assert select_patches([last.id, first.id, last.id]) == (last, first)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("glm4_residual", "did you mean glm4-residual?"),
        ("x", "the patches are: " + ", ".join(each.id for each in PATCHES)),
    ],
)
def test_a_wrong_name_is_wrong_usage(name: str, hint: str) -> None:
    with pytest.raises(Failure) as caught:
        select_patches([name])
    assert caught.value.code is Exit.USAGE
    assert repr(name) in caught.value.message
    assert caught.value.hint == hint


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of glmpatch, as it lies in site-packages, to which a bad patch can be added."""
    ignore = shutil.ignore_patterns("__pycache__", "patches")
    shutil.copytree(ROOT / "patcher" / "glmpatch", tmp_path / "glmpatch", ignore=ignore)
    shutil.copytree(ROOT / "patches", tmp_path / "glmpatch" / "patches")
    return tmp_path


def run(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    command = [sys.executable, "-m", "glmpatch", *arguments]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)


def add(copy: Path, source: str) -> None:
    (copy / "glmpatch/patches/other").mkdir()
    (copy / "glmpatch/patches/other/__init__.py").touch()
    (copy / "glmpatch/patches/other/patch.py").write_text(source)


OTHER = """\
from dataclasses import asdict, replace
from glmpatch.patches.glm4_residual.patch import PATCH
PATCH = replace(PATCH, id="other", versions={versions!r})
"""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import no_such_module\n", "cannot be imported: ModuleNotFoundError: No module named"),
        ("def f(:\n", "cannot be imported: SyntaxError"),
        ("import sys; sys.exit(3)\n", "cannot be imported: SystemExit: 3"),
        ("", "defines no PATCH that is a Patch"),
        (
            OTHER.format(versions=">=0.8.3,<0.9"),
            "mends vllm/model_executor/models/glm4.py, as glm4-residual does, in the same releases",
        ),
    ],
)
def test_the_other_patches_are_there_without_a_bad_one(
    copy: Path, source: str, expected: str
) -> None:
    add(copy, source)
    done = run(copy, "list")
    assert done.returncode == Exit.INTERNAL
    assert f"patches/other/patch.py {expected}" in done.stderr
    assert "Traceback" not in done.stderr
    assert all(patch.id in done.stdout for patch in PATCHES)
    done = run(copy, "explain", "other")
    assert done.returncode == Exit.USAGE
    assert expected in done.stderr
    done = run(copy, "explain", PATCH.id)
    assert PATCH.title in done.stdout


def test_patches_of_other_releases_may_share_a_file(copy: Path) -> None:
    add(copy, OTHER.format(versions=">=0.8.5"))
    done = run(copy, "list")
    assert done.returncode == 0, done.stderr
    assert "other" in done.stdout


def test_without_anyone_to_warn_a_bad_patch_is_an_error(copy: Path) -> None:
    add(copy, "PATCH = 1\n")
    code = "from glmpatch.catalogue import load_patches; load_patches()"
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert "patches/other/patch.py defines no PATCH that is a Patch" in done.stderr
    assert done.returncode == 1


# -- the table of known files -------------------------------------------------------------------


@each_patch
def test_every_patch_has_a_table_that_its_declaration_fits(patch: Patch) -> None:
    known = table(patch)
    releases = [name for row in known.rows for name in row.releases]
    assert releases, "python -m tests.known writes it"
    assert len(releases) == len(set(releases))
    for row in known.rows:
        assert row.state in (PatchState.NEEDED, PatchState.FIXED)
        for name in row.releases:
            assert patch.covers(name)
            assert patch.path(name) == row.file
            ids = {rewrite.id for rewrite in patch.rewrites_in(name)}
            assert {rewrite for rewrite, _, _ in row.findings} == ids
            for file in patch.beside(name):
                assert len(known.beside(file, name)) == 1
        broken = any(state == "broken" for _, state, _ in row.findings)
        assert broken == (row.state is PatchState.NEEDED) == (row.mended != row.sha256)
        assert all(len(each) == 64 for each in (row.sha256, row.mended, row.form))
    assert any(row.state is PatchState.NEEDED for row in known.rows)
    assert all(not patch.covers(name) for names in known.elsewhere.values() for name in names)


def test_a_release_is_looked_up_without_its_local_part() -> None:
    known = table(PATCH)
    assert known.of("0.8.4+cpu") == known.of("0.8.4") != ()
    assert known.of("0.8.5") == known.of(None) == known.of("0.8.4.post1") == ()
    row = known.rows[0]
    assert known.defect(row.sha256, "0.8.5") is row
    assert known.defect(row.sha256, None) is row
    assert known.defect(row.mended, "0.8.5") is None
    assert known.origin(row.sha256) == ("0.8.4",)
    assert "0.8.5" in known.origin(next(iter(known.elsewhere)))
    assert known.origin("0" * 64) == ()


def test_the_same_file_may_be_no_defect_in_a_release_that_the_patch_is_not_for() -> None:
    """0.7.2 has the glm.py of 0.7.3, beside a llama.py that makes another model of it."""
    (patch,) = (patch for patch in PATCHES if patch.id == "glm-rope")
    known = table(patch)
    (row,) = known.of("0.7.3")
    assert known.elsewhere[row.sha256] == ("0.7.2",)
    assert known.defect(row.sha256, "0.7.2") is None
    assert known.defect(row.sha256, "0.7.2+cpu") is None
    assert known.defect(row.sha256, "0.7.3.dev1") is row


def test_a_table_that_cannot_be_read_is_a_fault_of_glmpatch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "__file__", str(tmp_path / "catalogue.py"))
    monkeypatch.setattr(catalogue, "_table", catalogue._table.__wrapped__)
    assert table(PATCH).rows == (), "a patch whose table was not written yet"
    (tmp_path / "patches/glm4_residual").mkdir(parents=True)
    (tmp_path / "patches/glm4_residual/known.json").write_text("{")
    with pytest.raises(Failure, match="cannot be read") as caught:
        table(PATCH)
    assert caught.value.code is Exit.INTERNAL


def test_a_table_is_read_as_it_is_written() -> None:
    path = ROOT / "patches/glm4_residual/known.json"
    data = json.loads(path.read_bytes())
    assert data["schema"] == catalogue.SCHEMA
    known = asdict(parse_table(data))
    assert [{**row, "state": row["state"].value} for row in known["rows"]] == [
        {**row, "releases": tuple(row["releases"]), "findings": tuple(map(tuple, row["findings"]))}
        for row in data["files"]
    ]
    assert {key: list(names) for key, names in known["elsewhere"].items()} == data["elsewhere"]
