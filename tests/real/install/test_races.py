"""Many at once on one tree: one after the other, and a reader never sees anything in between."""

from __future__ import annotations

import errno
import fcntl
import importlib.machinery
import os
import random
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType

import pytest

from glmpatch.patches.glm4_residual.patch import PATCH
from glmpatch.site import lock
from tests.support import syscalls
from tests.support.command import command, glmpatch, state
from tests.support.site import Site
from tests.support.sources import repaired
from tests.support.syscalls import Call, Do

pytestmark = pytest.mark.usefixtures("plan_once")

PROCESSES = 32
ROUNDS = 12


@pytest.fixture(params=["folders can be locked", "files only, as on NFS"])
def locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if "NFS" in request.param:
        monkeypatch.setattr(fcntl, "flock", _flock_of_nfs)
    return str(request.param)


def test_a_crowd_on_one_tree_ends_in_one_of_the_two_states(
    tree: Site, tmp_path: Path, locks: str, tell: Callable[[str, int], None]
) -> None:
    pristine = tree.tree()
    stop = tmp_path / "stop"
    reader = syscalls.start(_load_again_and_again(tree.model, stop))
    rng = random.Random(0)
    busy = 0
    try:
        for _ in range(ROUNDS):
            names = rng.choices(["apply", "revert", "status"], k=PROCESSES)
            for run in [wait() for wait in [syscalls.start(command(tree, n)) for n in names]]:
                busy += run.code != 0
                assert run.code == 0 or "try again when it has ended" in run.output, run.output
            assert state(tree) in ("needed", "applied")
            assert not list(tree.root.rglob(".*.glmpatch"))
            now = tree.model.read_bytes()
            assert load(tree.model) == compiled(now, tree.model), "old bytecode"
    finally:
        stop.touch()
        loads = reader()
    assert loads.code == 0, loads.output
    assert int(loads.output) > ROUNDS
    assert glmpatch(tree, "revert").code == 0
    assert tree.tree() == pristine
    assert busy < PROCESSES * ROUNDS / 10
    tell(f"processes on one tree, {PROCESSES} at once ({locks}; {busy} busy)", PROCESSES * ROUNDS)
    tell("loads of the file and its bytecode meanwhile", int(loads.output))


def test_all_who_apply_at_once_succeed(tree: Site, tell: Callable[[str, int], None]) -> None:
    """Many nodes that start on one shared volume: those that come second have nothing to do."""
    rounds = 5
    for _ in range(rounds):
        waiting = [syscalls.start(command(tree, "apply")) for _ in range(PROCESSES)]
        runs = [wait() for wait in waiting]
        assert [run.code for run in runs] == [0] * PROCESSES, "".join(r.output for r in runs)
        assert state(tree) == "applied"
        assert glmpatch(tree, "revert").code == 0
    tell("processes that apply at once, all of them with success", rounds * PROCESSES)


def test_it_is_the_same_for_commands_that_are_started_one_by_one(tree: Site) -> None:
    """As a user does, each in an interpreter of its own."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "glmpatch", *command, "--path", str(tree.root)],
            stdout=subprocess.DEVNULL,
        )
        for command in (["apply", PATCH.id], ["revert", PATCH.id], ["apply", PATCH.id], ["status"])
    ]
    assert [each.wait() for each in started] == [0] * len(started)
    assert state(tree) in ("needed", "applied")


@pytest.mark.usefixtures("locks")
def test_a_lock_that_is_held_is_waited_for_and_then_named(
    tree: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.2)
    before = tree.tree()
    holders = [os.open(tree.root / name, os.O_RDONLY) for name in ("vllm", "vllm/__init__.py")]
    for each in holders:
        _flock(each, fcntl.LOCK_EX)
    run = glmpatch(tree, "apply")
    assert run.code == 3
    assert "another glmpatch is busy" in run.output
    assert "hint: try again" in run.output
    assert tree.tree() == before
    assert glmpatch(tree, "status").code == 0
    for each in holders:
        os.close(each)
    assert glmpatch(tree, "apply").code == 0


def test_the_lock_of_a_dead_process_does_not_block(
    tree: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.2)
    point = _first_lock(tree)
    run = syscalls.run(command(tree, "apply"), point, Do.KILL)
    assert run.code == -signal.SIGKILL
    assert run.calls[point].name == "flock"
    assert glmpatch(tree, "apply").code == 0


def test_a_file_system_without_locks_is_refused(tree: Site) -> None:
    before = tree.tree()
    run = syscalls.run(command(tree, "apply"), _first_lock(tree), Do.FAIL, errno.ENOSYS)
    assert run.code == 3
    assert "nothing was changed" in run.output
    assert tree.tree() == before


def test_a_package_that_was_reinstalled_while_waiting_for_the_lock_is_the_one_that_is_patched(
    tree: Site, tmp_path: Path
) -> None:
    """An uninstall takes the locked folder away, and an install puts another one there."""
    old, new = tree.root / "vllm", tree.root / "new"
    fresh = tree.copy(tmp_path / "fresh")
    point = _first_lock(tree)

    def reinstall(_: Call) -> None:
        old.rename(tree.root / "gone")
        (fresh.root / "vllm").rename(new)
        new.rename(old)

    run = syscalls.run(command(tree, "apply"), point, Do.MEANWHILE, meanwhile=reinstall)
    assert run.code == 0, run.output
    assert state(tree) == "applied"
    gone = tree.root / "gone" / tree.model.relative_to(old)
    assert b"is_neox_style" not in gone.read_bytes()


def _first_lock(tree: Site) -> int:
    calls = syscalls.run(command(tree, "apply")).calls
    assert glmpatch(tree, "revert").code == 0
    return next(i for i, call in enumerate(calls) if call.name == "flock")


def _load_again_and_again(model: Path, stop: Path) -> Callable[[], int]:
    """What ``import`` does to get the code of a module, bytecode read and written."""
    sources = (model.read_bytes(), repaired(model.read_bytes()))
    codes = {compiled(source, model) for source in sources}

    def action() -> int:
        sys.dont_write_bytecode = False
        loads = 0
        while not stop.exists():
            if load(model) not in codes:
                return 1
            loads += 1
        print(loads)
        return 0

    return action


def load(model: Path) -> CodeType | None:
    return importlib.machinery.SourceFileLoader("glm4", str(model)).get_code("glm4")


def compiled(source: bytes, model: Path) -> CodeType:
    code = compile(source, str(model), "exec", dont_inherit=True)
    assert isinstance(code, CodeType)
    return code


_flock = fcntl.flock


def _flock_of_nfs(handle: int, operation: int) -> None:
    """An exclusive lock needs a handle that may write, which no folder has."""
    if stat.S_ISDIR(os.fstat(handle).st_mode):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    _flock(handle, operation)
