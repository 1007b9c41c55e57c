"""The pages say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from docs.generate import PAGE, page
from patcher.patch import load_patches
from patcher.rewriting import make_plan
from patches.glm_rope import PATCH

ROOT = Path(__file__).resolve().parent.parent


def test_the_page_of_the_patches_is_not_stale() -> None:
    assert PAGE.read_text("utf-8") == page(), "run python -m docs.generate"


def test_the_page_holds_every_patch_and_every_cell() -> None:
    text = PAGE.read_text("utf-8")
    for patch in load_patches():
        assert f"\n## {patch.id}\n" in text
        for rewrite in patch.rewrites:
            assert f"- `{rewrite.id}`: {rewrite.title}\n" in text
    assert "\n| 0.8.4 | **needed** | **needed** | **needed** |\n" in text


def test_the_files_that_the_guide_names_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = set(re.findall(r"`((?:patches|patcher|tests|docs)/[\w./]+)`", text))
    assert {"patches/glm_rope.py", "tests/patches/test_glm_rope.py"} <= named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_names_that_the_guide_uses_are_those_of_the_example() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    source = (ROOT / "patches" / "glm_rope.py").read_text("utf-8")
    for name in ("keep_rope_width", "llama_takes_the_factor", PATCH.rewrites[0].id):
        assert name in text
        assert name in source
    assert make_plan.__name__ in text
