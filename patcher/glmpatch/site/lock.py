"""One glmpatch at a time on one vLLM, and signals wait until the tree is whole."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import time
from collections.abc import Iterator

from glmpatch.errors import Exit, Failure
from glmpatch.language import _
from glmpatch.site.folder import Folder
from glmpatch.site.target import Target

LOCK_SECONDS = 10.0
"""How long to wait for another glmpatch on the same vLLM."""
SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
"""They wait while the tree is being changed."""


@contextlib.contextmanager
def locked(target: Target) -> Iterator[Folder]:
    """One glmpatch at a time on one vLLM; yields the package folder.

    The lock is held on the folder itself: it ends with the process, and there is no lock file to
    be left behind. Signals wait until it is given back, with the tree whole.

    Raises:
        Failure: another glmpatch did not end in time.
        OSError: no such folder, or its file system has no locks.
    """
    until = time.monotonic() + LOCK_SECONDS
    while True:
        with contextlib.ExitStack() as stack:
            root = stack.enter_context(Folder(target.root))
            package = stack.enter_context(Folder(target.package, root))
            # Whoever reinstalls vLLM puts another folder there, with a lock of its own.
            if _lock(package, stack) and package.is_there():
                with _signals_wait():
                    yield package
                return
        if time.monotonic() > until:
            raise Failure(
                Exit.TARGET,
                _(
                    "another glmpatch is busy with {path}, for {seconds:.0f} s now",
                    path=target.package,
                    seconds=LOCK_SECONDS,
                ),
                _("try again when it has ended"),
            )
        time.sleep(0.05)


def _lock(package: Folder, stack: contextlib.ExitStack) -> bool:
    """Whether the lock was free; it is held until ``stack`` ends."""
    try:
        try:
            fcntl.flock(package.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            # NFS locks only what is open for writing, which a folder cannot be.
            flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
            handle = os.open("__init__.py", flags, dir_fd=package.handle)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        error.filename = str(package.path)
        raise
    return True


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop_if_interrupted() -> None:
    """A signal that waits is heard as long as nothing has changed yet."""
    if signal.sigpending() & SIGNALS:
        raise KeyboardInterrupt
