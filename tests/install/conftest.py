"""A tiny tree, and the command run in a forked process, which takes milliseconds."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from patcher import examine, patch
from patcher.cli import cli
from patcher.patch import Patch
from patcher.rewriting import Plan, make_plan
from patches.glm4_residual import PATCH
from tests.support import site
from tests.support.site import Site


@pytest.fixture
def tree(tmp_path: Path, released_file: bytes) -> Site:
    """A tiny site-packages with the released model file."""
    return site.make(tmp_path / "site", released_file)


@pytest.fixture
def open_tree(released_file: bytes) -> Iterator[Site]:
    """The same where other users reach it, which they do not below ``tmp_path``."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield site.make(Path(folder, "site"), released_file)


@pytest.fixture(scope="package", autouse=True)
def _one_patch() -> Iterator[None]:
    """Every system call of one patch is tried; those of another would be the same again.

    For this package only: a wider scope would hide the other patches from all tests after it.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(patch, "load_patches", lambda warn=None: (PATCH,))
        yield


@pytest.fixture(scope="package", autouse=True)
def _warm(_one_patch: None, released_file: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import here, once, what the command imports where it needs it."""
    scratch = site.make(tmp_path_factory.mktemp("warm") / "site", released_file)
    for command in ("status", "apply", "apply", "revert"):
        done = CliRunner().invoke(cli, [command, "--path", str(scratch.root)])
        assert done.exit_code == 0, done.output


@pytest.fixture
def plan_once(
    monkeypatch: pytest.MonkeyPatch, released_file: bytes
) -> Callable[[Patch, bytes], Plan]:
    """The plan depends on the bytes alone; thousands of runs need no more than one."""
    plans: dict[bytes, Plan] = {}

    @functools.wraps(make_plan)
    def remembered(patch: Patch, data: bytes) -> Plan:
        if data not in plans:
            plans[data] = make_plan(patch, data)
        return plans[data]

    remembered(PATCH, remembered(PATCH, released_file).after)
    monkeypatch.setattr(examine, "make_plan", remembered)
    return remembered


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """Note how many cases a test tried; they are printed at the end of the run."""

    def note(what: str, cases: int) -> None:
        record_property("cases", (what, cases))

    return note
