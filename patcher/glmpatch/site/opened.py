"""The folders of one target and patch, locked and held open while something is changed there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from glmpatch.site import receipt as receipts
from glmpatch.site.folder import File, Folder, staged_name
from glmpatch.site.lock import locked
from glmpatch.site.receipt import Receipt
from glmpatch.site.target import FOLDER, Target


@dataclass(frozen=True)
class Tree:
    """The folders of one target and patch, locked and open."""

    target: Target
    patch: str
    file: str
    models: Folder
    records: Folder | None
    """Where receipt and original are; None where there is no such folder (yet)."""

    @property
    def name(self) -> str:
        return Path(self.file).name

    @property
    def kept(self) -> tuple[str, str]:
        """Names of original and receipt."""
        return receipts.names(self.patch)

    def model(self) -> File:
        """The model file; uv and conda may have linked it."""
        return self.models.read(self.name, follow=True)

    def receipt(self) -> Receipt | None:
        return receipts.read_in(self.records, self.patch, self.file) if self.records else None

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


@contextlib.contextmanager
def opened(target: Target, patch: str, file: str, create: bool = False) -> Iterator[Tree]:
    """Lock a target and open its folders; ``create`` makes the one for receipts.

    Raises:
        Failure: another glmpatch did not end in time.
        OSError: a folder is missing, is a link, or may not be opened.
    """
    name = target.records.name
    with contextlib.ExitStack() as stack:
        folder = package = stack.enter_context(locked(target))
        for part in Path(file).parts[1:-1]:
            folder = stack.enter_context(Folder(folder.path / part, folder))
        root = stack.enter_context(Folder(target.root))
        own = name == FOLDER
        if create and own and not root.has(name):
            root.make(name, like=package)
        if own:
            stack.callback(root.remove_if_empty, name)
        records = None
        if root.has(name):
            records = stack.enter_context(Folder(target.records, root))
        yield Tree(target, patch, file, folder, records)
