"""Mode, owner, group, attributes and access lists are those of the original."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from tests.real.install.conftest import make
from tests.support import syscalls
from tests.support.command import as_user, command, glmpatch, needs_root, state
from tests.support.site import Site

pytestmark = pytest.mark.usefixtures("plan_once")

USER, GROUP, OTHER = 1234, 2345, 65534
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
LIST = struct.pack("<I", 2) + b"".join(
    # The owner may read and write; user 1234, the group and the mask read; others nothing.
    struct.pack("<HHI", tag, permissions, who)
    for tag, permissions, who in (
        *((1, 6, 0xFFFFFFFF), (2, 4, USER), (4, 4, 0xFFFFFFFF)),
        *((16, 4, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)),
    )
)


@needs_root
def test_root_leaves_a_tree_of_another_user_to_that_user(open_tree: Site) -> None:
    for path in [open_tree.root, *open_tree.root.rglob("*")]:
        os.chown(path, USER, GROUP)
    open_tree.model.chmod(0o640)
    before = open_tree.tree()
    run = syscalls.run(as_user(0, command(open_tree, "apply"), umask=0o077), traced=False)
    assert run.code == 0, run.output
    assert _is(open_tree.model, 0o640, USER, GROUP)
    assert _is(open_tree.receipt, 0o640, USER, GROUP)
    assert _is(open_tree.original, 0o640, USER, GROUP)
    assert _is(open_tree.record, 0o644, USER, GROUP)
    revert = syscalls.run(as_user(USER, command(open_tree, "revert")), traced=False)
    assert revert.code == 3, "the user's group is another one, which only root may give"
    assert glmpatch(open_tree, "revert").code == 0
    assert open_tree.tree() == before


@needs_root
@pytest.mark.parametrize("version", ["0.8.4", None])
def test_others_read_what_root_patched_with_a_strict_umask(
    open_tree: Site, version: str | None
) -> None:
    tree = make(open_tree.root.parent / "strict", version)
    apply = as_user(0, command(tree, "apply"), umask=0o077)
    assert syscalls.run(apply, traced=False).code == 0

    def load() -> int:
        compile(tree.model.read_bytes(), "glm4.py", "exec")
        tree.receipt.read_bytes()
        return 0

    run = syscalls.run(as_user(OTHER, load), traced=False)
    assert run.code == 0, run.output
    status = syscalls.run(as_user(OTHER, command(tree, "status")), traced=False)
    assert "glm4-residual: applied" in status.output


def test_a_user_with_a_strict_umask_keeps_the_mode(tree: Site) -> None:
    tree.model.chmod(0o664)

    def strict() -> int:
        os.umask(0o077)
        return command(tree, "apply")()

    assert syscalls.run(strict, traced=False).code == 0
    assert stat.S_IMODE(tree.model.stat().st_mode) == 0o664
    assert stat.S_IMODE(tree.record.stat().st_mode) == 0o644


def test_extended_attributes_are_kept(tree: Site) -> None:
    _set(tree.model, "user.glmpatch-test", b"kept")
    _set(tree.record, "user.glmpatch-test", b"too")
    for name in ("apply", "revert"):
        assert glmpatch(tree, name).code == 0
        assert os.getxattr(tree.model, "user.glmpatch-test") == b"kept"
        assert os.getxattr(tree.record, "user.glmpatch-test") == b"too"


def test_an_access_list_is_kept(tree: Site) -> None:
    _set(tree.model, ACCESS, LIST)
    mode = tree.model.stat().st_mode
    for name in ("apply", "revert"):
        assert glmpatch(tree, name).code == 0
        assert os.getxattr(tree.model, ACCESS) == LIST
        assert tree.model.stat().st_mode == mode


def test_an_access_list_of_the_folder_is_not_inherited(tree: Site) -> None:
    _set(tree.model.parent, DEFAULT, LIST)
    for name, done in (("apply", "applied"), ("revert", "needed")):
        assert glmpatch(tree, name).code == 0
        assert ACCESS not in os.listxattr(tree.model)
        assert stat.S_IMODE(tree.model.stat().st_mode) == 0o644
        assert state(tree) == done


def _is(path: Path, mode: int, owner: int, group: int) -> bool:
    status = path.stat()
    return (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, owner, group)


def _set(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        pytest.skip(f"this file system has no {name}: {error.strerror}")
