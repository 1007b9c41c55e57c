"""Bytecode of a source that was changed: no Python may take it for that of the new one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import source_hash
from pathlib import Path

from glmpatch.site.folder import File, Folder, read_file

UNCHECKED = (1).to_bytes(4, "little")
"""The flags of bytecode with the hash of its source, which is not held against that source."""


def remove(models: Folder, name: str, source: File) -> None:
    """Remove the compiled forms of a file; what stays, no Python takes for ``source``.

    Args:
        models: the folder of the file.
        name: of the file.
        source: what stands there, or is about to.

    Raises:
        OSError: one cannot be removed, and would be run.
    """
    for folder in _caches(models, name):
        for each in _compiled(folder.names(), name):
            try:
                folder.remove(each)
            except OSError:
                if not _rejected(folder.read(each).data, source):
                    raise


def in_place_of(path: Path) -> Path | None:
    """The compiled form that a Python runs in place of a source.

    One that is not checked against its source (PEP 552), and was compiled from another one. What
    goes by size and time of the source is trusted, as Python does.

    Raises:
        OSError: one cannot be read.
    """
    cache = path.parent / "__pycache__"
    try:
        names = sorted(os.listdir(cache))
    except (FileNotFoundError, NotADirectoryError):
        return None
    for each in _compiled(names, path.name):
        if not (cache / each).is_file():
            continue
        try:
            with open(cache / each, "rb") as file:
                head = file.read(16)
        except FileNotFoundError:
            # Another glmpatch, which changes the source, takes it away first.
            continue
        if head[4:8] == UNCHECKED and head[8:16] != source_hash(read_file(path)):
            return cache / each
    return None


def _caches(models: Folder, name: str) -> Iterator[Folder]:
    """The folders in which Python keeps bytecode of the file."""
    beside = models.path / "__pycache__"
    try:
        with Folder(beside, models) as folder:
            yield folder
    except FileNotFoundError:
        pass
    except OSError:
        # Python would follow a link to a folder; we do not.
        if os.path.isdir(beside) and _compiled(os.listdir(beside), name):
            raise
    prefix = os.environ.get("PYTHONPYCACHEPREFIX") or sys.pycache_prefix
    if prefix:
        for path in {models.path, models.path.resolve()}:
            try:
                elsewhere = Folder(Path(prefix, *path.parts[1:]))
            except (FileNotFoundError, NotADirectoryError):
                continue
            with elsewhere:
                yield elsewhere


def _compiled(names: list[str], name: str) -> list[str]:
    """The names of the file's bytecode, of whatever Python."""
    stem = f"{Path(name).stem}."
    return [each for each in names if each.startswith(stem) and each.endswith(".pyc")]


def _rejected(bytecode: bytes, source: File) -> bool:
    """Whether Python sees by itself that this is not compiled from ``source`` (PEP 552)."""
    flags = int.from_bytes(bytecode[4:8], "little")
    if flags == 0:
        words = (int(source.status.st_mtime), len(source.data))
        return bytecode[8:16] != b"".join((w & 0xFFFFFFFF).to_bytes(4, "little") for w in words)
    return flags == 0b11 and bytecode[8:16] != source_hash(source.data)
