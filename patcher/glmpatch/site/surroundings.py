"""How glmpatch was started, and what the environment of a vLLM has: what hints are made from.

A hint is worth something only if it works when pasted: the way in which this glmpatch was started
(an installed script, uvx, pipx, ``python -m``), the installer that the environment has, its owner.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from glmpatch.language import _
from glmpatch.site import interpreter
from glmpatch.site.target import Kind, Target

RUNNERS = ("uv", "uvx", "pipx")
GET_FLAGS = 0x80086601
"""FS_IOC_GETFLAGS of linux/fs.h, with the size of a long on 64-bit machines."""
IMMUTABLE, APPEND_ONLY = 0x10, 0x20
"""FS_IMMUTABLE_FL and FS_APPEND_FL of linux/fs.h: what ``chattr +i`` and ``+a`` set."""


def started() -> str:
    """The words that start this glmpatch again, to be followed by a command."""
    script = sys.argv[0]
    if os.path.basename(script) == "__main__.py":
        return f"{_called(sys.executable)} -m glmpatch"
    runner = _runner()
    if runner:
        return shlex.join(runner)
    if os.sep not in script or os.path.basename(script) != "glmpatch":
        return "glmpatch"  # in a program that calls it
    return _called(os.path.abspath(script))


def _called(program: str) -> str:
    """A program by its name where PATH leads to it, else by its path."""
    for folder in os.get_exec_path():
        candidate = os.path.join(folder, os.path.basename(program))
        if os.access(candidate, os.X_OK):
            return os.path.basename(program) if _same(candidate, program) else shlex.quote(program)
    return shlex.quote(program)


def _on_path(name: str) -> bool:
    return any(os.access(os.path.join(folder, name), os.X_OK) for folder in os.get_exec_path())


def _same(one: str, other: str) -> bool:
    return os.path.abspath(one) == os.path.abspath(other) or (
        # A link to an interpreter is another environment; a link to a script is the same script.
        "python" not in os.path.basename(one) and os.path.realpath(one) == os.path.realpath(other)
    )


def _runner() -> list[str]:
    """The words of uvx or pipx up to ours, where they are the process that started this one."""
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode().split("\0")
    except (OSError, ValueError):
        return []
    if os.path.basename(words[0]) not in RUNNERS or "glmpatch" not in words:
        return []
    typed = [os.path.basename(words[0]), *words[1 : words.index("glmpatch") + 1]]
    return typed[2:] if typed[:3] == ["uv", "tool", "uvx"] else typed


def install(target: Target, *packages: str, force: bool = False) -> str:
    """The command that installs packages into the environment of a vLLM."""
    wanted = shlex.join(packages)
    if target.python is None:
        return _("pip install {packages} in the environment of this vLLM", packages=wanted)
    python = shlex.quote(str(target.python))
    if not _has_pip(target.paths) and _on_path("uv"):
        again = "--reinstall --no-deps " if force else ""
        return f"uv pip install --python {python} {again}{wanted}"
    again = "--force-reinstall --no-deps " if force else ""
    return f"{python} -m pip install {again}{wanted}"


def install_here(*packages: str) -> str:
    """The command that installs packages into the environment of this glmpatch."""
    wanted = shlex.join(packages)
    if interpreter.is_isolated():
        runner = _runner()
        if runner[:1] == ["uvx"]:
            return shlex.join(["uvx", "--with", *packages, *runner[1:]])
    python = shlex.quote(sys.executable)
    if not _has_pip(sys.path) and _on_path("uv"):
        return f"uv pip install --python {python} {wanted}"
    return f"{python} -m pip install {wanted}"


def _has_pip(paths: Sequence[str]) -> bool:
    return not paths or any(os.path.isfile(os.path.join(p, "pip", "__init__.py")) for p in paths)


def restore(target: Target | None, file: str = "") -> str:
    """How to get the released file back, by the kind of install."""
    if target is None:
        return _("reinstall vLLM")
    if target.kind in (Kind.WHEEL, Kind.EGG):
        public, _plus, local = (target.version or "").partition("+")
        ours = local.startswith("glmpatch.")  # a repaired wheel, made from the released one
        if target.kind is Kind.EGG or not public or (local and not ours):
            return _("reinstall this vLLM ({version}) from where it came", version=target.version)
        # Where a repaired wheel came from, it is offered still, and == would take it again.
        wanted = f"vllm==={public}" if ours else f"vllm=={public}"
        command = install(target, wanted, force=True)
        return _("reinstall the released file: {command}", command=command)
    root = shlex.quote(str(target.root))
    if not any((folder / ".git").exists() for folder in (target.root, *target.root.parents)):
        return _("put the file of your vLLM's own source into {folder}", folder=root)
    if file and not _changed_in_git(target.root, file):
        return _(
            "the commit that is checked out in {folder} has this very file: check out another one",
            folder=root,
        )
    command = f"git -C {root} checkout -- {shlex.quote(file or '.')}"
    return _("restore the file from version control: {command}", command=command)


def _changed_in_git(root: Path, file: str) -> bool:
    import subprocess

    command = ["git", "-C", str(root), "status", "--porcelain", "--", file]
    try:
        done = subprocess.run(command, capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return True
    return done.returncode != 0 or bool(done.stdout.strip())


def obstacle(path: Path) -> str:
    """What keeps this user from writing to a file or folder, and what to type; empty if nothing.

    Permissions, a read-only mount, or a flag that ``chattr`` sets.
    """
    try:
        status, system = os.stat(path), os.statvfs(path)
    except OSError:
        return ""
    if system.f_flag & os.ST_RDONLY:
        return _(
            "its file system is mounted read-only: run glmpatch where it is writable, such as in "
            "a Dockerfile"
        )
    flag = held_by_flag(path)
    if flag or os.access(path, os.W_OK):
        return flag
    import pwd

    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = f"#{status.st_uid}"
    if status.st_uid == os.geteuid():
        command = "chmod u+w " + shlex.quote(str(path))
        return _("you own it, and may not write: {command}", command=command)
    return _(
        "it belongs to {owner}: run the same command as the user who owns the environment, such "
        "as with {command}, or before USER in a Dockerfile",
        owner=owner,
        command="sudo -u " + shlex.quote(owner),
    )


def held_by_flag(path: Path) -> str:
    """What to type where a flag of ``chattr`` keeps everybody from changing a file or folder."""
    flags = _flags(path)
    if flags & IMMUTABLE:
        return _("it is immutable: {command}", command="chattr -i " + shlex.quote(str(path)))
    if flags & APPEND_ONLY:
        command = "chattr -a " + shlex.quote(str(path))
        return _("it can only be appended to: {command}", command=command)
    return ""


def _flags(path: Path) -> int:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        answer = fcntl.ioctl(handle, GET_FLAGS, struct.pack("l", 0))
        return int(struct.unpack("l", answer)[0])
    except OSError:  # a file system without flags
        return 0
    finally:
        with contextlib.suppress(OSError):
            os.close(handle)
