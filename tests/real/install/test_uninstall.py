"""Real pip and uv: uninstalling takes all of it away, reinstalling makes a pristine vLLM."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import cache
from tests.support.command import glmpatch, state
from tests.support.site import Site

pytestmark = pytest.mark.usefixtures("plan_once")

TOOLS = ("pip", "uv")


@pytest.fixture(params=TOOLS)
def tool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def environment(tmp_path: Path, wheels: Path, tool: str) -> Path:
    root = tmp_path / "env"
    cache.uv("venv", "--python", cache.PYTHONS, "--seed", str(root))
    _install(root, tool, wheels, "0.8.4")
    return root


def test_uninstalling_takes_all_of_it_away(environment: Path, tool: str, wheels: Path) -> None:
    site = _site(environment)
    before = _left(site.root)
    assert glmpatch(site, "apply").code == 0
    _run(environment, tool, "uninstall", "vllm")
    assert _left(site.root) == {name for name in before if "vllm" not in name}
    assert not (site.root / "vllm").exists()
    assert glmpatch(site, "status").code == 3


@pytest.mark.parametrize("version", ["0.8.4", "0.8.5"])
def test_a_reinstall_or_upgrade_over_a_patched_tree_is_pristine(
    environment: Path, tool: str, wheels: Path, version: str, tell: Callable[[str, int], None]
) -> None:
    site = _site(environment)
    released = site.model.read_bytes()
    assert glmpatch(site, "apply").code == 0
    assert state(site) == "applied"
    _install(environment, tool, wheels, version)
    site = _site(environment)
    assert site.version == version
    assert not list(site.root.rglob("*glmpatch*"))
    if version == "0.8.4":
        assert site.model.read_bytes() == released
        assert state(site) == "needed"
        assert glmpatch(site, "status", "--check").code == 1
        assert glmpatch(site, "apply").code == 0
        assert state(site) == "applied"
    else:
        assert state(site) in ("fixed", "not-applicable")
        assert glmpatch(site, "status", "--check").code == 0
    tell(f"{tool}: vLLM {version} installed over a patched 0.8.4", 1)


def test_a_package_that_is_checked_is_found_whole(environment: Path, tool: str) -> None:
    """Receipt and original are listed with the right hashes, as installers check them."""
    site = _site(environment)
    assert glmpatch(site, "apply").code == 0
    code = (
        "import importlib.metadata as m\n"
        "for f in m.files('vllm'):\n"
        "    if 'glmpatch' in f.name:\n"
        "        import base64, hashlib\n"
        "        d = hashlib.sha256(f.read_binary()).digest()\n"
        "        assert f.hash.value == base64.urlsafe_b64encode(d).decode().rstrip('=')\n"
        "        print(f.name, f.size == f.locate().stat().st_size)\n"
    )
    python = environment / "bin" / "python"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == sorted(
        [site.original.name, "True", site.receipt.name, "True"]
    )


def test_a_receipt_that_outlived_its_file_is_named_and_replaced(tree: Site) -> None:
    """Somebody unpacked another vLLM over the patched one."""
    owner = ("--python", sys.executable)
    assert glmpatch(tree, "apply").code == 0
    other = b"# unpacked over it\n" + tree.original.read_bytes()
    tree.model.write_bytes(other)
    run = glmpatch(tree, "status", *owner)
    assert run.code == 0
    assert "glm4-residual: needed" in run.output
    assert "receipt" in run.output
    assert glmpatch(tree, "revert").code == 5
    assert glmpatch(tree, "apply", *owner).code == 0
    assert "glm4-residual: applied" in glmpatch(tree, "status", *owner).output
    assert glmpatch(tree, "revert").code == 0
    assert tree.model.read_bytes() == other


def test_a_receipt_of_a_file_that_is_pristine_again_goes(tree: Site) -> None:
    before = tree.tree()
    assert glmpatch(tree, "apply").code == 0
    tree.model.write_bytes(tree.original.read_bytes())
    assert state(tree) == "needed"
    assert glmpatch(tree, "revert").code == 0
    assert tree.tree() == before


def _site(environment: Path) -> Site:
    (site,) = (environment / "lib").glob("python3*/site-packages")
    (info,) = site.glob("vllm-*.dist-info")
    return Site(site, info.name.removesuffix(".dist-info").partition("-")[2])


def _install(environment: Path, tool: str, wheels: Path, version: str) -> None:
    again = "--reinstall" if tool == "uv" else "--force-reinstall"
    options = ("--no-deps", "--no-index", "--find-links", str(wheels), again)
    _run(environment, tool, "install", *options, f"vllm=={version}")


def _run(environment: Path, tool: str, *arguments: str) -> None:
    if tool == "uv":
        cache.uv("pip", arguments[0], "--python", str(environment), *arguments[1:])
        return
    command = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    yes = ("--yes",) if arguments[0] == "uninstall" else ()
    done = subprocess.run([*command, *arguments, *yes], capture_output=True, text=True)
    assert done.returncode == 0, f"{sys.executable}: {done.stdout}{done.stderr}"


def _left(site: Path) -> set[str]:
    return {
        str(Path(folder, name).relative_to(site))
        for folder, _, names in os.walk(site)
        for name in names
        if not name.endswith(".pyc") and "pip" not in folder
    }
