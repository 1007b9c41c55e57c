"""A staged file takes the place of the model file; and what a user is told where it cannot."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from glmpatch.errors import Exit, Failure
from glmpatch.language import N_, _
from glmpatch.site import bytecode
from glmpatch.site.folder import File, staged_name
from glmpatch.site.opened import Tree

HINTS = {
    errno.ENOSPC: N_("make room on that disk, then run glmpatch again"),
    errno.EDQUOT: N_("make room in that quota, then run glmpatch again"),
    errno.EROFS: N_(
        "the file system is read-only: run glmpatch where it is writable, such as in a Dockerfile"
    ),
    errno.EBUSY: N_(
        "if the file is mounted on its own, such as with docker run -v, patch the vLLM that it "
        "comes from"
    ),
    errno.ENOENT: N_("reinstall vLLM if it is not whole, then run glmpatch again"),
    errno.ENOTDIR: N_(
        "a link or a file stands where a folder should be: run glmpatch on the vLLM that the link "
        "leads to"
    ),
    errno.EIO: N_("look at the health of that disk, then run glmpatch again"),
}
OTHERWISE = N_("run as the user who owns the environment of vLLM")


def swap(tree: Tree, expected: bytes) -> None:
    """The staged file takes the place of the model file, and no old bytecode can stand in for it.

    Bytecode goes first: where it cannot be removed, the source must not change either.
    """
    staged = tree.models.read(staged_name(tree.name))
    bytecode.remove(tree.models, tree.name, staged)
    if tree.model().data != expected:
        raise changed_meanwhile(tree.models.path / tree.name)
    tree.models.put(tree.name)


def settle(tree: Tree, expected: bytes) -> None:
    """After the swap: bytecode that an import compiled in between goes; then look again."""
    tree.models.sync()
    model = tree.model()
    bytecode.remove(tree.models, tree.name, model)
    if model.data != expected:
        raise Failure(
            Exit.TARGET,
            _(
                "{path} was changed by somebody else right after glmpatch changed it",
                path=tree.models.path / tree.name,
            ),
            _("run glmpatch status"),
        )


@contextlib.contextmanager
def as_failure(path: Path, tree: Tree | None = None, before: File | None = None) -> Iterator[None]:
    """An error of the system as a message; one that is true of the model file as it is now."""
    try:
        yield
    except OSError as error:
        raise Failure(
            Exit.TARGET,
            _(
                "cannot change {path}: {error}; {now}",
                path=error.filename or path,
                error=error.strerror,
                now=_now(tree, before),
            ),
            _(HINTS.get(error.errno or 0, OTHERWISE)),
        ) from error


def _now(tree: Tree | None, before: File | None) -> str:
    if tree is None or before is None:
        return _("nothing was changed")
    try:
        changed = tree.model().data != before.data
    except OSError as error:
        return _("and the model file cannot be read now: {error}", error=error.strerror)
    if changed:
        return _("the model file is changed already, run the same command again to finish")
    return _("the model file is as it was")


def changed_meanwhile(path: Path) -> Failure:
    return Failure(
        Exit.TARGET,
        _("{path} was changed by somebody else in the meantime; nothing was written", path=path),
        _("run glmpatch again"),
    )
