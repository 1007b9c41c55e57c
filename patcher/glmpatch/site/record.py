"""Pure: the lines that glmpatch puts into RECORD, so that uninstalling vLLM removes its files.

They go in front. What was there stays as it is, a missing last line end included, and taking our
lines away gives back the very same bytes.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Mapping


def with_files(record: bytes, files: Mapping[str, bytes]) -> bytes:
    """RECORD with these files (name as RECORD has it -> content), each listed once."""
    rest = without_files(record, files)
    end = b"\r\n" if rest.partition(b"\n")[0].endswith(b"\r") else b"\n"
    lines = []
    for name, content in files.items():
        digest = urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}".encode() + end)
    return b"".join(lines) + rest


def without_files(record: bytes, names: Collection[str]) -> bytes:
    """RECORD without the lines of these files; the other lines unchanged."""
    ours = tuple(f"{name},".encode() for name in names)
    return b"".join(line for line in record.splitlines(True) if not line.startswith(ours))


def released(record: bytes, name: str) -> str:
    """The sha256 of a file as it was released, in hexadecimal; empty where RECORD has none."""
    for line in record.splitlines():
        if line.startswith(f"{name},sha256=".encode()):
            digest = line.decode().split(",")[-2].partition("=")[2]
            try:
                return urlsafe_b64decode(digest + "=" * (-len(digest) % 4)).hex()
            except ValueError:
                return ""
    return ""
