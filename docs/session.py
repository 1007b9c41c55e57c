"""Draws ``docs/session.svg`` from commands that it runs in a terminal: ``python -m docs.session``.

They run in a copy of the released environment, which the picture calls /opt/venv.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.readme import as_shown
from tests.support import cache
from tests.support.environment import Environment, copy
from tests.support.terminal import terminal

PICTURE = Path(__file__).with_name("session.svg")
SHOWN = "/opt/venv"
WIDTH = 100
COMMANDS = (
    "glmpatch verify",
    "glmpatch apply --verify",
)
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def typed(command: str, env: Environment) -> str:
    """What a command prints on a terminal, its colours included."""
    text = terminal(
        *command.split()[1:],
        *("--python", str(env.root)),
        env={
            "TERM": "xterm-256color",
            "COLUMNS": str(WIDTH),
            "GLMPATCH_LANG": "en",
            "PATH": os.defpath,
        },
    ).replace("\r\n", "\n")
    # A progress line is overwritten by the next one: carriage return, erase the line.
    return as_shown(re.sub(r"[^\n]*\r\x1b\[2K", "", text), {SHOWN: env})


def session() -> str:
    """The commands and what they print, one after the other in one environment."""
    with tempfile.TemporaryDirectory() as folder:
        env = copy(cache.released(), Path(folder) / "venv")
        shown = [f"$ {each} --python {SHOWN}\n{typed(each, env)}" for each in COMMANDS]
    return "\n".join(shown)


def drawn(text: str) -> str:
    """The picture of it, which needs nothing from a network."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), color_system="truecolor")
    console.print(Text.from_ansi(text), soft_wrap=False, highlight=False)
    svg = console.export_svg(title="glmpatch", unique_id="session")
    svg = re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", FONT)
    svg = re.sub(r"<!-- Generated.*?-->\n?", "", svg)
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(drawn(session()), "utf-8")
