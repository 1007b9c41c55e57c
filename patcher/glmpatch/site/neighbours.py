"""The files beside, which a patched file counts on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from glmpatch.catalogue import Beside, Table
from glmpatch.language import _
from glmpatch.patch import Patch
from glmpatch.site.examination import Examination
from glmpatch.site.folder import read_file
from glmpatch.site.path import must_be_readable, refusal
from glmpatch.site.target import Target
from glmpatch.source import sha256
from glmpatch.source.unreadable import told


def neighbours(target: Target, patch: Patch) -> dict[str, str]:
    """The sha256 of the files beside; empty for one that is not there or is no file."""
    found = {}
    for file in patch.beside(target.version):
        path = target.root / file
        lost = bool(refusal(target.root, path))
        found[file] = "" if lost else sha256(must_be_readable(read_file, path))
    return found


class Unknown(NamedTuple):
    """A file beside that is neither as released nor the same program, and what is wrong with it."""

    file: str
    problem: str


def unknown_neighbour(target: Target, table: Table, found: Examination) -> Unknown | None:
    """The first one beside that is not known; None where all are."""
    for file, digest in found.neighbours.items():
        problem = _problem(target, table.beside(file, target.version), file, digest)
        if problem:
            return Unknown(file, problem)
    return None


def _problem(target: Target, known: Sequence[Beside], file: str, digest: str) -> str:
    if any(each.sha256 == digest for each in known):
        return ""
    if not digest:
        return _("it counts on {file}, which is missing", file=file)
    from glmpatch.site import owner
    from glmpatch.source import form

    data = must_be_readable(read_file, target.root / file)
    try:
        own = form.read(data).digest
    except form.Unreadable as error:
        return _(
            "it counts on {file}, and that is no Python: {reason}",
            file=file,
            reason=told(error.reason),
        )
    if own not in {each.form for each in known}:
        return _("it counts on {file}, which is not as released", file=file)
    reason = owner.refuses(target, data, own)
    if reason or reason is None:
        problem = reason or _(owner.NOBODY_TELLS)
        return _("it counts on {file}, and {problem}", file=file, problem=problem)
    return ""
