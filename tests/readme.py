"""``python -m tests.readme``: runs the commands that the README shows, and writes what they print.

A block of the README that follows ``<!-- output: COMMAND -->`` is what COMMAND printed, run after
those above it in a copy of the released environment, which the README calls /opt/venv, or of one
with vLLM built for the CPU, which it calls /opt/vllm-cpu.
``<!-- proofs -->`` stands before the table of what partial repairs compute.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from patcher.target import find_target
from patcher.verify.driver import Candidate, Result, verify
from patches.glm4_residual import PATCH
from tests.support import cache
from tests.support.cpu_engine import cpu_engine
from tests.support.environment import MODEL_FILE, Environment, copy
from tests.support.sources import hand_patches, repaired

README = Path(__file__).parent.parent / "README.md"
SHOWN = ("/opt/venv", "/opt/vllm-cpu")
OUTPUT = re.compile(r"(<!-- output: (.+?) -->\n```\w*\n)(.*?)(```\n)", re.DOTALL)
PROOFS = re.compile(r"(<!-- proofs -->\n)(.*?\n)(\n)", re.DOTALL)


def printed(command: str, environments: Mapping[str, Environment]) -> str:
    """What a command prints, stdout and stderr as they come."""
    shell = command
    for shown, env in environments.items():
        shell = shell.replace(shown, shlex.quote(str(env.root)))
    done = subprocess.run(
        shell.replace("glmpatch", f"{shlex.quote(sys.executable)} -m patcher", 1),
        shell=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    return as_shown(done.stdout, environments)


def as_shown(text: str, environments: Mapping[str, Environment]) -> str:
    """A text that names environments by the names that the pages give them."""
    for shown, env in environments.items():
        text = text.replace(str(env.root), shown)
    return re.sub(r"python3\.\d+", "python3.11", text)


def table(released: Path, source: bytes) -> str:
    """What the numbers say of the released file, partial repairs and the whole one."""
    files = {"as released": source}
    files["only the tuple unpacked, both values bound"] = repaired(source, ("unpack-fused-norm",))
    files |= {
        f"all but `{left_out}`": repaired(
            source, tuple(r.id for r in PATCH.rewrites if r.id != left_out)
        )
        for left_out in ("drop-double-residual", "rotary-dim-once", "interleaved-rope")
    }
    files |= hand_patches(repaired(source))
    files["all four repaired"] = repaired(source)
    candidates = [Candidate(PATCH, name, data) for name, data in files.items()]
    verification = verify(find_target(str(released)), candidates, device="cpu")
    rows = "".join(_row(result) for result in verification.results)
    return (
        "| model file in vLLM 0.8.4 | worst log-probability difference | next token equal |\n"
        "|---|---|---|\n" + rows
    )


def _row(result: Result) -> str:
    if result.crash is not None:
        return f"| {result.file} | `{result.crash['type']}: {result.crash['message']}` | |\n"
    assert result.distance is not None
    away = f"{result.distance:.1f}"
    if result.passed:
        away = f"{result.distance:.1e} (limit {result.limit:.1e})"
    return f"| {result.file} | {away} | {result.equal} of {result.tokens} |\n"


def rewritten(text: str) -> str:
    """The README with every block as the commands print it now."""
    released = cache.released()
    with tempfile.TemporaryDirectory() as folder:
        environments = {
            shown: copy(source, Path(folder) / Path(shown).name)
            for shown, source in zip(SHOWN, (released, cpu_engine()), strict=True)
        }
        source = (environments[SHOWN[0]].site / MODEL_FILE).read_bytes()
        text = OUTPUT.sub(lambda m: m[1] + printed(m[2], environments) + m[4], text)
        return PROOFS.sub(lambda m: m[1] + table(released, source) + m[3], text)


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text("utf-8")), "utf-8")
