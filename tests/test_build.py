"""The wheel and the sdist: the same bytes whoever builds them, and installed by Python alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from patcher import __version__
from tests.support.cache import uv

ROOT = Path(__file__).parent.parent
PARTS = ("docs", "examples", "patcher", "patches", "tests")


def checkout(folder: Path) -> Path:
    """The files of the repository, as of now: those that builds read."""
    for part in PARTS:
        leave = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, folder / part, ignore=leave)
    for file in [*ROOT.glob("*.md"), ROOT / "LICENSE", ROOT / "pyproject.toml"]:
        shutil.copyfile(file, folder / file.name)
    return folder


def build(source: Path) -> dict[str, bytes]:
    uv("build", "--sdist", "--wheel", "--out-dir", str(source / "dist"), str(source))
    files = sorted((source / "dist").glob("glmpatch-*"))
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = checkout(tmp_path_factory.mktemp("built"))
    build(source)
    return source / "dist"


def test_two_builds_are_the_same_bytes(built: Path, tmp_path: Path) -> None:
    source = checkout(tmp_path)
    # Another checkout: of another day, by somebody with another umask.
    for each in source.rglob("*"):
        os.utime(each, (1_000_000_000, 1_000_000_000))
        each.chmod(each.stat().st_mode | 0o020)
    again = build(source)
    assert len(again) == 2
    assert again == {file.name: file.read_bytes() for file in built.glob("glmpatch-*")}


def test_another_source_is_other_bytes(built: Path, tmp_path: Path) -> None:
    source = checkout(tmp_path)
    (source / "patcher" / "versions.py").write_text("# other\n")
    for name, data in build(source).items():
        assert data != (built / name).read_bytes()


@pytest.mark.parametrize("pattern", ["*.whl", "*.tar.gz"])
def test_it_installs_in_a_bare_environment(built: Path, tmp_path: Path, pattern: str) -> None:
    (archive,) = built.glob(pattern)
    venv.create(tmp_path / "env", with_pip=True)
    pip = [str(tmp_path / "env/bin/pip"), "install", "-q", str(archive)]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    glmpatch = str(tmp_path / "env/bin/glmpatch")
    asked = [
        subprocess.run([glmpatch, *arguments], capture_output=True, text=True, cwd=tmp_path)
        for arguments in (["--version"], ["list"], ["status"])
    ]
    assert [each.returncode for each in asked] == [0, 0, 3]
    assert asked[0].stdout.split() == ["glmpatch", __version__]
    assert "glm4-residual" in asked[1].stdout
    assert "--python" in asked[2].stderr


def test_the_metadata_is_complete(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"glmpatch-{__version__}.dist-info/METADATA").decode()
    fields = dict(re.findall(r"^([\w-]+): (.+)$", text.partition("\n\n")[0], re.MULTILINE))
    assert fields["License-Expression"] == "Apache-2.0"
    wanted = {"Summary", "Author", "Project-URL", "Requires-Python", "Keywords", "Classifier"}
    assert wanted <= fields.keys()
    assert "\nClassifier: Typing :: Typed\n" in text


def test_the_sdist_has_what_its_tests_and_pages_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    source = built.parent
    files = {str(file.relative_to(source)) for file in source.rglob("*") if file.is_file()}
    assert {file for file in files if not file.startswith("dist/")} <= held


def test_the_changelog_tells_of_this_version() -> None:
    assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")
