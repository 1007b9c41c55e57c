"""How wide a text is on a terminal, and where its lines may end: Chinese characters take two
columns each, and a line may end between any two of them."""

from __future__ import annotations

CLOSING = ("Pe", "Pf", "Po")
"""Categories of Unicode that no line begins with: brackets and quotes that close, full stops."""
OPENING = ("Ps", "Pi")
"""Categories that no line ends with: brackets and quotes that open."""


def columns(text: str) -> int:
    """The columns that a text takes."""
    return len(text) if text.isascii() else sum(map(_width, text))


def is_wide(text: str) -> bool:
    """Whether a text has a character of two columns."""
    return not text.isascii() and any(_width(each) == 2 for each in text)


def padded(text: str, width: int, right: bool = False) -> str:
    """A text with blanks up to so many columns: after it, or before it."""
    blanks = " " * (width - columns(text))
    return blanks + text if right else text + blanks


def wrap(text: str, width: int) -> list[str]:
    """The lines of a paragraph; a word that is too long for one, such as a path, stays whole."""
    if not is_wide(text):
        import textwrap

        return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    lines: list[str] = []
    line = ""
    for blank, unit in _units(text):
        if line and columns(line + blank + unit) > width:
            lines.append(line)
            line = unit
        else:
            line += blank + unit if line else unit
    return [*lines, line]


def _units(text: str) -> list[tuple[str, str]]:
    """What stays on one line, each with the blank before it."""
    units: list[tuple[str, str]] = []
    for word in text.split():
        blank = " " if units else ""
        if blank and _width(units[-1][1][-1]) == _width(word[0]) == 2:
            blank = ""  # the end of a line in the source
        unit = ""
        for each in word:
            if unit and _may_end(unit[-1], each):
                units.append((blank, unit))
                blank, unit = "", ""
            unit += each
        units.append((blank, unit))
    return units


def _may_end(before: str, after: str) -> bool:
    """Whether a line may end between two characters with no blank between them."""
    from unicodedata import category

    wide = _width(before) == 2 or _width(after) == 2
    return wide and category(before) not in OPENING and category(after) not in CLOSING


def _width(character: str) -> int:
    from unicodedata import combining, east_asian_width

    if combining(character):
        return 0
    return 2 if east_asian_width(character) in "WF" else 1
