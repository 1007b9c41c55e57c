"""What Python would import in place of a file, held against the interpreter itself."""

from __future__ import annotations

import importlib.machinery
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from glmpatch.site.path import hidden_by
from tests.support import toy
from tests.support.command import glmpatch, state
from tests.support.site import Site

OF_THIS_PYTHON = importlib.machinery.EXTENSION_SUFFIXES
EXTENSIONS = (
    *OF_THIS_PYTHON,  # .cpython-311-x86_64-linux-gnu.so, .abi3.so, .so
    ".cpython-39-x86_64-linux-gnu.so",
    ".cpython-312-aarch64-linux-gnu.so",
)
"""vLLM's Python may be another one than the tool's, so that those of all Pythons count."""


def imported(tree: Site) -> str:
    """The file that the interpreter finds for the toy's name; nothing is run."""
    name = ".".join(Path(toy.FILE).with_suffix("").parts)
    code = (
        "import sys, importlib.machinery as m\n"
        "paths = [sys.argv[1]]\n"
        f"for part in {name.split('.')!r}:\n"
        "    spec = m.PathFinder.find_spec(part, paths)\n"
        "    paths = spec.submodule_search_locations\n"
        "print(spec.origin)\n"
    )
    command = [sys.executable, "-I", "-c", code, str(tree.root)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _refused(tree: Site, hiding: Path) -> None:
    before = tree.tree()
    assert hidden_by(tree.model) == hiding
    assert state(tree) == "drifted"
    for arguments in (("apply",), ("diff",), ("status", "--check")):
        run = glmpatch(tree, *arguments)
        assert run.code == 5, run.output
        assert f"Python imports {hiding} in its place" in run.output
    assert tree.tree() == before


@pytest.mark.parametrize("suffix", EXTENSIONS)
def test_an_extension_module_beside_the_file_is_named_and_refused(tree: Site, suffix: str) -> None:
    hiding = tree.model.with_name(tree.model.stem + suffix)
    hiding.write_bytes(b"\x7fELF")
    if suffix in OF_THIS_PYTHON:
        assert imported(tree) == str(hiding)
    _refused(tree, hiding)


@pytest.mark.parametrize("name", ["__init__.py", "__init__.abi3.so", "__init__.pyc"])
def test_a_package_of_its_name_is_named_and_refused(tree: Site, name: str) -> None:
    package = tree.model.with_suffix("")
    package.mkdir()
    (package / name).write_bytes(b"")
    assert imported(tree) == str(package / name)
    _refused(tree, package)


@pytest.mark.parametrize("names", [(), ("other.py",), ("__init__",), ("__init__.txt",)])
def test_a_folder_without_an_init_does_not_hide_it(tree: Site, names: tuple[str, ...]) -> None:
    folder = tree.model.with_suffix("")
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"")
    assert imported(tree) == str(tree.model)
    assert hidden_by(tree.model) is None
    assert glmpatch(tree, "apply").code == 0
    assert state(tree) == "applied"


def _other_module(tree: Site) -> None:
    tree.model.with_name("toys.so").write_bytes(b"\x7fELF")
    tree.model.with_name("mytoy.abi3.so").write_bytes(b"\x7fELF")


def _backup(tree: Site) -> None:
    tree.model.with_name("toy.py.orig").write_bytes(b"")
    tree.model.with_name("toy.pyc").write_bytes(b"")  # Python takes the source first
    tree.model.with_name("toy.so.bak").write_bytes(b"")


def _extension_with_another_middle(tree: Site) -> None:
    """Python looks for the suffixes that it knows, and for no other."""
    tree.model.with_name("toy.old.so").write_bytes(b"\x7fELF")


def _folder_named_so(tree: Site) -> None:
    tree.model.with_name("toy.abi3.so").mkdir()


@pytest.mark.parametrize(
    "put", [_other_module, _backup, _extension_with_another_middle, _folder_named_so]
)
def test_what_python_does_not_take_for_it_is_no_obstacle(
    tree: Site, put: Callable[[Site], None]
) -> None:
    put(tree)
    assert imported(tree) == str(tree.model)
    assert hidden_by(tree.model) is None
    assert state(tree) == "needed"


def test_it_is_refused_on_an_applied_file_too(tree: Site) -> None:
    """What was repaired is not what a server would run any more."""
    before = tree.tree()
    assert glmpatch(tree, "apply").code == 0
    hiding = tree.model.with_name(tree.model.stem + OF_THIS_PYTHON[0])
    hiding.write_bytes(b"\x7fELF")
    _refused(tree, hiding)
    hiding.unlink()
    assert glmpatch(tree, "revert").code == 0
    assert tree.tree() == before


def test_a_folder_that_cannot_be_looked_into_is_an_error_that_says_so(
    tree: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the package vanishes while it is looked at."""

    def gone(path: Path) -> None:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr("glmpatch.site.path.hidden_by", gone)
    run = glmpatch(tree, "status")
    assert run.code == 3
    assert "cannot read" in run.output
