"""The wheel and the sdist: the same bytes whoever builds them, and installed by Python alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from glmpatch import __version__
from tests.support.cache import uv
from tests.support.distribution import LINK, ROOT, build, checkout

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = checkout(tmp_path_factory.mktemp("built"))
    build(source)
    return source / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


def test_two_builds_are_the_same_bytes(built: Path, tmp_path: Path) -> None:
    source = checkout(tmp_path)
    # Another checkout: of another day, by somebody with another umask.
    for each in source.rglob("*"):
        if not each.is_symlink():
            os.utime(each, (1_000_000_000, 1_000_000_000))
            each.chmod(each.stat().st_mode | 0o020)
    again = build(source)
    assert len(again) == 2
    assert again == {file.name: file.read_bytes() for file in built.glob("glmpatch-*")}


def test_another_source_is_other_bytes(built: Path, tmp_path: Path) -> None:
    source = checkout(tmp_path)
    (source / "patches" / "glm_rope" / "rewrites.py").write_text("# other\n")
    for name, data in build(source).items():
        assert data != (built / name).read_bytes()


def test_the_sdist_makes_the_same_wheel(built: Path, wheel: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    uv("build", "--wheel", "--out-dir", str(tmp_path), str(sdist))
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


def _lost(link: Path) -> None:
    link.unlink()


def _text(link: Path) -> None:
    """What a checkout without links, or a zip that was unpacked by Python, leaves."""
    target = os.readlink(link)
    link.unlink()
    link.write_text(target)


def _copy(link: Path) -> None:
    """What a copy that follows links leaves; older than the folder at the top."""
    target = link.resolve()
    link.unlink()
    shutil.copytree(target, link)
    (link / "glm_rope" / "patch.py").write_text("stale = True\n")
    (link / "gone.py").write_text("stale = True\n")


@pytest.mark.parametrize("spoil", [_lost, _text, _copy])
def test_the_link_to_the_patches_may_be_lost_on_the_way(
    wheel: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    source = checkout(tmp_path)
    spoil(source / LINK)
    assert build(source, "--wheel") == {wheel.name: wheel.read_bytes()}


def test_a_zip_of_the_checkout_installs(wheel: Path, tmp_path: Path) -> None:
    """As GitHub serves it: the link is an entry with the mode of a link."""
    source = checkout(tmp_path / "source")
    archive = tmp_path / "glmpatch-main.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for each in sorted(source.rglob("*")):
            name = f"glmpatch-main/{each.relative_to(source)}"
            if each.is_symlink():
                entry = zipfile.ZipInfo(name)
                entry.external_attr = 0o120777 << 16
                file.writestr(entry, os.readlink(each))
            elif each.is_file():
                file.write(each, name)
    uv("venv", str(tmp_path / "env"))
    uv("pip", "install", "--no-deps", "--python", str(tmp_path / "env"), str(archive))
    (site,) = (tmp_path / "env" / "lib").glob("python3*/site-packages")
    with zipfile.ZipFile(wheel) as ours:
        wanted = {n for n in ours.namelist() if n.startswith("glmpatch/")}
    installed = {str(p.relative_to(site)) for p in (site / "glmpatch").rglob("*") if p.is_file()}
    assert {name for name in installed if not name.endswith(".pyc")} == wanted


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


def test_the_metadata_is_complete(wheel: Path) -> None:
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
