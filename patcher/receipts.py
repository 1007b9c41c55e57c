"""What was done to a target, as kept beside its metadata. A receipt explains; it never decides."""

from __future__ import annotations

import errno
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from patcher.errors import Exit, Failure
from patcher.folder import NO_FILE, Folder
from patcher.patch import Patch
from patcher.target import Target

RECEIPT_LIMIT = 1_000_000
"""Bytes; a larger file is no receipt of ours."""


FOLDER = ".glmpatch"
"""Holds receipts and originals where there is no metadata folder to hold them."""


@dataclass(frozen=True)
class Receipt:
    """One patch, applied once. ``before`` and ``after`` are sha256 of the whole file."""

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

    def to_json(self) -> bytes:
        return (json.dumps({"schema": 1, **asdict(self)}, indent=2) + "\n").encode()


def names(patch: Patch) -> tuple[str, str]:
    """Names of the original and the receipt of a patch."""
    return f"glmpatch-{patch.id}.original", f"glmpatch-{patch.id}.json"


def read(target: Target, patch: Patch) -> Receipt | None:
    """The receipt of a patch; None where there is none that makes sense.

    Raises:
        Failure: there may be one, and it cannot be read.
    """
    try:
        with Folder(target.root) as root, Folder(target.records, root) as folder:
            return read_in(folder, patch)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Failure(
            Exit.TARGET,
            f"cannot read {error.filename}: {error.strerror}",
            "run as a user who may read the environment of vLLM",
        ) from error


def read_in(folder: Folder, patch: Patch) -> Receipt | None:
    """The same in an open folder.

    Raises:
        OSError: there may be one, and it cannot be read.
    """
    try:
        return parse(folder.read(names(patch)[1]).data, patch)
    except OSError as error:
        if error.errno in (errno.ENOENT, *NO_FILE):
            return None
        raise


def parse(data: bytes, patch: Patch) -> Receipt | None:
    """A receipt as it was written; None for anything else, which is then as good as none."""
    if len(data) > RECEIPT_LIMIT:
        return None
    try:
        fields = json.loads(data)
        if fields.pop("schema") != 1:
            return None
        fields["rewrites"] = tuple(fields["rewrites"])
        receipt = Receipt(**fields)
        texts = [receipt.glmpatch, receipt.time, receipt.vllm or "", *receipt.rewrites]
        sound = (
            (receipt.patch, receipt.file) == (patch.id, patch.file)
            and all(re.fullmatch("[0-9a-f]{64}", each) for each in (receipt.before, receipt.after))
            and all(isinstance(each, str) and each.isprintable() for each in texts)
            and isinstance(receipt.verification, dict | None)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return receipt if sound else None
