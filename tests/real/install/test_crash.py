"""A process that dies at any of its file-system calls leaves a whole model file and a way on."""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real.install.conftest import make
from tests.support import syscalls
from tests.support.command import command, glmpatch, state
from tests.support.site import Site
from tests.support.syscalls import Do

pytestmark = pytest.mark.usefixtures("plan_once")

KINDS = {"wheel": "0.8.4", "source tree": None}


@pytest.fixture(params=KINDS)
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return make(tmp_path / "site", KINDS[request.param])


def test_apply_killed_after_any_call_can_be_applied_or_reverted(
    tree: Site, tmp_path: Path, tell: Callable[[str, int], None]
) -> None:
    pristine = tree.copy(tmp_path / "pristine")
    both = _models(tree)
    points = len(syscalls.run(command(tree, "apply")).calls)
    seen = {pristine.seen()}
    for point in range(points):
        tree.become(pristine)
        run = syscalls.run(command(tree, "apply"), point, Do.KILL)
        assert run.code == -9, f"call {point} of {points}: {run.output}"
        if (left := tree.seen()) not in seen:
            seen.add(left)
            where = f"killed after {run.calls[-1]}"
            assert state(tree) == both[tree.model.read_bytes()], where
            again = tree.copy(tmp_path / "again")
            _check_reverted(again, pristine, where)
            assert glmpatch(tree, "apply").code == 0, where
            _check_applied(tree, where)
            _check_reverted(tree, pristine, where)
            shutil.rmtree(again.root)
    tell(f"apply killed at every call ({len(seen)} different trees left)", points)
    assert len(seen) > 8


def test_revert_killed_after_any_call_can_be_reverted_or_applied(
    tree: Site, tmp_path: Path, tell: Callable[[str, int], None]
) -> None:
    pristine = tree.copy(tmp_path / "pristine")
    both = _models(tree)
    assert glmpatch(tree, "apply").code == 0
    tree.bytecode.joinpath("glm4.cpython-310.pyc").write_bytes(b"new")
    applied = tree.copy(tmp_path / "applied")
    points = len(syscalls.run(command(tree, "revert")).calls)
    seen = {applied.seen()}
    for point in range(points):
        tree.become(applied)
        run = syscalls.run(command(tree, "revert"), point, Do.KILL)
        assert run.code == -9, f"call {point} of {points}: {run.output}"
        if (left := tree.seen()) not in seen:
            seen.add(left)
            where = f"killed after {run.calls[-1]}"
            assert state(tree) == both[tree.model.read_bytes()], where
            again = tree.copy(tmp_path / "again")
            _check_reverted(again, pristine, where)
            assert glmpatch(tree, "apply").code == 0, where
            _check_applied(tree, where)
            _check_reverted(tree, pristine, where)
            shutil.rmtree(again.root)
    tell(f"revert killed at every call ({len(seen)} different trees left)", points)
    assert len(seen) > 8


def test_the_receipt_is_on_the_disk_before_the_model_file_changes(tree: Site) -> None:
    """A power cut keeps what was synchronised, and of renames perhaps only the later ones."""
    calls = [str(call) for call in syscalls.run(command(tree, "apply")).calls]
    swap = calls.index(f"renameat({tree.model.parent}/.glm4.py.glmpatch)")
    receipt = calls.index(f"renameat({tree.receipts}/.{tree.receipt.name}.glmpatch)")
    for synced in (
        f"fsync({tree.model.parent}/.glm4.py.glmpatch)",
        f"fsync({tree.receipts}/.{tree.original.name}.glmpatch)",
        f"fsync({tree.receipts}/.{tree.receipt.name}.glmpatch)",
    ):
        assert calls.index(synced) < receipt < swap
    assert receipt < calls.index(f"fsync({tree.receipts})") < swap
    assert f"fsync({tree.model.parent})" in calls[swap:]


def _models(tree: Site) -> dict[bytes, str]:
    """The only two forms that the model file may have, and what status says of them."""
    from tests.support.sources import repaired

    released = tree.model.read_bytes()
    forms = {released: "needed", repaired(released): "applied"}
    for source in forms:
        compile(source, "glm4.py", "exec")
    return forms


def _check_applied(tree: Site, where: str) -> None:
    assert state(tree) == "applied", where
    assert not list(tree.bytecode.iterdir()), where
    kept = {tree.receipt, tree.original}
    assert set(tree.receipts.glob("*glmpatch*")) == kept, where
    assert not list(tree.root.rglob(".*.glmpatch")), where
    if tree.version:
        listed = tree.record.read_text().splitlines()
        for path in kept:
            digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest())
            name = f"{path.parent.name}/{path.name},sha256={digest.decode().rstrip('=')}"
            assert listed.count(f"{name},{path.stat().st_size}") == 1, where


def _check_reverted(tree: Site, pristine: Site, where: str) -> None:
    assert glmpatch(tree, "revert").code == 0, where
    assert tree.tree() == pristine.tree(), where
    stale = [p for p in tree.bytecode.iterdir() if p.read_bytes() == b"new"]
    assert not stale, where
