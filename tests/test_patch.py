"""The vocabulary: releases, files that move, rewrites with releases of their own."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from glmpatch import patches
from glmpatch.catalogue import load_patches
from glmpatch.patch import Neighbour, Patch, Rewrite, paths_of
from glmpatch.patches.glm4_residual.patch import PATCH

each_patch = pytest.mark.parametrize("patch", load_patches(), ids=lambda each: each.id)


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


def test_a_file_that_moved_is_found_by_release() -> None:
    moved = {"<0.9": "vllm/a.py", ">=0.9": "vllm/b.py"}
    patch = dataclasses.replace(
        PATCH, versions=">=0.8", file=moved, neighbours=(Neighbour(moved), Neighbour("vllm/c.py"))
    )
    assert (patch.path("0.8.4"), patch.path("0.9")) == ("vllm/a.py", "vllm/b.py")
    assert patch.path(None) == patch.path("dev") == "vllm/b.py", "the newest, where none is known"
    assert patch.beside("0.8.4") == ("vllm/a.py", "vllm/c.py")
    assert paths_of(moved) == ("vllm/a.py", "vllm/b.py")
    assert paths_of("vllm/c.py") == ("vllm/c.py",)


def test_a_rewrite_may_have_releases_of_its_own() -> None:
    one, other = Rewrite("one", "one"), Rewrite("other", "other", versions="<0.9")
    patch = dataclasses.replace(PATCH, versions=">=0.8,<1", rewrites=(one, other))
    assert patch.rewrites_in("0.8.4") == (one, other)
    assert patch.rewrites_in("0.9.1") == (one,)
    assert patch.rewrites_in(None) == patch.rewrites_in("2.0") == (one, other)


def test_every_folder_in_patches_is_one_patch_named_after_it() -> None:
    folders = {
        path.parent for each in patches.__path__ for path in Path(each).glob("*/__init__.py")
    }
    names = sorted(folder.name for folder in folders)
    assert [each.id for each in load_patches()] == [name.replace("_", "-") for name in names]


@each_patch
def test_a_patch_gives_its_reasons_and_finds_what_it_names(patch: Patch) -> None:
    assert all((patch.title, patch.symptoms, patch.why, patch.how, patch.removal))
    assert patch.upstream.startswith("https://")
    assert patch.advised or patch.caution
    assert all(callable(patch.find(rewrite)) for rewrite in patch.rewrites)


def test_what_a_patch_says_of_itself_needs_no_parser() -> None:
    code = (
        "import sys; from glmpatch.catalogue import load_patches, table; "
        "[table(patch) for patch in load_patches()]; assert 'libcst' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
