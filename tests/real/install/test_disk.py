"""The same faults from a real kernel: a full disk, a read-only one, no permission."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real.install.conftest import make
from tests.support import syscalls
from tests.support.command import as_user, command, glmpatch, mounted, needs_root, state
from tests.support.site import Site

pytestmark = pytest.mark.usefixtures("plan_once")

NOBODY = 65534
PAGE = 4096


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Site]:
    """A tree on a file system of 400 KB."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=400k", "none"):
        yield make(tmp_path / "disk" / "site")


@needs_root
def test_a_full_disk_leaves_the_tree_and_says_so(
    disk: Site, tmp_path: Path, tell: Callable[[str, int], None]
) -> None:
    pristine = disk.copy(tmp_path / "pristine")
    filler = disk.root.parent / "filler"
    codes: dict[str, list[int]] = {"apply": [], "revert": []}
    for name, done in (("apply", "applied"), ("revert", "needed")):
        disk.become(pristine)
        if name == "revert":
            assert glmpatch(disk, "apply").code == 0
        before = disk.tree()
        for free in range(24):
            filler.write_bytes(b"")
            room = shutil.disk_usage(filler).free // PAGE
            filler.write_bytes(bytes((room - free) * PAGE))
            run = glmpatch(disk, name)
            codes[name].append(run.code)
            if run.code == 0:
                break
            assert run.code == 3, run.output
            assert "No space left on device; the model file is as it was" in run.output
            assert disk.tree() == before, f"{name} with {free} free pages"
        assert state(disk) == done
        filler.unlink()
    assert codes["apply"].count(3) > 5
    assert codes["revert"].count(3) > 2
    assert codes["apply"][-1] == codes["revert"][-1] == 0
    tell("a full disk (tmpfs), one more page free each time", sum(map(len, codes.values())))


@needs_root
def test_a_read_only_disk_is_named_and_what_needs_no_change_still_works(disk: Site) -> None:
    mount = disk.root.parent
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
    before = disk.tree()
    run = glmpatch(disk, "apply")
    assert run.code == 3
    assert "read-only" in run.output
    assert glmpatch(disk, "revert").code == 0
    assert glmpatch(disk, "status", "--check").code == 1
    assert disk.tree() == before

    subprocess.run(["mount", "-o", "remount,rw", mount], check=True)
    assert glmpatch(disk, "apply").code == 0
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
    before = disk.tree()
    assert glmpatch(disk, "apply").code == 0
    assert glmpatch(disk, "status", "--check").code == 0
    run = glmpatch(disk, "revert")
    assert run.code == 3
    assert "read-only" in run.output
    assert disk.tree() == before


@needs_root
def test_a_file_that_is_mounted_on_its_own_is_named(tree: Site, tmp_path: Path) -> None:
    """``docker run -v glm4.py:/…/glm4.py`` is a common way to patch by hand."""
    mine = tmp_path / "mine.py"
    mine.write_bytes(tree.model.read_bytes())
    before = tree.tree()
    with mounted(tree.model, "--bind", str(mine), make=False):
        run = glmpatch(tree, "apply")
        assert run.code == 3
        assert "busy" in run.output
        assert "mounted on its own" in run.output
        assert mine.read_bytes() == tree.model.read_bytes()
    assert tree.tree() == before


@needs_root
@pytest.mark.parametrize("what", ["the whole tree", "the models' folder", "the metadata"])
def test_a_user_without_permission_is_told_and_nothing_changes(open_tree: Site, what: str) -> None:
    tree = open_tree
    if what != "the whole tree":
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", tree.root], check=True)
        closed = tree.model.parent if what == "the models' folder" else tree.dist_info
        os.chown(closed, 0, 0)
    before = tree.tree()
    run = syscalls.run(as_user(NOBODY, command(tree, "apply")), traced=False)
    assert run.code == 3, run.output
    assert "no permission" in run.output
    assert "hint:" in run.output
    assert tree.tree() == before
    assert syscalls.run(as_user(NOBODY, command(tree, "status")), traced=False).code == 0
