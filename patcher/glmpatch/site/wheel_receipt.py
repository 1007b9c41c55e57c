"""What a repaired wheel says of itself: ``glmpatch.json`` in its dist-info, listed in RECORD.

It is installed with the wheel, so that an environment made from it can tell. Like every receipt it
explains and never decides: the file counts only as long as it has the sha256 that is written here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glmpatch.errors import Exit, Failure
from glmpatch.language import _

NAME = "glmpatch.json"
SCHEMA = 1
LIMIT = 1_000_000
"""Bytes; a larger file is no receipt of ours."""
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Repair:
    """One file repaired by one patch; ``before`` and ``after`` are sha256 of the whole file."""

    patch: str
    file: str
    rewrites: tuple[str, ...]
    before: str
    after: str
    proof: Mapping[str, Any] | None = None
    """What kind of proof the repaired file passed, if any. Nothing that differs from one run to
    the next: the same command gives the same wheel."""


def write(origin: str, digest: str, version: str, repairs: Sequence[Repair]) -> bytes:
    """The receipt of a wheel made from ``origin`` (its name, and its sha256).

    The release of glmpatch is not in it: two that make the same repair make the same wheel.
    """
    patches = [
        {
            "patch": each.patch,
            "file": each.file,
            "rewrites": list(each.rewrites),
            "before": each.before,
            "after": each.after,
            "proof": dict(each.proof) if each.proof is not None else None,
        }
        for each in repairs
    ]
    content = {
        "schema": SCHEMA,
        "version": version,
        "from": {"name": origin, "sha256": digest},
        "patches": patches,
    }
    return (json.dumps(content, indent=2) + "\n").encode()


def read_wheel_receipt(dist_info: Path) -> dict[str, Any] | None:
    """The receipt in a dist-info folder: a dict with ``schema``, ``version``, ``from`` (``name``,
    ``sha256``) and ``patches`` (``patch``, ``file``, ``rewrites``, ``before``, ``after``,
    ``proof``).

    None where there is none.

    Raises:
        Failure: there is one that cannot be read, or that a newer glmpatch wrote.
    """
    path = dist_info / NAME
    try:
        if path.is_symlink() or not path.is_file():
            return None
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failure(
            Exit.TARGET,
            _("cannot read {path}: {error}", path=path, error=error.strerror),
            _("run as a user who may read the environment of vLLM"),
        ) from error
    try:
        return parse(data)
    except ValueError as error:
        raise Failure(
            Exit.TARGET,
            _(
                "{path} is no receipt that this glmpatch can read: {reason}",
                path=path,
                reason=error,
            ),
            _("use the glmpatch that made this wheel or a newer one, or reinstall vLLM"),
        ) from error


def parse(data: bytes) -> dict[str, Any]:
    """A receipt as ``write`` writes it.

    Raises:
        ValueError: it is not.
    """
    if len(data) > LIMIT:
        raise ValueError(_("it has more than {limit:,} bytes", limit=LIMIT))
    try:
        receipt = json.loads(data)
        schema = receipt["schema"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(_("it is not JSON with a schema")) from error
    if schema != SCHEMA:
        problem = _("its schema is {schema!r}, not {known}", schema=schema, known=SCHEMA)
        raise ValueError(problem)
    try:
        origin, patches = receipt["from"], receipt["patches"]
        texts = [receipt["version"], origin["name"]]
        digests = [origin["sha256"]]
        for each in patches:
            texts += [each["patch"], each["file"], *each["rewrites"]]
            digests += [each["before"], each["after"]]
            if not isinstance(each["proof"], dict | None):
                raise TypeError
        sound = all(isinstance(each, str) and each.isprintable() for each in texts)
        if not sound or not all(map(_SHA256.fullmatch, digests)):
            raise TypeError
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(_("a field is missing or makes no sense")) from error
    assert isinstance(receipt, dict)
    return receipt
