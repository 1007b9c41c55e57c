"""The command at a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys


def terminal(*arguments: str, env: dict[str, str] | None = None) -> str:
    """What the command prints where stdin, stdout and stderr are one terminal."""
    ours, theirs = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-m", "glmpatch", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, **(env or {})},
    ):
        os.close(theirs)
        said = b""
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:  # how Linux says that the other end is closed
                break
            if not data:
                break
            said += data
    os.close(ours)
    return said.decode()
