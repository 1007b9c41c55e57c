"""The only module that writes to a target: lock, swap, bytecode, receipt, revert.

The order of the steps makes every point at which a process can die recoverable by running the
same command again: original and receipt are there before the file changes, and are removed after
it has changed back. Temporary files have fixed names, so that the next run finds and removes them.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import hashlib
import os
import stat
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from importlib.util import source_hash
from pathlib import Path
from typing import Any

from patcher import __version__, receipts
from patcher.errors import Exit, Failure
from patcher.patch import Patch
from patcher.receipts import Receipt
from patcher.rewriting import Plan, sha256
from patcher.target import Target

LOCK_SECONDS = 10.0
"""How long to wait for another glmpatch on the same vLLM."""
HINTS = {
    errno.ENOSPC: "make room on that disk, then run glmpatch again",
    errno.EDQUOT: "make room in that quota, then run glmpatch again",
    errno.EROFS: "the file system is read-only: run glmpatch where it is writable, such as in a "
    "Dockerfile",
}


@contextlib.contextmanager
def locked(target: Target) -> Iterator[None]:
    """One glmpatch at a time on one vLLM; the lock ends with the process and leaves nothing.

    It is held on the package folder itself, so that there is no lock file to be left behind.
    """
    try:
        folder = os.open(target.package, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot("open", target.package, error) from error
    try:
        _wait_for_lock(folder, target.package)
        yield
    finally:
        os.close(folder)


def _wait_for_lock(folder: int, path: Path) -> None:
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise Failure(
                    Exit.TARGET,
                    f"another glmpatch has been at work on {path} for {LOCK_SECONDS:.0f} s",
                    "try again when it has ended",
                ) from error
            time.sleep(0.05)
        except OSError as error:
            raise _cannot("lock", path, error) from error


def install(
    target: Target, patch: Patch, path: Path, plan: Plan, verification: Mapping[str, Any] | None
) -> Receipt:
    """Put the planned bytes in place and keep the original and a receipt.

    Raises:
        Failure: the file is not what the plan was made from, or cannot be written; it is then
            as it was.
    """
    with locked(target), _as_failure(path):
        _expect(path, plan.before)
        record_newline = _ends_without_newline(target)
        receipt = Receipt(
            patch=patch.id,
            file=patch.file,
            rewrites=plan.broken,
            before=sha256(plan.before),
            after=sha256(plan.after),
            vllm=target.version,
            glmpatch=__version__,
            time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            verification=dict(verification) if verification is not None else None,
            record_newline=record_newline,
        )
        keep = {
            receipts.original_path(target, patch): plan.before,
            receipts.receipt_path(target, patch): receipt.to_json(),
        }
        staged = _stage(path, plan.after, like=path)
        try:
            target.records.mkdir(exist_ok=True)
            for name, data in keep.items():
                _replace(name, data, like=_model(target))
            _list_in_record(target, keep)
            _swap(staged, path, plan.before)
        except BaseException:
            _unlink(staged)
            _forget(target, patch, record_newline)
            raise
        _expect(path, plan.after)
    return receipt


def revert(target: Target, patch: Patch, path: Path, receipt: Receipt, force: bool) -> bool:
    """Put the original back, byte for byte, and take away all that ``install`` left.

    Returns whether the file was changed: after a run that was interrupted, or where vLLM was
    reinstalled over the patched file, there may be a receipt and nothing to take back.

    Raises:
        Failure: the file was edited after it was patched (and not ``force``), or the original is
            gone or not the one that the receipt names; nothing is changed then.
    """
    with locked(target), _as_failure(path):
        now = path.read_bytes()
        if sha256(now) in (receipt.before, *patch.known) and receipt.after != sha256(now):
            _forget(target, patch, receipt.record_newline)
            return False
        original = _read_original(target, patch, receipt)
        if sha256(now) != receipt.after and not force:
            raise Failure(
                Exit.DRIFT,
                f"{path} was edited after glmpatch patched it",
                f"glmpatch revert {patch.id} --force restores the original and loses that edit",
            )
        staged = _stage(path, original, like=path)
        try:
            _swap(staged, path, now)
        except BaseException:
            _unlink(staged)
            raise
        _forget(target, patch, receipt.record_newline)
        _expect(path, original)
        return True


def tidy(path: Path) -> None:
    """Remove bytecode that would run in place of a patched source, after an interrupted run."""
    source = path.read_bytes()
    for compiled in _bytecode(path):
        with contextlib.suppress(OSError):
            header = compiled.read_bytes()[:16]
            flags = int.from_bytes(header[4:8], "little")
            unchecked = flags & 0b11 == 0b01
            if unchecked and header[8:16] != source_hash(source):
                _unlink(compiled)


def check_writable(target: Target, path: Path) -> None:
    """Fail now, and not after a proof of half a minute, where nothing can be written."""
    for folder in (path.parent, target.dist_info or target.root):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise Failure(
                Exit.TARGET,
                f"cannot write to {folder}: no permission for this user, or read-only",
                "run as the user who owns the environment, or before USER in a Dockerfile",
            )


def remove_bytecode(path: Path) -> None:
    """Remove the compiled forms of a source, so that none of another source runs in its place."""
    for compiled in _bytecode(path):
        _unlink(compiled)


def _bytecode(path: Path) -> list[Path]:
    folders = [path.parent / "__pycache__"]
    prefix = os.environ.get("PYTHONPYCACHEPREFIX") or sys.pycache_prefix
    if prefix:
        folders.append(Path(prefix) / path.parent.relative_to(path.anchor))
    return [file for folder in folders for file in folder.glob(f"{path.stem}.*.pyc")]


# -- files --------------------------------------------------------------------------------------


def _stage(path: Path, data: bytes, like: Path) -> Path:
    """A complete file beside ``path``, on disk, with the mode, owner and attributes of ``like``."""
    staged = path.with_name(f".{path.name}.glmpatch")
    _unlink(staged)
    model = os.stat(like)
    handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            own = os.fstat(stream.fileno())
            if (own.st_uid, own.st_gid) != (model.st_uid, model.st_gid):
                os.fchown(stream.fileno(), model.st_uid, model.st_gid)
            os.fchmod(stream.fileno(), stat.S_IMODE(model.st_mode))
            _copy_attributes(like, stream.fileno())
            os.fsync(stream.fileno())
    except BaseException:
        _unlink(staged)
        raise
    return staged


def _swap(staged: Path, path: Path, expected: bytes) -> None:
    """The staged file takes the place of ``path``, and no old bytecode can stand in for it.

    Bytecode goes first: where it cannot be removed, the source must not change either. What an
    import compiles from the old source in between is stale by its recorded size, and goes too.
    """
    _expect(path, expected)
    remove_bytecode(path)
    os.replace(staged, path)
    with contextlib.suppress(OSError):
        remove_bytecode(path)
    _sync(path.parent)


def _copy_attributes(source: Path, handle: int) -> None:
    """Extended attributes, access lists among them, where the file system has them."""
    with contextlib.suppress(OSError):
        for name in os.listxattr(source):
            with contextlib.suppress(OSError):
                os.setxattr(handle, name, os.getxattr(source, name))


def _replace(path: Path, data: bytes, like: Path) -> None:
    staged = _stage(path, data, like)
    try:
        os.replace(staged, path)
    except BaseException:
        _unlink(staged)
        raise


def _unlink(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()


def _sync(folder: Path) -> None:
    """Bring a rename to the disk; file systems that cannot are not worse off than before."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _expect(path: Path, data: bytes) -> None:
    if path.read_bytes() != data:
        raise Failure(
            Exit.TARGET,
            f"{path} was changed by somebody else in the meantime; nothing was written",
            "run glmpatch again",
        )


def _read_original(target: Target, patch: Patch, receipt: Receipt) -> bytes:
    path = receipts.original_path(target, patch)
    with contextlib.suppress(OSError):
        original = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        if sha256(original) == receipt.before:
            return original
    version = target.version or "0.8.4"
    raise Failure(
        Exit.DRIFT,
        f"the original is gone: {path} is missing or was changed",
        f"reinstall it: pip install --force-reinstall --no-deps vllm=={version}",
    )


def _model(target: Target) -> Path:
    """The file whose owner and mode a new file beside the metadata takes."""
    return (target.dist_info or target.package) / (
        "METADATA" if target.dist_info is not None else "__init__.py"
    )


# -- RECORD -------------------------------------------------------------------------------------


def _record(target: Target) -> Path | None:
    """RECORD of a wheel's install; files listed in it go when vLLM is uninstalled."""
    if target.dist_info is None or target.records != target.dist_info:
        return None
    record = target.dist_info / "RECORD"
    return record if record.is_file() and not record.is_symlink() else None


def _ends_without_newline(target: Target) -> bool:
    record = _record(target)
    if record is None:
        return False
    data = record.read_bytes()
    return bool(data) and not data.endswith((b"\n", b"\r"))


def _list_in_record(target: Target, files: Mapping[Path, bytes]) -> None:
    record = _record(target)
    if record is None:
        return
    data = record.read_bytes()
    lines = _without(data, {_entry(target, path) for path in files})
    end = b"\r\n" if b"\r\n" in data else b"\n"
    if lines and not lines[-1].endswith((b"\n", b"\r")):
        lines.append(end)
    for path, content in files.items():
        digest = urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{_entry(target, path)},sha256={digest},{len(content)}".encode() + end)
    _replace(record, b"".join(lines), like=record)


def _forget(target: Target, patch: Patch, record_newline: bool) -> None:
    """Receipt, original and their lines in RECORD, in the order that a crash may interrupt."""
    files = (receipts.original_path(target, patch), receipts.receipt_path(target, patch))
    record = _record(target)
    if record is not None:
        data = record.read_bytes()
        left = b"".join(_without(data, {_entry(target, path) for path in files}))
        if left != data:
            if record_newline:
                left = left.rstrip(b"\r\n")
            _replace(record, left, like=record)
    for path in files:
        _unlink(path)
        _unlink(path.with_name(f".{path.name}.glmpatch"))
    if target.records.name == ".glmpatch":
        with contextlib.suppress(OSError):
            target.records.rmdir()


def _entry(target: Target, path: Path) -> str:
    return f"{target.records.name}/{path.name}"


def _without(record: bytes, entries: set[str]) -> list[bytes]:
    """The lines of RECORD that do not name one of these files, unchanged."""
    lines = record.splitlines(keepends=True)
    return [line for line in lines if _named(line) not in entries]


def _named(line: bytes) -> str:
    row = next(csv.reader([line.decode("utf-8", errors="replace")]), [])
    return row[0] if row else ""


# -- errors -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _as_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _cannot("write", Path(error.filename) if error.filename else path, error) from error


def _cannot(what: str, path: Path, error: OSError) -> Failure:
    return Failure(
        Exit.TARGET,
        f"cannot {what} {path}: {error.strerror}; the model file is as it was",
        HINTS.get(error.errno or 0, "run as the user who owns the environment of vLLM"),
    )
