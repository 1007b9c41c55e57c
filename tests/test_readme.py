"""The README shows what the commands print."""

from __future__ import annotations

import re

import pytest

from glmpatch.catalogue import load_patches
from tests.readme import PAGES, README, rewritten, with_symptoms


def without_figures(text: str) -> str:
    """Figures differ from one processor to the next, in their last digits."""
    figures = r"\b\d+(?:\.\d+)?e-\d\d\b|\b\d+ of \d+\b|\b\d+\.\d+\b"
    return re.sub(" +", " ", re.sub(figures, "#", text))


def test_the_pages_lead_from_the_error_to_the_command_for_every_patch() -> None:
    for page, language, head in PAGES:
        text = page.read_text("utf-8")
        assert with_symptoms(text, language, head) == text, "out of date: python -m tests.readme"
        for patch in load_patches():
            assert f"`glmpatch apply {patch.id} --verify`" in text


@pytest.mark.real
def test_the_readme_shows_what_the_commands_print() -> None:
    text = README.read_text("utf-8")
    assert text.count("<!-- output:") >= 6
    assert without_figures(rewritten(text)) == without_figures(text), (
        "the README is out of date: python -m tests.readme"
    )
