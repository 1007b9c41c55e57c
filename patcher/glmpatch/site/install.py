"""Puts new bytes in the place of a file, or keeps the proof of those that are there.

The order of the steps makes every point at which a process can die recoverable by running the
same command again: original and receipt are there before the model file changes, and go after it
has changed back. All that needs room on the disk is staged before anything changes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from glmpatch import __version__
from glmpatch.errors import Exit, Failure
from glmpatch.language import _
from glmpatch.site import bytecode
from glmpatch.site.folder import File
from glmpatch.site.lock import stop_if_interrupted
from glmpatch.site.opened import Tree, opened
from glmpatch.site.receipt import Receipt
from glmpatch.site.record import with_files
from glmpatch.site.swap import as_failure, changed_meanwhile, settle, swap
from glmpatch.site.target import Target
from glmpatch.source import sha256


@dataclass(frozen=True)
class Change:
    """What is to become of one file. ``before`` equals ``after`` where only a proof is kept."""

    patch: str
    """Id of the patch."""
    file: str
    """Relative to the folder that holds the package ``vllm``."""
    before: bytes
    after: bytes
    rewrites: tuple[str, ...] = ()
    released: tuple[str, ...] = ()
    """sha256 of this file as it was released: one that is kept already stays the original."""


@dataclass(frozen=True)
class Proof:
    """What was measured of the result, to be kept with it.

    ``neighbours`` are the sha256 of the files beside it, ``full`` says that no option narrowed it.
    """

    verification: Mapping[str, Any]
    neighbours: Mapping[str, str]
    full: bool


class Installed(NamedTuple):
    """What there is now."""

    receipt: Receipt | None
    """Where another glmpatch was first and has made the same change, its receipt, if any."""
    ours: bool
    """Whether it was this call that changed the file."""


def install(target: Target, change: Change, proof: Proof | None = None) -> Installed:
    """Put the new bytes in place and keep the original and a receipt.

    Raises:
        Failure: the file is not what the change was made from, or cannot be written. The message
            says what is there now: as a rule what was there before.
    """
    path = target.root / change.file
    receipt = Receipt(
        patch=change.patch,
        file=change.file,
        rewrites=change.rewrites,
        before=sha256(change.before),
        after=sha256(change.after),
        vllm=target.version,
        glmpatch=__version__,
        time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        verification=dict(proof.verification) if proof else None,
        neighbours=dict(proof.neighbours) if proof else {},
        full=bool(proof and proof.full),
    )
    with as_failure(path), opened(target, change.patch, change.file, create=True) as tree:
        tree.clear()
        model = tree.model()
        if model.data == change.after != change.before:
            return Installed(tree.receipt(), ours=False)
        if model.data != change.before:
            raise changed_meanwhile(path)
        with as_failure(path, tree, model):
            receipt = _kept_on(receipt, tree, model, change.released)
            _install(tree, change.after, model, receipt)
    return Installed(receipt, ours=change.after != change.before)


def _kept_on(receipt: Receipt, tree: Tree, model: File, released: Collection[str]) -> Receipt:
    """A file of ours that is proven anew, mended further, or mended after it was edited, is taken
    back to what was there before the first mend: its original stays."""
    now, earlier = sha256(model.data), tree.receipt()
    kept = tree.records.read_if_there(tree.kept[0]) if tree.records is not None else None
    first = sha256(kept.data) if kept is not None else ""
    if earlier is not None and earlier.after == now:
        if receipt.before != receipt.after and first != earlier.before:
            return receipt
        first = earlier.before
    elif receipt.before == receipt.after or first not in released or now in released:
        return receipt
    elif earlier is not None and set(receipt.rewrites) >= set(earlier.rewrites):
        return receipt  # None of what was mended is left in it: it is another file, unpacked there.
    done = earlier.rewrites if earlier is not None else ()
    rewrites = tuple(dict.fromkeys((*done, *receipt.rewrites)))
    return replace(receipt, before=first, rewrites=rewrites)


def _install(tree: Tree, after: bytes, model: File, receipt: Receipt) -> None:
    models, records = tree.models, tree.records
    assert records is not None
    plain = File(b"", model.status, {})
    original, written = tree.kept
    changed = after != model.data
    first = receipt.before == sha256(model.data)
    keep = {original: model.data} if changed and first else {}
    keep[written] = receipt.to_json()
    changes = [(name, data, plain) for name, data in keep.items()]
    record = tree.record()
    if record is not None:
        listed = {f"{records.path.name}/{name}": data for name, data in keep.items()}
        changes.append(("RECORD", with_files(record.data, listed), record))
    with contextlib.ExitStack() as undo:
        for name, data, like in changes:
            undo.callback(records.remove, records.stage(name, data, like))
        if changed:
            undo.callback(models.remove, models.stage(tree.name, after, model, later=True))
        stop_if_interrupted()
        if not changed:
            # What was proven is this source, so that no old bytecode may run in its place.
            bytecode.remove(models, tree.name, model)
        for name, _data, _like in changes:
            undo.callback(records.restore, name, records.read_if_there(name))
            records.put(name)
        records.sync()
        if not changed:
            undo.pop_all()
            return
        try:
            swap(tree, model.data)
        except OSError:
            # Over a network a rename can happen and be reported as failed.
            if tree.model().data == after:
                undo.pop_all()
            raise
        undo.pop_all()
    settle(tree, after)


def check_writable(target: Target, path: Path) -> None:
    """Fail now, and not after a proof of half a minute, where nothing can be written."""
    if os.path.islink(target.records):
        raise Failure(
            Exit.TARGET,
            _("{path} is a symbolic link to another folder", path=target.records),
            _("run glmpatch on the vLLM that it leads to"),
        )
    records = target.records if os.path.isdir(target.records) else target.records.parent
    from glmpatch.site import surroundings

    for place in (path.parent, records, path):
        # A link is replaced too, and what it leads to left alone.
        told = "" if place == path and os.path.islink(path) else surroundings.held_by_flag(place)
        # The file is replaced: its own permissions do not matter.
        if place != path and not told and not os.access(place, os.W_OK | os.X_OK):
            told = surroundings.obstacle(place) or _(
                "run as the user who owns the environment, or before USER in a Dockerfile"
            )
        if told:
            raise Failure(
                Exit.TARGET,
                _(
                    "cannot write to {folder}: no permission for this user, or read-only",
                    folder=place,
                ),
                told,
            )
