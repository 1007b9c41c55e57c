"""Takes back what ``install`` did, and tidies up after a run that was interrupted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from glmpatch.errors import Exit, Failure
from glmpatch.language import _
from glmpatch.site import bytecode, surroundings
from glmpatch.site import receipt as receipts
from glmpatch.site.folder import File, read_file, staged_name
from glmpatch.site.lock import stop_if_interrupted
from glmpatch.site.opened import Tree, opened
from glmpatch.site.receipt import Receipt
from glmpatch.site.record import with_files, without_files
from glmpatch.site.swap import as_failure, settle, swap
from glmpatch.site.target import FOLDER, Target
from glmpatch.source import sha256


def revert(
    target: Target, patch: str, file: str, released: Collection[str], force: bool = False
) -> bool:
    """Put the original back, byte for byte, and take away all that ``install`` left.

    ``released`` are the sha256 of files that a reinstall may have put in the place of ours.
    Returns whether the file was changed: after a run that was interrupted, or where vLLM was
    reinstalled over the patched file, there may be a receipt and nothing to take back.

    Raises:
        Failure: the file was edited after it was patched (and not ``force``), or the original is
            gone or not the one that the receipt names; nothing is changed then. Or something
            cannot be written; the message says what is there now.
    """
    path = target.root / file
    with as_failure(path), opened(target, patch, file) as tree:
        tree.clear()
        receipt = tree.receipt()
        if receipt is None:
            return False
        model = tree.model()
        with as_failure(path, tree, model):
            return _revert(tree, receipt, model, released, force)


def _revert(
    tree: Tree, receipt: Receipt, model: File, released: Collection[str], force: bool
) -> bool:
    now = sha256(model.data)
    if now != receipt.after and now in (receipt.before, *released):
        _forget(tree)
        return False
    if receipt.before == receipt.after:
        # The original of an earlier patch, of a file that was edited since, is the only way back.
        _forget(tree, receipt_only=now not in released and _differs(tree, model))
        return False
    original = _original(tree, receipt)
    if now != receipt.after and not force:
        raise Failure(
            Exit.DRIFT,
            _(
                "{path} was edited after glmpatch patched it",
                path=tree.models.path / tree.name,
            ),
            _("add --force to restore the original and lose that edit"),
        )
    with contextlib.ExitStack() as undo:
        models = tree.models
        undo.callback(models.remove, models.stage(tree.name, original, model, later=True))
        # Staged beforehand, since it needs room on the disk.
        listed = _stage_record(tree, tree.kept, undo)
        stop_if_interrupted()
        swap(tree, model.data)
        settle(tree, original)
        _remove_kept(tree, tree.kept, listed)
    return True


def tidy(target: Target, patch: str, file: str) -> None:
    """Remove what an interrupted run left, where there is nothing to apply or to take back.

    An original stays as long as the model file is another one.

    Raises:
        Failure: another glmpatch did not end in time.
    """
    kept = receipts.names(patch)
    names = (*kept, *map(staged_name, (*kept, "RECORD")))
    model = target.root / file
    left = [model.with_name(staged_name(model.name)), *(target.records / name for name in names)]
    if target.records.name == FOLDER:
        left.append(target.records)
    if not any(os.path.lexists(path) for path in left):
        return
    # There was nothing to do, so that a tree which cannot be written to is no error.
    with contextlib.suppress(OSError), opened(target, patch, file) as tree:
        tree.clear()
        if tree.records is None:
            return
        now, receipt = tree.model(), tree.receipt()
        original = tree.records.read_if_there(kept[0])
        if receipt is not None and receipt.after == sha256(now.data):
            bytecode.remove(tree.models, tree.name, now)
            _list(tree)
        elif (receipt is not None and receipt.before == sha256(now.data)) or (
            original is not None and original.data == now.data
        ):
            _forget(tree)


def left_behind(target: Target, patch: str, data: bytes | None) -> Path | None:
    """The original of a patch whose receipt is gone, where another file than it, or none, is there.

    Raises:
        OSError: it cannot be read.
    """
    path, receipt = (target.records / name for name in receipts.names(patch))
    if not os.path.lexists(path) or (data is not None and read_file(path) == data):
        return None
    # Another glmpatch may have applied the patch since it was looked for.
    return None if os.path.lexists(receipt) else path


def _original(tree: Tree, receipt: Receipt) -> bytes:
    name = tree.kept[0]
    kept = tree.records.read_if_there(name) if tree.records is not None else None
    if kept is not None and sha256(kept.data) == receipt.before:
        return kept.data
    raise Failure(
        Exit.DRIFT,
        _(
            "the original is gone: {path} is missing or was changed",
            path=tree.target.records / name,
        ),
        surroundings.restore(tree.target, tree.file),
    )


def _differs(tree: Tree, model: File) -> bool:
    """Whether there is an original, and it is another file than the one in place."""
    kept = tree.records.read_if_there(tree.kept[0]) if tree.records is not None else None
    return kept is not None and kept.data != model.data


def _forget(tree: Tree, receipt_only: bool = False) -> None:
    """Take away what an apply left of which nothing is in place."""
    names = tree.kept[1:] if receipt_only else tree.kept
    with contextlib.ExitStack() as undo:
        _remove_kept(tree, names, _stage_record(tree, names, undo))
    bytecode.remove(tree.models, tree.name, tree.model())


def _stage_record(tree: Tree, names: Collection[str], undo: contextlib.ExitStack) -> bool:
    """Stage RECORD without the lines of these files of ours; whether there were any."""
    record, records = tree.record(), tree.records
    if record is None or records is None:
        return False
    left = without_files(record.data, [f"{records.path.name}/{name}" for name in names])
    if left == record.data:
        return False
    undo.callback(records.remove, records.stage("RECORD", left, record))
    return True


def _remove_kept(tree: Tree, names: Collection[str], listed: bool) -> None:
    """Files of ours and their lines in RECORD, in the order that a crash may interrupt."""
    if tree.records is None:
        return
    if listed:
        tree.records.put("RECORD")
    for name in names:
        tree.records.remove(name)
    tree.records.sync()


def _list(tree: Tree) -> None:
    """List in RECORD what is kept, where a run died before it came to that."""
    record, records = tree.record(), tree.records
    if record is None or records is None:
        return
    there = {name: records.read_if_there(name) for name in tree.kept}
    listed = {f"{records.path.name}/{n}": file.data for n, file in there.items() if file}
    right = with_files(record.data, listed)
    if sorted(right.splitlines()) != sorted(record.data.splitlines()):
        records.restore("RECORD", replace(record, data=right))
