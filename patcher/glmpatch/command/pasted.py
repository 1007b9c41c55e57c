"""A server's log from standard input, however long it is and whatever wrote it."""

from __future__ import annotations

import codecs
from typing import BinaryIO

MEGABYTE = 2**20
KEPT = 4 * MEGABYTE
"""Bytes of the beginning, and of the end: a server fails when it starts, or last of all."""
BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",  # what PowerShell's > writes
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def read(stream: BinaryIO, kept: int = KEPT) -> tuple[str, int]:
    """The beginning and the end of a log, and how many bytes between them were left out."""
    head = stream.read(kept)
    tail, left_out = b"", 0
    while chunk := stream.read(kept):
        tail += chunk
        over = max(0, len(tail) - kept)
        tail, left_out = tail[over:], left_out + over
    encoding = next((BOMS[bom] for bom in BOMS if head.startswith(bom)), "utf-8")
    if not left_out:
        return (head + tail).decode(encoding, "replace"), 0
    # What stands on both sides of the gap is no sentence.
    return "\n".join(part.decode(encoding, "replace") for part in (head, tail)), left_out
