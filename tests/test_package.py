"""The distribution: what is in it, and what installing it does to an environment with vLLM."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.cache import uv

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--wheel", "--out-dir", str(folder), str(ROOT))
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_two_packages_and_is_small(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    (data,) = (top for top in tops if top.endswith(".data"))
    assert tops == {"patcher", "patches", data}
    assert [name for name in names if name.startswith(data)] == [
        f"{data}/data/share/man/man1/glmpatch.1"
    ]
    sources = {str(p.relative_to(ROOT)) for p in ROOT.glob("patche[rs]/**/*.py")}
    assert sources <= set(names)
    assert {"patcher/py.typed", "patches/py.typed"} <= set(names)
    assert wheel.stat().st_size < 150_000


def test_an_environment_that_has_it_has_its_manual_page(wheel: Path, tmp_path: Path) -> None:
    uv("venv", "--python", sys.executable, str(tmp_path))
    uv("pip", "install", "--no-deps", "--python", str(tmp_path), str(wheel))
    done = subprocess.run(
        ["man", "--where", "glmpatch"],
        env={**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert Path(done.stdout.strip()) == tmp_path / "share" / "man" / "man1" / "glmpatch.1", done


def test_installing_it_beside_vllm_changes_no_package_that_is_there(
    wheel: Path, released: Path
) -> None:
    plan = uv("pip", "install", "--dry-run", "--python", str(released), str(wheel), stderr=True)
    changes = [line.split()[:2] for line in plan.splitlines() if line.lstrip()[:1] in "+-~"]
    added = {what.partition("==")[0] for sign, what in changes if sign == "+"}
    assert added == {"glmpatch", "libcst"}, plan
    assert [what for sign, what in changes if sign != "+"] == []
