"""The picture of the session is what the commands print now; the Chinese page types the same."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from docs.session import COMMANDS, PICTURE, drawn, session
from glmpatch.patches.glm4_residual.patch import PATCH
from tests.support.browser import colors, screenshot
from tests.test_readme import without_figures

ROOT = Path(__file__).resolve().parent.parent
DEFECTS = ROOT / "docs" / "defects.svg"
CHINESE = ROOT / "README.zh.md"


@pytest.mark.real
def test_the_session_is_what_a_terminal_shows() -> None:
    shown = PICTURE.read_text("utf-8")
    now = drawn(session())
    assert without_figures(now) == without_figures(shown), "run python -m docs.session"


def test_the_session_tells_the_error_and_the_proof() -> None:
    text = html.unescape("".join(ElementTree.fromstring(PICTURE.read_text("utf-8")).itertext()))
    text = text.replace("\N{NO-BREAK SPACE}", " ")
    for told in (*COMMANDS, "must be Tensor, not tuple", "FAILED", "passed", "286 of 286"):
        assert told in text, told


@pytest.mark.parametrize("picture", [PICTURE, DEFECTS])
def test_a_picture_needs_no_network(picture: Path) -> None:
    svg = picture.read_text("utf-8")
    ElementTree.fromstring(svg)
    assert set(re.findall(r"https?:[^\s\"')]+", svg)) == {"http://www.w3.org/2000/svg"}


@pytest.mark.real  # the browser is a download
@pytest.mark.parametrize("picture", [PICTURE, DEFECTS])
def test_a_browser_draws_it(picture: Path, tmp_path: Path) -> None:
    screenshot(picture, tmp_path / "drawn.png")
    assert len(colors(tmp_path / "drawn.png")) > 20


def test_the_chinese_page_types_what_the_readme_types() -> None:
    blocks = re.findall(
        r"```(?:sh|dockerfile|text)\n.*?```\n", CHINESE.read_text("utf-8"), re.DOTALL
    )
    assert len(blocks) == 4
    readme = (ROOT / "README.md").read_text("utf-8")
    for block in blocks:
        assert block in readme, block


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_what_a_page_links_to_is_there(name: str) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / name).read_text("utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_diagram_names_every_rewrite() -> None:
    text = DEFECTS.read_text("utf-8")
    assert [each.id for each in PATCH.rewrites if each.id not in text] == []
