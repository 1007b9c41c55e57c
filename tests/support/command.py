"""The command, run in a forked process that has everything imported already."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from glmpatch.command.cli import cli, main
from tests.support import syscalls
from tests.support.site import Site
from tests.support.syscalls import Run

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount or change users")


def command(site: Site, *arguments: str) -> Callable[[], int]:
    """The command on a tree, as ``main`` runs it; gives its exit code."""
    return entry(*arguments, "--path", str(site.root))


def entry(*arguments: str) -> Callable[[], int]:
    """The command with these arguments and no others."""

    def action() -> int:
        sys.argv = ["glmpatch", *arguments]
        try:
            main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 99
        return 0

    return action


def glmpatch(site: Site, *arguments: str) -> Run:
    return syscalls.run(command(site, *arguments), traced=False)


def warm(site: Site) -> None:
    """Import here, once, what the commands import where they need it; ends as it began."""
    for name in ("status", "diff", "apply", "apply", "revert"):
        done = CliRunner().invoke(cli, [name, "--path", str(site.root)])
        assert done.exit_code == 0, done.output


def state(site: Site) -> str:
    """What ``status`` says of the patch of the site."""
    done = glmpatch(site, "status", "--json")
    assert done.code == 0, done.output
    answer: dict[str, Any] = json.loads(done.output)
    return str(next(p["state"] for p in answer["patches"] if p["id"] == site.patch))


def as_user(number: int, action: Callable[[], int], umask: int = 0o022) -> Callable[[], int]:
    """The same as another user; only in a process of its own."""

    def other() -> int:
        os.umask(umask)
        os.setgroups([])
        os.setgid(number)
        os.setuid(number)
        return action()

    return other


@contextlib.contextmanager
def mounted(at: Path, *arguments: str, make: bool = True) -> Iterator[None]:
    """A file system that is there for a while; skips where the machine does not let us."""
    if make:
        at.mkdir()
    done = subprocess.run(["mount", *arguments, str(at)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"this machine mounts nothing: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that is read-only for a while, for root too; skips as ``mounted`` does."""
    with mounted(folder, "--bind", str(folder), make=False):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield
