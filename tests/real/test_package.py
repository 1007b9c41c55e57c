"""The distribution: what is in it, and what installing it does to an environment with vLLM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.bench import footprint
from tests.support.cache import uv
from tests.support.environment import Environment, glmpatch
from tests.support.man import man

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return footprint.build(tmp_path_factory.mktemp("dist"))


def test_the_wheel_holds_one_package_and_is_small(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    (data,) = (top for top in tops if top.endswith(".data"))
    assert tops == {"glmpatch", data}
    assert [name for name in names if name.startswith(data)] == [
        f"{data}/data/share/man/man1/glmpatch.1"
    ]
    package = ROOT / "patcher" / "glmpatch"
    sources = {str(p.relative_to(package.parent)) for p in package.glob("**/*.py")}
    patches = {f"glmpatch/{p.relative_to(ROOT)}" for p in ROOT.glob("patches/**/*.py")}
    tables = {f"glmpatch/{p.relative_to(ROOT)}" for p in ROOT.glob("patches/**/*.json")}
    assert sources | patches | tables <= set(names)
    assert {"glmpatch/py.typed", "glmpatch/patches/py.typed"} <= set(names)
    # All of it is source, tables and metadata; docs/benchmarks.md tells its size.
    assert wheel.stat().st_size < 450_000


def test_an_environment_that_has_it_has_its_manual_page(wheel: Path, tmp_path: Path) -> None:
    uv("venv", "--python", sys.executable, str(tmp_path))
    uv("pip", "install", "--no-deps", "--python", str(tmp_path), str(wheel))
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    done = man("man", "--where", "glmpatch", env={"PATH": path})
    assert Path(done.stdout.strip()) == tmp_path / "share" / "man" / "man1" / "glmpatch.1", done


def test_installing_it_beside_vllm_changes_no_package_that_is_there(
    wheel: Path, released: Path
) -> None:
    plan = uv("pip", "install", "--dry-run", "--python", str(released), str(wheel), stderr=True)
    changes = [line.split()[:2] for line in plan.splitlines() if line.lstrip()[:1] in "+-~"]
    added = {what.partition("==")[0] for sign, what in changes if sign == "+"}
    assert added == {"glmpatch", "libcst"}, plan
    assert [what for sign, what in changes if sign != "+"] == []


def test_a_real_install_adds_two_packages_and_the_environment_stays_sound(
    wheel: Path, env: Environment
) -> None:
    before, problems = footprint.present(env), check(env)
    footprint.install(env, wheel)
    added = {name for name in footprint.present(env) - before if ".dist-info" not in name}
    script, packages = "bin/glmpatch", ("libcst", "glmpatch")
    assert added == {script, *(f"site-packages/{name}" for name in packages)}
    assert footprint.size(footprint.ours(env, "glmpatch")) < 1_500_000
    assert check(env) == problems == "No broken requirements found.\n"


def check(env: Environment) -> str:
    """What ``pip check`` says of an environment."""
    pip = [sys.executable, "-m", "pip", "--python", str(env.python), "check"]
    return subprocess.run(pip, capture_output=True, text=True).stdout


def test_nothing_of_glmpatch_is_imported_when_vllm_runs(wheel: Path, env: Environment) -> None:
    footprint.install(env, wheel)
    script = [str(env.python), "-m", "glmpatch", "apply"]
    subprocess.run(script, check=True, capture_output=True)
    models = ("glm4", "glm")
    code = "; ".join(f"import vllm.model_executor.models.{name}" for name in models)
    done = env.run(f"{code}; import json, sys; print(json.dumps(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert {"vllm", "torch"} <= loaded
    assert loaded & {"libcst", "glmpatch"} == set()


def test_run_isolated_it_adds_nothing_but_receipts(env: Environment) -> None:
    before, tree = footprint.present(env), env.tree()
    done = glmpatch("apply", "--python", str(env.root))
    assert done.returncode == 0, done.stderr
    assert footprint.present(env) == before
    new = set(env.tree()) - set(tree)
    assert new
    assert all(Path(name).name.startswith("glmpatch-") for name in new)
    assert {Path(name).parent.name for name in new} == {env.dist_info.name}
    assert glmpatch("revert", "--python", str(env.root)).returncode == 0
    assert env.tree() == tree
