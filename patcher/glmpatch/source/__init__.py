"""Text only: what a source is, and what it becomes. Touches no file."""

import hashlib


def sha256(data: bytes) -> str:
    """The sha256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
