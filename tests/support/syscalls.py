"""Runs code in a forked process and stops it at its system calls: to see, fail or end it there.

This is ptrace on x86-64, the only machine that vLLM 0.8.4 was released for. Nothing that Python
does goes unseen: not fsync, write or close, and not what a library calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# <sys/ptrace.h> and <sys/user.h>
TRACEME, POKEUSER, GETREGS, SYSCALL, SETOPTIONS = 0, 6, 12, 24, 0x4200
TRACESYSGOOD, EXITKILL = 1, 0x100000
ORIG_RAX, RAX, RDI, RSI = 15, 10, 14, 13
SYSCALL_STOP = signal.SIGTRAP | 0x80
AT_FDCWD = -100

NO_FILES = {
    *(9, 10, 11, 12, 25, 28),  # mmap, mprotect, munmap, brk, mremap, madvise
    *(13, 14, 15, 127, 131),  # signals
    *(24, 35, 228, 230, 201, 202),  # sched_yield, sleeping, clocks, futex
    *(39, 102, 104, 107, 108, 110, 186, 318, 334),  # who am I, random numbers, rseq
    *(60, 231),  # exit
}
BY_HANDLE = {
    0: "read",
    1: "write",
    3: "close",
    5: "fstat",
    8: "lseek",
    16: "ioctl",
    17: "pread",
    72: "fcntl",
    73: "flock",
    74: "fsync",
    91: "fchmod",
    93: "fchown",
    217: "getdents",
    190: "fsetxattr",
    193: "fgetxattr",
    196: "flistxattr",
    199: "fremovexattr",
}
BY_PATH = {
    2: "open",
    4: "stat",
    6: "lstat",
    21: "access",
    79: "getcwd",
    82: "rename",
    83: "mkdir",
    84: "rmdir",
    87: "unlink",
    89: "readlink",
    90: "chmod",
}
BY_FOLDER = {
    257: "openat",
    258: "mkdirat",
    260: "fchownat",
    262: "newfstatat",
    263: "unlinkat",
    264: "renameat",
    267: "readlinkat",
    268: "fchmodat",
    269: "faccessat",
    316: "renameat2",
    280: "utimensat",
    332: "statx",
    439: "faccessat2",
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class Do(enum.Enum):
    """What happens at a call."""

    NOTHING = "nothing"
    KILL = "the process is gone right after the call"
    FAIL = "the call fails and does nothing"
    FAIL_AFTER = "the call does its work and is reported as failed"
    SIGNAL = "a signal comes right before the call"
    MEANWHILE = "something else happens right before the call"


@dataclass(frozen=True)
class Call:
    """A system call that concerns files; ``path`` is what it is about, as far as known."""

    name: str
    path: str

    def __str__(self) -> str:
        return f"{self.name}({self.path})"


UNSEEN = Call("", "")
"""One of the others in a run where something is done at a call: to look costs time."""


@dataclass(frozen=True)
class Run:
    """How a process ended. ``code`` is negative for the signal that ended it."""

    calls: list[Call]
    code: int
    output: str


def run(
    action: Callable[[], int],
    at: int | None = None,
    do: Do = Do.NOTHING,
    value: int = 0,
    traced: bool = True,
    meanwhile: Callable[[Call], None] | None = None,
) -> Run:
    """Run ``action`` in a process of its own; do something at its call number ``at``.

    Args:
        action: gives the exit code; what it prints is collected.
        at: index in the list of calls that a run gives.
        value: the error number or the signal.
        traced: False to run it undisturbed.
        meanwhile: what somebody else does while the process stands still; before every call
            where ``at`` is None.
    """
    return start(action, at, do, value, traced, meanwhile)()


def start(
    action: Callable[[], int],
    at: int | None = None,
    do: Do = Do.NOTHING,
    value: int = 0,
    traced: bool = False,
    meanwhile: Callable[[Call], None] | None = None,
) -> Callable[[], Run]:
    """The same in two steps: what is returned waits for the end."""
    output = tempfile.TemporaryFile()  # noqa: SIM115 (closed by whoever waits)
    child = os.fork()
    if child == 0:
        _child(action, output.fileno(), traced)

    def wait() -> Run:
        with output:
            try:
                if traced:
                    calls, code = _follow(child, at, do, value, meanwhile)
                else:
                    calls, code = [], os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                raise
            output.seek(0)
            return Run(calls, code, output.read().decode())

    return wait


def _child(action: Callable[[], int], output: int, traced: bool) -> None:
    code = 99
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        if traced:
            _ptrace(TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
        code = action()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _follow(
    child: int, at: int | None, do: Do, value: int, meanwhile: Callable[[Call], None] | None
) -> tuple[list[Call], int]:
    calls: list[Call] = []
    os.waitpid(child, 0)
    _ptrace(SETOPTIONS, child, 0, TRACESYSGOOD | EXITKILL)
    entering, here, deliver = True, False, 0
    registers = (ctypes.c_ulonglong * 27)()
    memory = os.open(f"/proc/{child}/mem", os.O_RDONLY)
    try:
        while True:
            _ptrace(SYSCALL, child, 0, deliver)
            status = os.waitpid(child, 0)[1]
            deliver = 0
            if not os.WIFSTOPPED(status):
                return calls, os.waitstatus_to_exitcode(status)
            if os.WSTOPSIG(status) != SYSCALL_STOP:
                deliver = os.WSTOPSIG(status)
                continue
            _ptrace(GETREGS, child, 0, ctypes.addressof(registers))
            number = registers[ORIG_RAX]
            if entering:
                counted = number not in NO_FILES
                here = counted and len(calls) == at
                if counted:
                    looked_at = at is None or here
                    calls.append(_call(child, memory, registers) if looked_at else UNSEEN)
                if here and do is Do.FAIL:
                    _ptrace(POKEUSER, child, ORIG_RAX * 8, -1)
                elif here and do is Do.SIGNAL:
                    os.kill(child, value)
                elif counted and meanwhile is not None and (here or at is None):
                    meanwhile(calls[-1])
            elif here and do in (Do.FAIL, Do.FAIL_AFTER):
                _ptrace(POKEUSER, child, RAX * 8, -value)
            elif here and do is Do.KILL:
                os.kill(child, signal.SIGKILL)
                return calls, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            entering = not entering
    finally:
        os.close(memory)


def _call(child: int, memory: int, registers: ctypes.Array[ctypes.c_ulonglong]) -> Call:
    number, first, second = (registers[each] for each in (ORIG_RAX, RDI, RSI))
    if number in BY_HANDLE:
        return Call(BY_HANDLE[number], _handle(child, first))
    if number in BY_PATH:
        return Call(BY_PATH[number], _text(memory, first))
    if number in BY_FOLDER:
        name = _text(memory, second)
        if name.startswith("/"):
            return Call(BY_FOLDER[number], name)
        return Call(BY_FOLDER[number], str(Path(_handle(child, first), name)))
    return Call(f"call {number}", "")


def _handle(child: int, register: int) -> str:
    number = ctypes.c_int(register & 0xFFFFFFFF).value
    where = "cwd" if number == AT_FDCWD else f"fd/{number}"
    try:
        return os.readlink(f"/proc/{child}/{where}")
    except OSError:
        return ""


def _text(memory: int, address: int) -> str:
    """A C string; a page is always there as a whole."""
    page = 4096 - address % 4096
    try:
        data = os.pread(memory, page, address)
        if b"\0" not in data:
            data += os.pread(memory, 4096, address + page)
    except OSError:
        return ""
    return os.fsdecode(data.split(b"\0")[0])


def _ptrace(request: int, child: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, child, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace: {os.strerror(number)}")
