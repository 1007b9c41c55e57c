"""Asks the interpreter that owns a vLLM whether it reads the same program in a file.

It may be older than the tool's own: an f-string can be a program to the one and a syntax error to
the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from glmpatch.language import N_, _
from glmpatch.site.target import Target
from glmpatch.source import form
from glmpatch.source.unreadable import told

SECONDS = 60.0
NOBODY_TELLS = N_("no interpreter is known that could tell whether it compiles")


def refusal(python: Path, data: bytes, digest: str) -> str | None:
    """Why that interpreter does not read the program with this form; empty where it does.

    None where it cannot be asked.
    """
    if os.path.realpath(python) == os.path.realpath(sys.executable):
        return ""
    try:
        done = subprocess.run(
            [str(python), "-I", "-B", form.__file__],
            input=data,
            capture_output=True,
            timeout=SECONDS,
        )
        answer = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    if "unreadable" in answer:
        reason, line = told(answer["unreadable"]), answer.get("line")
        return _("{reason} (line {line})", reason=reason, line=line) if line else reason
    return "" if answer.get("form") == digest else _("another program")


def refuses(target: Target, data: bytes, digest: str) -> str | None:
    """Why the interpreter that owns vLLM reads another program, or none; empty if it does not.

    None where nobody tells.
    """
    said = refusal(target.python, data, digest) if target.python else None
    return said and _(
        "the Python that owns this vLLM ({python}) reads it otherwise: {reason}",
        python=target.python,
        reason=said,
    )
