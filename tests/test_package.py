"""The distribution: what is in it, and what installing it does to an environment with vLLM."""

from __future__ import annotations

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
    assert tops == {"patcher", "patches"}
    sources = {str(p.relative_to(ROOT)) for p in ROOT.glob("patche[rs]/**/*.py")}
    assert sources <= set(names)
    assert {"patcher/py.typed", "patches/py.typed"} <= set(names)
    assert wheel.stat().st_size < 150_000


def test_installing_it_beside_vllm_changes_no_package_that_is_there(
    wheel: Path, released: Path
) -> None:
    plan = uv("pip", "install", "--dry-run", "--python", str(released), str(wheel), stderr=True)
    changes = [line.split()[:2] for line in plan.splitlines() if line.lstrip()[:1] in "+-~"]
    added = {what.partition("==")[0] for sign, what in changes if sign == "+"}
    assert added == {"glmpatch", "libcst"}, plan
    assert [what for sign, what in changes if sign != "+"] == []
