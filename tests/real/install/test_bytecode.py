"""A fresh interpreter runs the source that is there, whatever bytecode was lying around."""

from __future__ import annotations

import itertools
import os
import py_compile
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from glmpatch.patches.glm4_residual.patch import PATCH
from glmpatch.source.plan import Plan
from tests.real.install.test_races import compiled, load
from tests.support import syscalls
from tests.support.command import as_user, command, glmpatch, needs_root, state
from tests.support.site import Site
from tests.support.sources import repaired, replace
from tests.support.syscalls import Call, Do

pytestmark = pytest.mark.usefixtures("plan_once")

MODES = {
    "timestamp": py_compile.PycInvalidationMode.TIMESTAMP,
    "checked": py_compile.PycInvalidationMode.CHECKED_HASH,
    "unchecked": py_compile.PycInvalidationMode.UNCHECKED_HASH,
}
WHICH = """
import importlib.machinery, sys
loader = importlib.machinery.SourceFileLoader("glm4", sys.argv[1])
code, names = [loader.get_code("glm4")], set()
while code:
    each = code.pop()
    names.update(map(repr, (*each.co_names, *each.co_consts)))
    code += [c for c in each.co_consts if hasattr(c, "co_code")]
print("is_neox_style" in "".join(names))
"""
"""Loads the file as an import does; says whether the code is the repaired one."""


def interpreters() -> list[str]:
    """One of each minor version of Python that this machine has, that of the tests first."""
    places = [*os.get_exec_path(), *map(str, Path.home().glob(".pyenv/versions/*/bin"))]
    found = {sys.version_info.minor: sys.executable}
    for folder, minor in itertools.product(places, range(9, 16)):
        path = Path(folder, f"python3.{minor}")
        if minor not in found and path.exists():
            works = subprocess.run([path, "-c", ""], capture_output=True).returncode == 0
            if works:
                found[minor] = str(path)
    return list(found.values())


@pytest.mark.parametrize("mode", MODES)
def test_old_bytecode_of_every_python_is_never_run(
    tree: Site, mode: str, tell: Callable[[str, int], None]
) -> None:
    pythons = interpreters()
    for name, right in (("apply", True), ("revert", False)):
        before = tree.model.stat()
        for python in pythons:
            _compile(python, tree.model, mode)
            assert _runs_repaired(python, tree.model) is not right
        assert glmpatch(tree, name).code == 0
        # As hard as it gets: nothing but the content tells the two apart.
        os.utime(tree.model, (before.st_atime, before.st_mtime))
        for python in pythons:
            assert _runs_repaired(python, tree.model) is right, python
    tell(f"{mode} bytecode of {len(pythons)} Pythons, apply and revert", 2 * len(pythons))


@pytest.fixture
def same_size(tree: Site, plan_once: Callable[..., Plan]) -> Site:
    """Half repaired by hand, and so spaced that the other half leaves the size as it is."""
    half = repaired(tree.model.read_bytes(), ("unpack-fused-norm", "drop-double-residual"))
    grows = len(repaired(half)) - len(half)
    assert grows > 0
    half = replace(half, "self.rotary_dim = int(", "self.rotary_dim = int(" + grows * " ")
    assert len(repaired(half)) == len(half)
    tree.model.write_bytes(half)
    plan_once(PATCH, half)
    return tree


OWNER = ("--python", sys.executable)
"""A file that is not as released byte for byte must compile there too."""


def test_the_same_second_and_size_do_not_hide_a_change(same_size: Site) -> None:
    for name in ("apply", "revert"):
        stamp = same_size.model.stat().st_mtime
        _compile(sys.executable, same_size.model, "timestamp")
        assert glmpatch(same_size, name, *OWNER).code == 0
        os.utime(same_size.model, (stamp, stamp))
        assert load(same_size.model) == compiled(same_size.model.read_bytes(), same_size.model)


def test_an_import_that_is_overtaken_twice_leaves_no_wrong_bytecode(same_size: Site) -> None:
    """It looks at the source, reads another one, and writes the bytecode when the first is back."""
    tree = same_size
    stamp = time.time()
    os.utime(tree.model, (stamp, stamp))
    done = []

    def overtake(call: Call) -> None:
        name = ""
        if call == Call("openat", str(tree.model)):
            name = "apply"
        elif call.name in ("rename", "renameat") and ".pyc" in call.path:
            name = "revert"
        if name and name not in done:
            done.append(name)
            assert glmpatch(tree, name, *OWNER).code == 0

    def reader() -> int:
        sys.dont_write_bytecode = False
        assert load(tree.model) is not None
        return 0

    run = syscalls.run(reader, do=Do.MEANWHILE, meanwhile=overtake)
    assert run.code == 0, run.output
    assert done == ["apply", "revert"]
    assert list(tree.bytecode.glob("glm4.*.pyc")), "the import wrote no bytecode"
    assert load(tree.model) == compiled(tree.model.read_bytes(), tree.model)


def test_bytecode_that_goes_while_it_is_looked_at_is_no_obstacle(tree: Site) -> None:
    """Another glmpatch, which is about to change the source, takes it away."""
    assert glmpatch(tree, "apply").code == 0
    _compile(sys.executable, tree.model, "timestamp")
    kept = {path: path.read_bytes() for path in tree.bytecode.iterdir()}
    opened = {path: Call("openat", str(path)) for path in kept}
    tried = []
    for path, at_it in opened.items():

        def gone(call: Call, path: Path = path, at_it: Call = at_it) -> None:
            if call == at_it:
                path.unlink()
                tried.append(path)

        run = syscalls.run(command(tree, "status", "--check"), do=Do.MEANWHILE, meanwhile=gone)
        assert run.code == 0, run.output
        path.write_bytes(kept[path])
    assert tried == list(kept), "bytecode that was not looked at"


def test_a_missing_bytecode_folder_stays_missing(tree: Site) -> None:
    for path in tree.bytecode.iterdir():
        path.unlink()
    tree.bytecode.rmdir()
    assert glmpatch(tree, "apply").code == 0
    assert glmpatch(tree, "revert").code == 0
    assert not tree.bytecode.exists()


def test_bytecode_of_other_modules_stays(tree: Site) -> None:
    others = [tree.bytecode / name for name in ("glm4v.cpython-311.pyc", "glm.cpython-311.pyc")]
    for other in others:
        other.write_bytes(b"other")
    assert glmpatch(tree, "apply").code == 0
    assert sorted(tree.bytecode.iterdir()) == sorted(others)


def test_bytecode_kept_elsewhere_is_removed_there(
    tree: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = tmp_path / "elsewhere"
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(prefix))
    for name, right in (("apply", True), ("revert", False)):
        _compile(sys.executable, tree.model, "unchecked")
        assert list(prefix.rglob("glm4.*.pyc"))
        assert glmpatch(tree, name).code == 0
        assert _runs_repaired(sys.executable, tree.model) is right


def test_a_link_in_place_of_the_bytecode_folder_is_not_followed(tree: Site, tmp_path: Path) -> None:
    outside = tree.bytecode.rename(tmp_path / "outside")
    tree.bytecode.symlink_to(outside)
    before = tree.tree()
    run = glmpatch(tree, "apply")
    assert run.code == 3
    assert "__pycache__" in run.output
    assert tree.tree() == before
    assert len(list(outside.iterdir())) == 4
    # Without bytecode of the model file behind it there is nothing to fear.
    for path in outside.iterdir():
        path.unlink()
    assert glmpatch(tree, "apply").code == 0


def test_a_file_in_place_of_the_bytecode_folder_is_no_obstacle(tree: Site) -> None:
    """Some switch bytecode off that way."""
    for path in tree.bytecode.iterdir():
        path.unlink()
    tree.bytecode.rmdir()
    tree.bytecode.touch()
    assert glmpatch(tree, "apply").code == 0
    assert state(tree) == "applied"


@needs_root
@pytest.mark.parametrize(("mode", "code"), [("timestamp", 0), ("checked", 0), ("unchecked", 3)])
def test_bytecode_that_cannot_be_removed_matters_only_if_it_would_run(
    open_tree: Site, mode: str, code: int
) -> None:
    """A tree of a user's in which root's Python left its bytecode."""
    for path in open_tree.bytecode.iterdir():
        path.unlink()
    os.utime(open_tree.model, (1, 1))
    _compile(sys.executable, open_tree.model, mode)
    nobody = 65534
    subprocess.run(["chown", "-R", f"{nobody}:{nobody}", open_tree.root], check=True)
    subprocess.run(["chown", "-R", "0", open_tree.bytecode], check=True)
    before = open_tree.tree()
    run = syscalls.run(as_user(nobody, command(open_tree, "apply")), traced=False)
    assert run.code == code, run.output
    if code:
        assert "Permission denied; the model file is as it was" in run.output
        assert open_tree.tree() == before
    assert _runs_repaired(sys.executable, open_tree.model) is (code == 0)


def _compile(python: str, source: Path, mode: str) -> None:
    """Bytecode of a source, as this interpreter writes it."""
    code = (
        "import py_compile, sys; py_compile.compile(sys.argv[1], doraise=True, "
        f"invalidation_mode=py_compile.PycInvalidationMode({MODES[mode].value}))"
    )
    subprocess.run([python, "-c", code, source], check=True)


def _runs_repaired(python: str, source: Path) -> bool:
    done = subprocess.run(
        [python, "-B", "-c", WHICH, source], check=True, capture_output=True, text=True
    )
    return done.stdout.strip() == "True"
