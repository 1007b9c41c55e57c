"""Which processes on this machine were started by a test."""

from __future__ import annotations

import contextlib
from pathlib import Path


def started_with(variable: str) -> list[str]:
    """Ids of the processes that run with ``variable`` in their environment, as NAME=VALUE."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if variable.encode() in environ.read_bytes().split(b"\0"):
                found.append(environ.parent.name)
    return found
