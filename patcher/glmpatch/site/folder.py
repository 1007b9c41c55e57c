"""One folder of a target, held open: files in it are read, staged and swapped through its handle.

A path is looked up anew by every call, and a folder above can become a link, or another folder,
between two of them. A handle stays with the folder that was looked at.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from glmpatch.language import _

SIZE_LIMIT = 64 * 2**20
"""Bytes; nothing that glmpatch reads is nearly as large."""
NO_FILE = (errno.EINVAL, errno.ELOOP, errno.EFBIG)
"""Errors of ``Folder.read`` where something else than a file of sensible size has the name."""
ACCESS_LIST = "system.posix_acl_access"


@dataclass(frozen=True)
class File:
    """A regular file as it was read, with all that a file in its place must have."""

    data: bytes
    status: os.stat_result
    attributes: Mapping[str, bytes]


class Folder:
    """An open folder. Names are those of entries in it, never paths."""

    def __init__(self, path: Path, within: Folder | None = None) -> None:
        """Open ``path``; below ``within`` the name alone is looked up, and no link followed.

        Raises:
            OSError: there is no such folder, or a link stands in its place.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        self.path = path
        with _naming(path):
            if within is None:
                self.handle = os.open(path, flags)
            else:
                self.handle = os.open(path.name, flags | os.O_NOFOLLOW, dir_fd=within.handle)

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Nothing was written through it, so that nothing is lost.
        with contextlib.suppress(OSError):
            os.close(self.handle)

    def is_there(self) -> bool:
        """Whether the path still leads to this folder."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.handle))
        except OSError:
            return False

    def names(self) -> list[str]:
        with _naming(self.path):
            return os.listdir(self.handle)

    def has(self, name: str) -> bool:
        """Whether an entry has this name, be it a link that leads nowhere."""
        with _naming(self.path / name):
            try:
                os.stat(name, dir_fd=self.handle, follow_symlinks=False)
            except FileNotFoundError:
                return False
            return True

    def read(self, name: str, follow: bool = False) -> File:
        """A regular file; ``follow`` says whether it may be a link to one.

        Raises:
            OSError: missing, unreadable, larger than ``SIZE_LIMIT``, or no regular file. A FIFO
                or device is never opened.
        """
        with _naming(self.path / name):
            _check_regular(os.stat(name, dir_fd=self.handle, follow_symlinks=follow))
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
            with os.fdopen(os.open(name, flags, dir_fd=self.handle), "rb") as stream:
                status = os.fstat(stream.fileno())
                _check_regular(status)
                return File(stream.read(), status, _attributes(stream.fileno()))

    def read_if_there(self, name: str) -> File | None:
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def stage(self, name: str, data: bytes, like: File, later: bool = False) -> str:
        """A complete file beside ``name``, on disk, with mode, owner and attributes of ``like``.

        Its name is always the same, so that the next run finds what an interrupted one left.
        ``later`` gives it a second of its own, after that of ``like``: bytecode knows its source
        by size and whole second, and an import may write it while the source is swapped twice.
        """
        staged = staged_name(name)
        with _naming(self.path / name):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            handle = os.open(staged, flags, 0o600, dir_fd=self.handle)
            try:
                with os.fdopen(handle, "wb") as stream:
                    stream.write(data)
                    stream.flush()
                    _make_like(stream.fileno(), like)
                    if later:
                        second = max(int(time.time()), int(like.status.st_mtime) + 1)
                        os.utime(stream.fileno(), (second, second))
                    os.fsync(stream.fileno())
            except BaseException:
                self.remove(staged)
                raise
        return staged

    def put(self, name: str) -> None:
        """The staged file takes the place of ``name``, at once."""
        with _naming(self.path / name):
            os.replace(staged_name(name), name, src_dir_fd=self.handle, dst_dir_fd=self.handle)

    def restore(self, name: str, file: File | None) -> None:
        """``name`` as it was when it was read: this file, or none."""
        if file is None:
            self.remove(name)
        else:
            self.stage(name, file.data, file)
            self.put(name)

    def remove(self, name: str) -> None:
        """Remove a file or link, if there."""
        with _naming(self.path / name), contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.handle)

    def make(self, name: str, like: Folder) -> None:
        """A new folder, with mode and owner of another."""
        status = os.fstat(like.handle)
        with _naming(self.path / name):
            umask = os.umask(0)
            try:
                os.mkdir(name, stat.S_IMODE(status.st_mode), dir_fd=self.handle)
            finally:
                os.umask(umask)
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(name, status.st_uid, status.st_gid, dir_fd=self.handle)

    def remove_if_empty(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=self.handle)

    def sync(self) -> None:
        """Bring renames to the disk; a file system that cannot is not worse off than before."""
        with contextlib.suppress(OSError):
            os.fsync(self.handle)


def read_file(path: Path, limit: int | None = None) -> bytes:
    """A regular file, or what a link to one leads to; no FIFO or device is opened.

    With ``limit`` its first bytes.

    Raises:
        OSError: missing, unreadable, no regular file, or (without ``limit``) larger than
            ``SIZE_LIMIT``.
    """
    with _naming(path):
        _check_regular(os.stat(path), limit is None)
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            return stream.read(-1 if limit is None else limit)


def staged_name(name: str) -> str:
    return f".{name}.glmpatch"


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of calls by handle know a name only; a user needs the path."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def _check_regular(status: os.stat_result, whole: bool = True) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, _("not a regular file"))
    if whole and status.st_size > SIZE_LIMIT:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def _attributes(handle: int) -> dict[str, bytes]:
    """Extended attributes, access lists among them, where the file system has them."""
    try:
        return {name: os.getxattr(handle, name) for name in os.listxattr(handle)}
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return {}
        raise


def _make_like(handle: int, like: File) -> None:
    own, status = os.fstat(handle), like.status
    if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(handle, status.st_uid, status.st_gid)
    os.fchmod(handle, stat.S_IMODE(status.st_mode))
    inherited = _attributes(handle)
    if ACCESS_LIST in inherited and ACCESS_LIST not in like.attributes:
        os.removexattr(handle, ACCESS_LIST)
    for name, value in like.attributes.items():
        if inherited.get(name) == value:
            continue
        try:
            os.setxattr(handle, name, value)
        except OSError:
            # The kernel and root own the others, such as labels of a security module.
            if name == ACCESS_LIST or name.startswith("user."):
                raise
