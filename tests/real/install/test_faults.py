"""Whatever fails: the right exit code, a message that is true, and the tree as it was."""

from __future__ import annotations

import errno
import itertools
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import syscalls
from tests.support.command import command, glmpatch, state
from tests.support.site import Site
from tests.support.syscalls import Call, Do

pytestmark = pytest.mark.usefixtures("plan_once")

ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)
CHANGES = {"write", "fsync", "fchmod", "fchown", "utimensat", "mkdirat", "unlinkat", "renameat"}
MEANWHILE = {"openat", "flock", "fsync", "renameat", "unlinkat"}
"""Calls between which it makes a difference what somebody else does."""
DONE = {"apply": "applied", "revert": "needed"}


@pytest.fixture
def before(tree: Site, tmp_path: Path, name: str) -> Site:
    """A copy of the tree as it is before the command ``name``."""
    if name == "revert":
        assert glmpatch(tree, "apply").code == 0
        tree.bytecode.joinpath("glm4.cpython-310.pyc").write_bytes(b"new")
    return tree.copy(tmp_path / "before")


@pytest.mark.parametrize("name", DONE)
def test_an_error_of_any_call_leaves_the_tree_and_says_so(
    tree: Site, before: Site, name: str, tell: Callable[[str, int], None]
) -> None:
    cases = 0
    for point, call in _calls_on(tree, name):
        change = call.name in CHANGES or (call.name == "openat" and ".glmpatch" in call.path)
        # A handle that cannot be closed is gone all the same.
        do = Do.FAIL_AFTER if call.name == "close" else Do.FAIL
        reading = (errno.EIO, errno.EACCES) if call.name == "openat" else (errno.EIO,)
        for number in ERRORS if change else reading:
            tree.become(before)
            run = syscalls.run(command(tree, name), point, do, number)
            where = f"{errno.errorcode[number]} of {call}: {run.code}\n{run.output}"
            assert run.calls[point] == call, where
            _check_outcome(tree, before, name, run.code, run.output, where)
            cases += 1
    tell(f"{name}: an error of a call", cases)


@pytest.mark.parametrize("name", DONE)
def test_a_rename_that_happens_and_is_reported_as_failed_is_told_as_it_is(
    tree: Site, before: Site, name: str, tell: Callable[[str, int], None]
) -> None:
    cases = 0
    for point, call in _calls_on(tree, name):
        if call.name not in ("renameat", "unlinkat"):
            continue
        tree.become(before)
        run = syscalls.run(command(tree, name), point, Do.FAIL_AFTER, errno.EIO)
        where = f"{call}: {run.code}\n{run.output}"
        _check_outcome(tree, before, name, run.code, run.output, where)
        cases += 1
    tell(f"{name}: a call that works and says that it failed", cases)


@pytest.mark.parametrize("name", DONE)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_call_ends_it_before_or_after_the_change(
    tree: Site, before: Site, name: str, number: int, tell: Callable[[str, int], None]
) -> None:
    calls = _calls_on(tree, name)
    # Both take the same way, so that the second one need not be tried at every call that reads.
    if number == signal.SIGTERM:
        calls = [(point, call) for point, call in calls if call.name in CHANGES]
    stopped = 0
    for point, call in calls:
        tree.become(before)
        run = syscalls.run(command(tree, name), point, Do.SIGNAL, number)
        where = f"{call}: {run.code}\n{run.output}"
        assert run.code == 130, where
        assert "interrupted" in run.output, where
        if tree.tree() == before.tree():
            stopped += 1
        else:
            assert state(tree) == DONE[name], where
            assert not list(tree.root.rglob(".*.glmpatch")), where
    assert 0 < stopped < len(calls)
    tell(f"{name}: {signal.Signals(number).name} at a call", len(calls))


@pytest.mark.parametrize("name", DONE)
def test_an_edit_by_somebody_else_is_kept_up_to_the_last_look(
    tree: Site, before: Site, name: str, tell: Callable[[str, int], None]
) -> None:
    """No file system knows 'replace if it is still this': between look and swap it can go."""
    mine = tree.model.read_bytes() + b"\n# mine\n"

    def edit(_: Call) -> None:
        other = tree.model.with_name("editor")
        other.write_bytes(mine)
        other.rename(tree.model)

    calls = _calls_on(tree, name)
    staged = str(tree.model.with_name(".glm4.py.glmpatch"))
    swap = next(point for point, call in calls if call == Call("renameat", staged))
    look = max(p for p, call in calls if p < swap and call == Call("openat", str(tree.model)))
    assert swap - look < 20, "there is a last look right before the swap"
    calls = [(p, call) for p, call in calls if call.name in MEANWHILE and not look < p <= swap]
    for point, call in calls:
        tree.become(before)
        run = syscalls.run(command(tree, name), point, Do.MEANWHILE, meanwhile=edit)
        where = f"before {call}: {run.code}\n{run.output}"
        assert "Traceback" not in run.output, where
        assert b"# mine" in tree.model.read_bytes(), where
        assert not list(tree.root.rglob(".*.glmpatch")), where
    tell(f"{name}: the file edited by somebody else at a call", len(calls))


@pytest.mark.parametrize("name", DONE)
def test_a_package_that_vanishes_is_an_error_that_says_so(
    tree: Site, before: Site, name: str, tell: Callable[[str, int], None]
) -> None:
    def vanish(_: Call) -> None:
        (tree.root / "vllm").rename(tree.root / "gone")

    calls = [(point, call) for point, call in _calls_on(tree, name) if call.name in MEANWHILE]
    codes = set()
    for point, call in calls:
        tree.become(before)
        run = syscalls.run(command(tree, name), point, Do.MEANWHILE, meanwhile=vanish)
        where = f"before {call}: {run.code}\n{run.output}"
        # The handle of the locked folder leads on to the same file, wherever it is now.
        assert run.code in (0, 3, 5), where
        assert "Traceback" not in run.output, where
        assert not (tree.root / "vllm").exists(), where
        assert not list(tree.root.rglob(".*.glmpatch")), where
        codes.add(run.code)
    assert 3 in codes
    tell(f"{name}: the package gone at a call", len(calls))


def test_the_message_names_what_to_do_about_a_full_disk(tree: Site) -> None:
    point = next(p for p, call in _calls_on(tree, "apply") if call.name == "fsync")
    run = syscalls.run(command(tree, "apply"), point, Do.FAIL, errno.ENOSPC)
    assert run.code == 3
    assert "No space left on device; the model file is as it was" in run.output
    assert "hint: make room on that disk" in run.output


def _calls_on(tree: Site, name: str) -> list[tuple[int, Call]]:
    """The calls of a command that are about the tree; the tree is put back afterwards."""
    before = tree.copy(tree.root.parent / "counted")
    run = syscalls.run(command(tree, name))
    assert run.code == 0, run.output
    tree.become(before)
    return [
        (point, call)
        for point, call in zip(itertools.count(), run.calls, strict=False)
        if call.path.startswith(str(tree.root))
    ]


def _check_outcome(tree: Site, before: Site, name: str, code: int, output: str, where: str) -> None:
    """Done, or not done and the tree as it was, or done but for a rest that is named."""
    assert "Traceback" not in output, where
    assert "fault of glmpatch" not in output, where
    now, then = tree.model.read_bytes(), before.model.read_bytes()
    if "as it was" in output or "nothing was" in output:
        assert now == then, where
    if code == 0:
        assert state(tree) == DONE[name], where
        assert not list(tree.root.rglob(".*.glmpatch")), where
        return
    assert code == 3, where
    assert "error:" in output, where
    assert "hint:" in output, where
    if now == then:
        assert tree.tree() == before.tree(), where
        return
    assert "changed already, run the same command again" in output, where
    assert glmpatch(tree, name).code == 0, where
    assert state(tree) == DONE[name], where
    assert not list(tree.root.rglob(".*.glmpatch")), where
