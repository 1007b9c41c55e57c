"""The only module that changes a target: lock, swap, bytecode, receipt, revert.

The order of the steps makes every point at which a process can die recoverable by running the
same command again: original and receipt are there before the model file changes, and go after it
has changed back. All that needs room on the disk is staged before anything changes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.util import source_hash
from pathlib import Path
from typing import Any

from patcher import __version__, receipts
from patcher.errors import Exit, Failure
from patcher.folder import File, Folder, staged_name
from patcher.patch import Patch
from patcher.receipts import Receipt
from patcher.record import with_files, without_files
from patcher.rewriting import Plan, sha256
from patcher.target import Target

LOCK_SECONDS = 10.0
"""How long to wait for another glmpatch on the same vLLM."""
SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
"""They wait while the tree is being changed."""
HINTS = {
    errno.ENOSPC: "make room on that disk, then run glmpatch again",
    errno.EDQUOT: "make room in that quota, then run glmpatch again",
    errno.EROFS: "the file system is read-only: run glmpatch where it is writable, such as in a "
    "Dockerfile",
    errno.EBUSY: "if the file is mounted on its own, such as with docker run -v, patch the vLLM "
    "that it comes from",
    errno.ENOENT: "reinstall vLLM if it is not whole, then run glmpatch again",
    errno.EIO: "look at the health of that disk, then run glmpatch again",
}


# -- the lock -----------------------------------------------------------------------------------


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
                f"another glmpatch is busy with {target.package}, for {LOCK_SECONDS:.0f} s now",
                "try again when it has ended",
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


def _stop_if_interrupted() -> None:
    """A signal that waits is heard as long as nothing has changed yet."""
    if signal.sigpending() & SIGNALS:
        raise KeyboardInterrupt


# -- what is open while it is changed -----------------------------------------------------------


@dataclass(frozen=True)
class _Tree:
    """The folders of one target and patch, locked and open."""

    target: Target
    patch: Patch
    models: Folder
    records: Folder | None
    """Where receipt and original are; None where there is no such folder (yet)."""

    @property
    def name(self) -> str:
        return Path(self.patch.file).name

    @property
    def kept(self) -> tuple[str, str]:
        """Names of original and receipt."""
        return receipts.names(self.patch)

    def model(self) -> File:
        """The model file; uv and conda may have linked it."""
        return self.models.read(self.name, follow=True)

    def receipt(self) -> Receipt | None:
        return receipts.read_in(self.records, self.patch) if self.records else None

    def record(self) -> File | None:
        """RECORD of a wheel's install; files listed in it go when vLLM is uninstalled."""
        if self.records is None or self.target.records != self.target.dist_info:
            return None
        return self.records.read_if_there("RECORD")

    def clear(self) -> None:
        """Remove what an interrupted run had staged."""
        self.models.remove(staged_name(self.name))
        if self.records is not None:
            for name in (*self.kept, "RECORD"):
                self.records.remove(staged_name(name))

    def caches(self) -> Iterator[Folder]:
        """The folders in which Python keeps bytecode of the model file."""
        beside = self.models.path / "__pycache__"
        try:
            with Folder(beside, self.models) as folder:
                yield folder
        except FileNotFoundError:
            pass
        except OSError:
            # Python would follow a link to a folder; we do not.
            if os.path.isdir(beside) and any(map(self.compiled, os.listdir(beside))):
                raise
        prefix = os.environ.get("PYTHONPYCACHEPREFIX") or sys.pycache_prefix
        if prefix:
            for path in {self.models.path, self.models.path.resolve()}:
                try:
                    elsewhere = Folder(Path(prefix, *path.parts[1:]))
                except (FileNotFoundError, NotADirectoryError):
                    continue
                with elsewhere:
                    yield elsewhere

    def compiled(self, name: str) -> bool:
        """Whether this is a name of the model file's bytecode, of whatever Python."""
        return name.startswith(f"{Path(self.name).stem}.") and name.endswith(".pyc")


@contextlib.contextmanager
def _opened(target: Target, patch: Patch, create: bool = False) -> Iterator[_Tree]:
    """Lock a target and open its folders; ``create`` makes the one for receipts.

    Raises:
        Failure: another glmpatch did not end in time.
        OSError: a folder is missing, is a link, or may not be opened.
    """
    name = target.records.name
    with contextlib.ExitStack() as stack:
        folder = package = stack.enter_context(locked(target))
        for part in Path(patch.file).parts[1:-1]:
            folder = stack.enter_context(Folder(folder.path / part, folder))
        root = stack.enter_context(Folder(target.root))
        own = name == receipts.FOLDER
        if create and own and not root.has(name):
            root.make(name, like=package)
        if own:
            stack.callback(root.remove_if_empty, name)
        records = None
        if root.has(name):
            records = stack.enter_context(Folder(target.records, root))
        yield _Tree(target, patch, folder, records)


# -- the commands -------------------------------------------------------------------------------


def install(
    target: Target, patch: Patch, path: Path, plan: Plan, verification: Mapping[str, Any] | None
) -> Receipt | None:
    """Put the planned bytes in place and keep the original and a receipt.

    Where another glmpatch was first and has made the same change, that is its receipt, if any.

    Raises:
        Failure: the file is not what the plan was made from, or cannot be written. The message
            says what is there now: as a rule what was there before.
    """
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
    )
    with _as_failure(path), _opened(target, patch, create=True) as tree:
        tree.clear()
        model = tree.model()
        if model.data == plan.after:
            return tree.receipt()
        if model.data != plan.before:
            raise _changed_meanwhile(path)
        with _as_failure(path, tree, model):
            _install(tree, plan.after, model, receipt)
    return receipt


def _install(tree: _Tree, after: bytes, model: File, receipt: Receipt) -> None:
    models, records = tree.models, tree.records
    assert records is not None
    plain = File(b"", model.status, {})
    original, written = tree.kept
    keep = {original: model.data, written: receipt.to_json()}
    changes = [(name, data, plain) for name, data in keep.items()]
    record = tree.record()
    if record is not None:
        listed = {f"{records.path.name}/{name}": data for name, data in keep.items()}
        changes.append(("RECORD", with_files(record.data, listed), record))
    with contextlib.ExitStack() as undo:
        for name, data, like in changes:
            undo.callback(records.remove, records.stage(name, data, like))
        undo.callback(models.remove, models.stage(tree.name, after, model, later=True))
        _stop_if_interrupted()
        for name, _, _ in changes:
            undo.callback(records.restore, name, records.read_if_there(name))
            records.put(name)
        records.sync()
        try:
            _swap(tree, model.data)
        except OSError:
            # Over a network a rename can happen and be reported as failed.
            if tree.model().data == after:
                undo.pop_all()
            raise
        undo.pop_all()
    _settle(tree, after)


def revert(target: Target, patch: Patch, path: Path, force: bool) -> bool:
    """Put the original back, byte for byte, and take away all that ``install`` left.

    Returns whether the file was changed: after a run that was interrupted, or where vLLM was
    reinstalled over the patched file, there may be a receipt and nothing to take back.

    Raises:
        Failure: the file was edited after it was patched (and not ``force``), or the original is
            gone or not the one that the receipt names; nothing is changed then. Or something
            cannot be written; the message says what is there now.
    """
    with _as_failure(path), _opened(target, patch) as tree:
        tree.clear()
        receipt = tree.receipt()
        if receipt is None:
            return False
        model = tree.model()
        with _as_failure(path, tree, model):
            return _revert(tree, receipt, model, force)


def _revert(tree: _Tree, receipt: Receipt, model: File, force: bool) -> bool:
    now = sha256(model.data)
    if now != receipt.after and now in (receipt.before, *tree.patch.known):
        _forget(tree)
        return False
    original = _original(tree, receipt)
    if now != receipt.after and not force:
        raise Failure(
            Exit.DRIFT,
            f"{tree.models.path / tree.name} was edited after glmpatch patched it",
            "add --force to restore the original and lose that edit",
        )
    with contextlib.ExitStack() as undo:
        models = tree.models
        undo.callback(models.remove, models.stage(tree.name, original, model, later=True))
        # Staged beforehand, since it needs room on the disk.
        listed = _stage_record(tree, undo)
        _stop_if_interrupted()
        _swap(tree, model.data)
        _settle(tree, original)
        _remove_kept(tree, listed)
    return True


def tidy(target: Target, patch: Patch) -> None:
    """Remove what an interrupted run left, where there is nothing to apply or to take back.

    An original stays as long as the model file is another one.

    Raises:
        Failure: another glmpatch did not end in time.
    """
    kept = receipts.names(patch)
    names = (*kept, *map(staged_name, (*kept, "RECORD")))
    model = target.root / patch.file
    left = [model.with_name(staged_name(model.name)), *(target.records / name for name in names)]
    if target.records.name == receipts.FOLDER:
        left.append(target.records)
    if not any(os.path.lexists(path) for path in left):
        return
    # There was nothing to do, so that a tree which cannot be written to is no error.
    with contextlib.suppress(OSError), _opened(target, patch) as tree:
        tree.clear()
        if tree.records is None:
            return
        now, receipt = tree.model(), tree.receipt()
        original = tree.records.read_if_there(kept[0])
        if receipt is not None and receipt.after == sha256(now.data):
            _remove_bytecode(tree, now)
        elif (receipt is not None and receipt.before == sha256(now.data)) or (
            original is not None and original.data == now.data
        ):
            _forget(tree)


def check_writable(target: Target, path: Path) -> None:
    """Fail now, and not after a proof of half a minute, where nothing can be written."""
    if os.path.islink(target.records):
        raise Failure(
            Exit.TARGET,
            f"{target.records} is a symbolic link to another folder",
            "run glmpatch on the vLLM that it leads to",
        )
    records = target.records if os.path.isdir(target.records) else target.records.parent
    for folder in (path.parent, records):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise Failure(
                Exit.TARGET,
                f"cannot write to {folder}: no permission for this user, or read-only",
                "run as the user who owns the environment, or before USER in a Dockerfile",
            )


# -- steps --------------------------------------------------------------------------------------


def _swap(tree: _Tree, expected: bytes) -> None:
    """The staged file takes the place of the model file, and no old bytecode can stand in for it.

    Bytecode goes first: where it cannot be removed, the source must not change either.
    """
    staged = tree.models.read(staged_name(tree.name))
    _remove_bytecode(tree, staged)
    if tree.model().data != expected:
        raise _changed_meanwhile(tree.models.path / tree.name)
    tree.models.put(tree.name)


def _settle(tree: _Tree, expected: bytes) -> None:
    """After the swap: bytecode that an import compiled in between goes; then look again."""
    tree.models.sync()
    model = tree.model()
    _remove_bytecode(tree, model)
    if model.data != expected:
        raise Failure(
            Exit.TARGET,
            f"{tree.models.path / tree.name} was changed by somebody else right after glmpatch "
            "changed it",
            "run glmpatch status",
        )


def _remove_bytecode(tree: _Tree, source: File) -> None:
    """Remove compiled forms of the model file; what stays, no Python takes for ``source``."""
    for folder in tree.caches():
        for name in filter(tree.compiled, folder.names()):
            try:
                folder.remove(name)
            except OSError:
                if not _rejected(folder.read(name).data, source):
                    raise


def _rejected(bytecode: bytes, source: File) -> bool:
    """Whether Python sees by itself that this is not compiled from ``source`` (PEP 552)."""
    flags = int.from_bytes(bytecode[4:8], "little")
    if flags == 0:
        words = (int(source.status.st_mtime), len(source.data))
        return bytecode[8:16] != b"".join((w & 0xFFFFFFFF).to_bytes(4, "little") for w in words)
    return flags == 0b11 and bytecode[8:16] != source_hash(source.data)


def _original(tree: _Tree, receipt: Receipt) -> bytes:
    name = tree.kept[0]
    kept = tree.records.read_if_there(name) if tree.records is not None else None
    if kept is not None and sha256(kept.data) == receipt.before:
        return kept.data
    raise Failure(
        Exit.DRIFT,
        f"the original is gone: {tree.target.records / name} is missing or was changed",
        "reinstall this vLLM to get the released file",
    )


def _stage_record(tree: _Tree, undo: contextlib.ExitStack) -> bool:
    """Stage RECORD without our lines; whether there were any."""
    record, records = tree.record(), tree.records
    if record is None or records is None:
        return False
    left = without_files(record.data, [f"{records.path.name}/{name}" for name in tree.kept])
    if left == record.data:
        return False
    undo.callback(records.remove, records.stage("RECORD", left, record))
    return True


def _remove_kept(tree: _Tree, listed: bool) -> None:
    """Receipt, original and their lines in RECORD, in the order that a crash may interrupt."""
    if tree.records is None:
        return
    if listed:
        tree.records.put("RECORD")
    for name in tree.kept:
        tree.records.remove(name)
    tree.records.sync()


def _forget(tree: _Tree) -> None:
    """Take away what an apply left of which nothing is in place."""
    with contextlib.ExitStack() as undo:
        _remove_kept(tree, _stage_record(tree, undo))
    _remove_bytecode(tree, tree.model())


# -- errors -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _as_failure(
    path: Path, tree: _Tree | None = None, before: File | None = None
) -> Iterator[None]:
    """An error of the system as a message; one that is true of the model file as it is now."""
    try:
        yield
    except OSError as error:
        raise Failure(
            Exit.TARGET,
            f"cannot change {error.filename or path}: {error.strerror}; {_now(tree, before)}",
            HINTS.get(error.errno or 0, "run as the user who owns the environment of vLLM"),
        ) from error


def _now(tree: _Tree | None, before: File | None) -> str:
    if tree is None or before is None:
        return "nothing was changed"
    try:
        changed = tree.model().data != before.data
    except OSError as error:
        return f"and the model file cannot be read now: {error.strerror}"
    if changed:
        return "the model file is changed already, run the same command again to finish"
    return "the model file is as it was"


def _changed_meanwhile(path: Path) -> Failure:
    return Failure(
        Exit.TARGET,
        f"{path} was changed by somebody else in the meantime; nothing was written",
        "run glmpatch again",
    )
