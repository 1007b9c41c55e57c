"""The README shows what the commands print."""

from __future__ import annotations

import re

from tests.readme import README, rewritten


def without_figures(text: str) -> str:
    """Figures differ from one processor to the next, in their last digits."""
    figures = r"\d\.\de-\d\d|\b\d+ of (?:87|166)\b|\b\d+\.\d\b(?= \|)"
    return re.sub(figures, "#", text)


def test_the_readme_shows_what_the_commands_print() -> None:
    text = README.read_text("utf-8")
    assert text.count("<!-- output:") >= 6
    assert without_figures(rewritten(text)) == without_figures(text), (
        "the README is out of date: python -m tests.readme"
    )
