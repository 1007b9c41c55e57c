"""Import names: one package is installed, and no `patcher` or `patches` of anybody is imported."""

from __future__ import annotations

import shutil
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.cache import cache, uv
from tests.support.distribution import build, checkout, environment, run, wheel

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our wheel."""
    source = checkout(tmp_path_factory.mktemp("source"))
    (name,) = build(source, "--wheel")
    return source / "dist" / name


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder whose packages of those names leave a mark and fail when they are imported."""
    folder = tmp_path / "hostile"
    for name in ("patcher", "patches"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(
            f"open({str(tmp_path / 'mark')!r}, 'w').close()\nraise ImportError('not ours')\n"
        )
    return folder


def works(*start: str | Path, hostile: Path) -> None:
    """All that is imported is ours, in that folder and with it on PYTHONPATH."""
    for path in ("", str(hostile), f".:{hostile}"):
        for arguments, code in (
            (("list",), 0),
            (("explain", "glm4-residual"), 0),
            (("status", "--path", "."), 3),
            (("--help",), 0),
        ):
            done = run(*start, *arguments, cwd=hostile, PYTHONPATH=path)
            assert done.returncode == code, (start, arguments, path, done.stderr)
    done = run(*start, "list", cwd=hostile, PYTHONPATH=str(hostile))
    assert "glm4-residual" in done.stdout
    assert not (hostile.parent / "mark").exists(), "somebody else's package was imported"


def test_the_wheel_installs_one_package(ours: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(ours) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith((".dist-info", ".data"))} == {"glmpatch"}
    assert len(names) == len(set(names))
    bin_ = environment(tmp_path / "env")
    (site,) = (bin_.parent / "lib").glob("python3*/site-packages")
    before = {path.name for path in site.iterdir()}
    uv("pip", "install", "--no-deps", "--python", str(bin_.parent), str(ours))
    added = {path.name for path in site.iterdir()} - before
    assert {name for name in added if ".dist-info" not in name} == {"glmpatch"}


def test_no_package_of_the_working_folder_is_imported(
    ours: Path, hostile: Path, tmp_path: Path
) -> None:
    bin_ = environment(tmp_path / "env", str(ours))
    works(bin_ / "glmpatch", hostile=hostile)
    works(bin_ / "python", "-m", "glmpatch", hostile=hostile)


def test_uvx_imports_none_either(
    ours: Path, hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(cache() / "uv"))
    uvx = (sys.executable, "-m", "uv", "tool", "run", "--from", ours, "glmpatch")
    works(*uvx, hostile=hostile)


@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_an_editable_install_runs_the_checkout_and_nothing_else(
    hostile: Path, tmp_path: Path, tool: str
) -> None:
    source = checkout(tmp_path / "source")
    root = tmp_path / "env"
    if tool == "uv":
        environment(root, "-e", str(source))
    else:
        venv.create(root, with_pip=True)
        done = run(root / "bin" / "pip", "install", "-q", "-e", str(source), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    bin_ = root / "bin"
    (site,) = (root / "lib").glob("python3*/site-packages")
    works(bin_ / "glmpatch", hostile=hostile)
    works(bin_ / "python", "-m", "glmpatch", hostile=hostile)
    # Build tools put a copy of the patches into site-packages. It is no package, so that the
    # checkout's goes before it: what is edited there is what runs.
    code = (
        "import glmpatch.patches.glm_rope.patch as p, glmpatch.site, glmpatch\n"
        "print(glmpatch.__file__, p.__file__, p.PATCH.title, list(glmpatch.__path__), sep='\\n')"
    )
    patch = source / "patches" / "glm_rope" / "patch.py"
    text = patch.read_text("utf-8")
    assert 'title=N_("' in text
    patch.write_text(text.replace('title=N_("', 'title=N_("Edited: '), "utf-8")
    said = run(bin_ / "python", "-c", code, cwd=hostile).stdout.splitlines()
    package = source / "patcher" / "glmpatch"
    assert said[0] == str(package / "__init__.py")
    assert said[1] == str(package / "patches" / "glm_rope" / "patch.py")
    assert said[2].startswith("Edited: ")
    assert said[3] == str([str(package)])
    listed = run(bin_ / "glmpatch", "list", cwd=hostile).stdout
    assert "Edited: " in listed
    shutil.rmtree(source / "patches" / "glm_rope")
    assert "glm-rope" not in run(bin_ / "glmpatch", "list", cwd=hostile).stdout
    if tool == "uv":
        uv("pip", "uninstall", "--python", str(root), "glmpatch")
    else:
        run(bin_ / "pip", "uninstall", "-q", "--yes", "glmpatch", cwd=tmp_path)
    # pip leaves an empty folder where the copy was; no file in any case.
    assert not [path for path in site.glob("*glmpatch*/**/*") if path.is_file()]
    assert not [path for path in site.glob("*glmpatch*") if path.is_file()]


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_a_wheel_that_ships_a_package_patches_is_no_matter(
    ours: Path, hostile: Path, tmp_path: Path, first: str
) -> None:
    files = {f"{name}/__init__.py": b"raise ImportError\n" for name in ("patches", "patcher")}
    theirs = wheel(tmp_path, "other", files)
    order = [ours, theirs] if first == "ours" else [theirs, ours]
    bin_ = environment(tmp_path / "env", str(order[0]))
    uv("pip", "install", "--python", str(bin_.parent), str(order[1]))
    (site,) = (bin_.parent / "lib").glob("python3*/site-packages")
    works(bin_ / "glmpatch", hostile=hostile)
    uv("pip", "uninstall", "--python", str(bin_.parent), "other")
    works(bin_ / "glmpatch", hostile=hostile)
    uv("pip", "install", "--python", str(bin_.parent), str(theirs))
    uv("pip", "uninstall", "--python", str(bin_.parent), "glmpatch")
    assert not (site / "glmpatch").exists()
    assert {name for name in files if (site / name).is_file()} == set(files)
