"""What was done to a target, as kept beside its metadata. A receipt explains; it never decides."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from patcher.patch import Patch
from patcher.target import Target

SIZE_LIMIT = 1_000_000
"""Bytes; a larger file is no receipt of ours."""


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
    record_newline: bool = False
    """Whether RECORD lacked its last line end, which revert must take away again."""

    def to_json(self) -> bytes:
        return (json.dumps({"schema": 1, **asdict(self)}, indent=2) + "\n").encode()


def receipt_path(target: Target, patch: Patch) -> Path:
    return target.records / f"glmpatch-{patch.id}.json"


def original_path(target: Target, patch: Patch) -> Path:
    return target.records / f"glmpatch-{patch.id}.original"


def read(target: Target, patch: Patch) -> Receipt | None:
    """The receipt of a patch; None where there is none that makes sense."""
    path = receipt_path(target, patch)
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > SIZE_LIMIT:
            return None
        fields = json.loads(path.read_bytes())
        if fields.pop("schema") != 1:
            return None
        fields["rewrites"] = tuple(fields["rewrites"])
        receipt = Receipt(**fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    texts = (receipt.patch, receipt.file, receipt.before, receipt.after)
    if not all(isinstance(each, str) for each in texts) or receipt.patch != patch.id:
        return None
    return receipt
