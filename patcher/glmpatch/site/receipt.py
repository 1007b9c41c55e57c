"""What was done to a target, and what was proven of it, as kept beside its metadata.

A receipt is trusted as far as the permissions of that folder go, and for the one file whose sha256
it names; for any other file it means nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from glmpatch.errors import Exit, Failure
from glmpatch.language import _
from glmpatch.site.folder import NO_FILE, Folder
from glmpatch.site.target import Target

LIMIT = 1_000_000
"""Bytes; a larger file is no receipt of ours."""
SCHEMA = 2
DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Receipt:
    """One patch on one file. ``before`` and ``after`` are sha256 of the whole file.

    They are equal where nothing was changed: the file was proven right as it stands. ``full``
    says that the proof was narrowed by no option; it holds for that file beside ``neighbours``
    (file -> sha256) and for the versions that ``verification`` names.
    """

    patch: str
    file: str
    rewrites: tuple[str, ...]
    before: str
    after: str
    vllm: str | None
    glmpatch: str
    time: str
    """UTC, ISO 8601."""
    verification: dict[str, Any] | None
    neighbours: Mapping[str, str] = field(default_factory=dict)
    full: bool = False

    def to_json(self) -> bytes:
        return (json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2) + "\n").encode()

    def proves(self, digest: str, neighbours: Mapping[str, str], target: Target) -> bool:
        """Whether it is a full proof of this very file, beside these, with what is installed."""
        if not self.full or self.verification is None or self.after != digest:
            return False
        measured = self.verification.get("versions")
        there = {"torch": target.torch, "transformers": target.transformers}
        return (
            dict(self.neighbours) == dict(neighbours)
            and self.vllm == target.version
            and isinstance(measured, dict)
            and all(_public(measured.get(name)) == _public(there[name]) for name in there)
        )


_NAMES = frozenset(each.name for each in fields(Receipt))
FIELDS: Mapping[int, frozenset[str]] = {1: _NAMES - {"neighbours", "full"}, SCHEMA: _NAMES}
"""By schema; the first one is that of glmpatch 0.1.0."""


def _public(version: object) -> str:
    return str(version).partition("+")[0]


def names(patch: str) -> tuple[str, str]:
    """Names of the original and the receipt of a patch."""
    return f"glmpatch-{patch}.original", f"glmpatch-{patch}.json"


def read(target: Target, patch: str, file: str) -> Receipt | None:
    """The receipt of a patch; None where there is none.

    Raises:
        Failure: there is one, and it cannot be read.
    """
    try:
        with Folder(target.root) as root, Folder(target.records, root) as folder:
            return read_in(folder, patch, file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Failure(
            Exit.TARGET,
            _("cannot read {path}: {error}", path=error.filename, error=error.strerror),
            _("run as a user who may read the environment of vLLM"),
        ) from error


def read_in(folder: Folder, patch: str, file: str) -> Receipt | None:
    """The same in an open folder.

    Raises:
        Failure: there is one that this glmpatch does not understand.
        OSError: there may be one, and it cannot be read.
    """
    name = names(patch)[1]
    try:
        data = folder.read(name).data
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in NO_FILE:
            reason = _("it is no file of ours ({error})", error=error.strerror)
            raise unreadable(folder.path / name, reason) from error
        raise
    found = parse(data, patch, file)
    if isinstance(found, str):
        raise unreadable(folder.path / name, found)
    return found


def unreadable(path: Path, reason: str) -> Failure:
    return Failure(
        Exit.DRIFT,
        _(
            "{path} is a receipt that this glmpatch cannot read: {reason}; nothing was changed",
            path=path,
            reason=reason,
        ),
        _(
            "use the glmpatch that wrote it, or a newer one, or "
            "reinstall this vLLM; else remove the receipt by hand: the file as it was before the "
            "patch is {original}, if that is there",
            original=path.with_suffix(".original"),
        ),
    )


def parse(data: bytes, patch: str, file: str) -> Receipt | str:
    """A receipt as it was written, by this glmpatch or by 0.1.0; or why it is none."""
    if len(data) > LIMIT:
        return _("it has {count} bytes", count=len(data))
    try:
        found = json.loads(data)
        schema = found.pop("schema")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _("it is no JSON object with a schema")
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        return _(
            "its schema is {schema}, and this glmpatch knows 1 to {last}",
            schema=ascii(schema)[:20],
            last=SCHEMA,
        )
    if found.keys() != FIELDS[schema]:
        return _("its fields are not those of schema {schema}", schema=schema)
    try:
        found["rewrites"] = tuple(found["rewrites"])
        receipt = Receipt(**found)
        texts = [receipt.glmpatch, receipt.time, receipt.vllm or "", *receipt.rewrites]
        sound = (
            all(DIGEST.fullmatch(each) for each in (receipt.before, receipt.after))
            and all(isinstance(each, str) and each.isprintable() for each in texts)
            and isinstance(receipt.verification, dict | None)
            and isinstance(receipt.neighbours, dict)
            and all(isinstance(each, str) for each in receipt.neighbours.values())
            and isinstance(receipt.full, bool)
        )
    except TypeError:
        sound = False
    if not sound:
        return _("its fields make no sense")
    if (receipt.patch, receipt.file) != (patch, file):
        of, about = ascii(receipt.patch)[:60], ascii(receipt.file)[:120]
        return _("it is of {patch} and {file}", patch=of, file=about)
    return receipt
