"""Installers share files between environments; a change in one reaches no other."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import cache
from tests.support.command import glmpatch, state
from tests.support.site import Site

pytestmark = pytest.mark.usefixtures("plan_once")


@pytest.fixture
def beside_the_cache() -> Iterator[Path]:
    """A folder on the file system of uv's cache: hard links do not reach across."""
    with tempfile.TemporaryDirectory(dir=cache.cache()) as folder:
        yield Path(folder)


def _environment(root: Path, mode: str, wheels: Path) -> Site:
    """A real environment that uv makes, with vLLM alone in it."""
    cache.uv("venv", "--python", cache.PYTHONS, str(root))
    options = ("--no-deps", "--no-index", "--find-links", str(wheels), "--link-mode", mode)
    cache.uv("pip", "install", "--python", str(root), *options, "vllm==0.8.4")
    (site,) = (root / "lib").glob("python3*/site-packages")
    return Site(site)


@pytest.mark.parametrize("mode", ["hardlink", "symlink"])
def test_apply_in_one_environment_of_uv_reaches_no_other(
    beside_the_cache: Path,
    wheels: Path,
    released_file: bytes,
    mode: str,
    tell: Callable[[str, int], None],
) -> None:
    one = _environment(beside_the_cache / "one", mode, wheels)
    two = _environment(beside_the_cache / "two", mode, wheels)
    if mode == "hardlink":
        assert os.path.samefile(one.model, two.model)
    else:
        assert one.model.is_symlink()
        assert one.model.resolve() == two.model.resolve()
    assert glmpatch(one, "apply").code == 0
    assert state(one) == "applied"
    three = _environment(beside_the_cache / "three", mode, wheels)
    for other in (two, three):
        assert other.model.read_bytes() == released_file
        assert state(other) == "needed"
    assert glmpatch(one, "revert").code == 0
    assert one.model.read_bytes() == two.model.read_bytes() == released_file
    assert not list(one.dist_info.glob("*glmpatch*"))
    tell(f"environments of uv, {mode} mode: one patched, two as released", 3)


def test_apply_in_one_environment_of_conda_reaches_no_other(
    tree: Site, tmp_path: Path, released_file: bytes
) -> None:
    """Conda links every file of a package to its own folder of packages, metadata too."""
    package = tree.root
    one, two = Site(tmp_path / "one"), Site(tmp_path / "two")
    for each in (one, two):
        shutil.copytree(package, each.root, copy_function=os.link)
    record = tree.record.read_bytes()
    assert glmpatch(one, "apply").code == 0
    for other in (two, tree):
        assert other.model.read_bytes() == released_file
        assert other.record.read_bytes() == record
        assert not other.receipt.exists()
    assert glmpatch(one, "revert").code == 0
    assert one.model.read_bytes() == released_file
    assert one.record.read_bytes() == record
