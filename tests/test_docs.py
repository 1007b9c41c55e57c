"""The pages say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import manual
from docs.generate import PAGE, page
from glmpatch.catalogue import load_patches
from glmpatch.command.cli import cli
from glmpatch.command.help import TOLD
from glmpatch.errors import Exit
from glmpatch.patches.glm_rope.patch import PATCH
from tests.support.man import man

ROOT = Path(__file__).resolve().parent.parent


def test_the_page_of_the_patches_is_not_stale() -> None:
    assert PAGE.read_text("utf-8") == page(), "run python -m docs.generate"


def test_the_page_holds_every_patch_and_every_cell() -> None:
    text = PAGE.read_text("utf-8")
    for patch in load_patches():
        assert f"\n## {patch.id}\n" in text
        for rewrite in patch.rewrites:
            only = f" (vLLM {rewrite.versions})" if rewrite.versions else ""
            assert f"- `{rewrite.id}`: {rewrite.title}{only}\n" in text
    (row,) = (line for line in text.splitlines() if line.startswith("| 0.8.4 | "))
    needed = [p for p in load_patches() if p.covers("0.8.4")]
    assert row.count("**needed**") == len(needed) == 3


def test_the_manual_page_is_not_stale() -> None:
    assert manual.PAGE.read_text("utf-8") == manual.page(), "run python -m docs.generate"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_manual_page_is_read_without_a_warning_and_holds_everything(width: int) -> None:
    done = man(
        *("man", "--warnings=w", "--no-hyphenation", "--local-file", str(manual.PAGE)),
        env={"MANWIDTH": str(width), "LC_ALL": "C.UTF-8"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= width
    read = " ".join(done.stdout.split())
    for command in cli.commands.values():
        assert f" glmpatch {command.name}" in read
        assert all(option.opts[-1] in read for option in command.params if "-" in option.opts[-1])
    assert all(line in read for told in TOLD.values() for line in told.examples)
    assert all(f" {int(code)} " in read for code in Exit)


def test_the_manual_page_introduces_itself_to_whatis() -> None:
    done = man("lexgrog", str(manual.PAGE))
    assert '"glmpatch - repair GLM models in an installed vLLM' in done.stdout, done


def test_the_files_that_the_guide_names_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = set(re.findall(r"`((?:patches|patcher|tests|docs)/[\w./]+)`", text))
    named = {name for name in named if "NAME" not in name}
    assert {"patches/glm_rope/patch.py", "tests/patches/test_glm_rope.py"} <= named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_names_that_the_guide_uses_are_those_of_the_example() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    folder = ROOT / "patches" / "glm_rope"
    source = "".join((folder / name).read_text("utf-8") for name in ("patch.py", "rewrites.py"))
    for name in ("keep_rope_width", "HALVING", PATCH.rewrites[0].id):
        assert name in text
        assert name in source
