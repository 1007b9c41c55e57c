"""What is uploaded: built without a network, and clean by the tools that an index's users run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cache import cache, once

pytestmark = pytest.mark.real
ROOT = Path(__file__).parents[2]
NEEDED = ("hatchling>=1.24", "click>=8.1", "libcst>=1.1", "packaging>=21", "pip", "setuptools")


def run(*command: str | Path) -> None:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheelhouse() -> Path:
    folder = cache() / "wheelhouse"
    with once(folder) as missing:
        if missing:
            folder.mkdir(exist_ok=True)
            run(sys.executable, "-m", "pip", "download", "-q", "-d", folder, *NEEDED)
    return folder


@pytest.fixture(scope="module")
def built(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist, from a copy of the tree, with nothing but the wheelhouse to take from."""
    source = tmp_path_factory.mktemp("built") / "source"
    ignored = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", "dist")
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignored)
    dist = source / "dist"
    offline = ("--offline", "--no-index", "--find-links", wheelhouse)
    run(sys.executable, "-m", "uv", "build", *offline, "--out-dir", dist, source)
    return dist


def test_it_installs_without_a_network(built: Path, wheelhouse: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "env")
    pip = (tmp_path / "env" / "bin" / "python", "-m", "pip", "install", "-q", "--no-index")
    run(*pip, "--find-links", wheelhouse, wheel)
    run(tmp_path / "env" / "bin" / "glmpatch", "list")


def test_the_tools_of_an_index_are_content(built: Path) -> None:
    wheels = sorted(built.glob("glmpatch-*"))
    assert {path.suffix for path in wheels} == {".whl", ".gz"}
    run(sys.executable, "-m", "twine", "check", "--strict", *wheels)
    run(sys.executable, "-m", "check_wheel_contents", *built.glob("*.whl"))
