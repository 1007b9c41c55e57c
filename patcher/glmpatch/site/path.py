"""Whether a path is one that glmpatch reads and replaces, and that Python would import."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from glmpatch.errors import Exit, Failure
from glmpatch.language import _

_Result = TypeVar("_Result")


def refusal(root: Path, path: Path) -> str:
    """Why this path is none that glmpatch reads and replaces; empty when it is one.

    The file itself may be a link to a regular file (uv and conda link files), the folders between
    the package and it may not: what they lead to belongs to somebody else.

    Raises:
        Failure: it may not be looked at.
    """
    folder = root
    try:
        for part in path.parent.relative_to(root).parts:
            folder = folder / part
            if folder.is_symlink():
                return _("{path} is a symbolic link to another folder", path=folder)
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return _("a link that leads nowhere") if path.is_symlink() else _("the file is missing")
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise unreadable(path, error) from error
        return _("cannot be looked at: {error}", error=error.strerror)
    if not stat.S_ISREG(mode):
        return _("not a regular file")
    hiding = must_be_readable(hidden_by, path)
    return _("Python imports {path} in its place", path=hiding) if hiding else ""


def hidden_by(path: Path) -> Path | None:
    """What Python prefers to a source file: a package or an extension module of its name.

    Source: ``importlib.machinery.FileFinder``, which looks for a package first, then for the
    suffixes of extension modules, then for ``.py``.

    Raises:
        OSError: the folder cannot be looked into.
    """
    package = path.with_suffix("")
    if package.is_dir():
        inside = os.listdir(package)
        modules = (f"__init__{suffix}" for suffix in (".py", ".pyc"))
        if any(name in inside for name in modules) or _extensions(package, "__init__", inside):
            return package
    return next(iter(_extensions(path.parent, path.stem, os.listdir(path.parent))), None)


EXTENSION = re.compile(r"(\.(abi3|(cpython|pypy|graalpy)[\w-]*))?\.(so|pyd)")
"""What follows the name of an extension module, of whatever Python: PEP 3149 and 384."""


def _extensions(folder: Path, stem: str, names: list[str]) -> list[Path]:
    """The files that some Python takes for an extension module of this name."""
    return [
        folder / name
        for name in sorted(names)
        if name.startswith(f"{stem}.")
        if EXTENSION.fullmatch(name, len(stem)) and (folder / name).is_file()
    ]


def must_be_readable(read: Callable[[Path], _Result], path: Path) -> _Result:
    """What ``read`` gives.

    Raises:
        Failure: the file is there and may not be read.
    """
    try:
        return read(path)
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> Failure:
    return Failure(
        Exit.TARGET,
        _("cannot read {path}: {error}", path=path, error=error.strerror),
        _("run as a user who may read the environment of vLLM"),
    )
