"""The vocabulary, and how the patches are found."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import patches
from patcher import patch
from patcher.errors import Exit, Failure
from patcher.patch import PatchState, lazy, load_patches, select_patches
from patches.glm4_residual import PATCH


@pytest.mark.parametrize(
    "version",
    ["0.8.4", "0.8.4+cpu", "0.8.4+cu121", "0.8.4.post1", "0.8.4.post1+cpu", "v0.8.4", "0.8.4.0"],
)
def test_local_and_post_parts_do_not_matter(version: str) -> None:
    assert PATCH.covers(version)


@pytest.mark.parametrize(
    "version",
    [
        "0.8.3",
        "0.8.5",
        "0.8.5.post1",
        "0.8.40",
        "0.8.4rc1",
        "0.8.4.dev1",
        "0.8.3rc2.dev107+gdb95cbc1e",
        "1!0.8.4",
        "0.8.4-custom-build",
        "unknown",
        "",
        "dev",
    ],
)
def test_other_and_invalid_versions_are_not_covered(version: str) -> None:
    assert not PATCH.covers(version)


def test_ranges_hold_for_post_releases_of_their_ends() -> None:
    ranged = dataclasses.replace(PATCH, versions=">=0.7.3,<=0.8.4")
    assert ranged.covers("0.7.3.post1")
    assert ranged.covers("0.8.4.post2+cpu")
    assert not ranged.covers("0.8.5")


def test_every_module_in_patches_is_one_patch_named_after_it() -> None:
    files = Path(patches.__file__ or "").parent.glob("[a-z]*.py")
    names = sorted(file.stem for file in files)
    assert [each.id for each in load_patches()] == [name.replace("_", "-") for name in names]


@pytest.mark.parametrize("each", load_patches(), ids=lambda each: each.id)
def test_a_patch_gives_its_reasons(each: patch.Patch) -> None:
    assert all((each.title, each.why, each.how, each.removal))
    assert each.upstream.startswith("https://")
    assert each.file.startswith("vllm/")
    assert set(each.known.values()) <= {PatchState.NEEDED, PatchState.FIXED}
    assert all(len(sha) == 64 and set(sha) <= set("0123456789abcdef") for sha in each.known)
    ids = [rewrite.id for rewrite in each.rewrites]
    assert len(ids) == len(set(ids))
    assert all(rewrite.places > 0 for rewrite in each.rewrites)


def test_no_name_selects_all_and_names_select_in_order_each_once() -> None:
    assert select_patches([]) == load_patches()
    assert select_patches([PATCH.id, PATCH.id]) == (PATCH,)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("glm4_residual", "did you mean glm4-residual?"),
        ("x", "the patches are: " + ", ".join(each.id for each in load_patches())),
    ],
)
def test_a_wrong_name_is_wrong_usage(name: str, hint: str) -> None:
    with pytest.raises(Failure) as caught:
        select_patches([name])
    assert caught.value.code is Exit.USAGE
    assert repr(name) in caught.value.message
    assert caught.value.hint == hint


def test_a_module_that_is_no_patch_is_a_fault_of_glmpatch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no_patch.py").write_text("PATCH = 7\n")
    monkeypatch.setattr(patches, "__path__", [*patches.__path__, str(tmp_path)])
    with pytest.raises(Failure) as caught:
        load_patches()
    assert caught.value.code is Exit.INTERNAL
    assert "patches/no_patch.py defines no PATCH that is a Patch" in caught.value.message


def test_a_lazy_module_is_imported_at_its_first_use() -> None:
    code = (
        "import sys; from patcher.patch import lazy; m = lazy('libcst'); "
        "assert 'libcst._nodes' not in sys.modules; m.parse_module; "
        "assert 'libcst._nodes' in sys.modules and lazy('libcst') is m"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_lazy_module_that_is_not_there_is_an_import_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        lazy("no_such_module")
