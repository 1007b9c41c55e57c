"""A text as people paste it, without what terminals, web pages and JSON did to it."""

from __future__ import annotations

import re

COLOURS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
"""Of no width: web pages and chats put them where a line may end."""
ESCAPED = re.compile(r"\\u00([2-7][0-9a-fA-F])")
"""What JSON makes of quotes and angle brackets."""
ENTITY = re.compile(r"&(#0*39|#x27|#0*34|#x22|apos|quot|lt|gt);", re.IGNORECASE)
ENTITIES = {"lt": "<", "gt": ">"}
"""The others are quotes, which are all alike."""
QUOTES = re.compile(
    r"\\*[`'\"\u00b4\u00ab\u00bb\u2018-\u201f\u300c-\u300f\uff02\uff07]"  # curly, CJK, full width
)


def clean(text: str) -> str:
    """The characters that were meant; lines stay."""
    text = INVISIBLE.sub("", COLOURS.sub("", text))
    text = ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
    return ENTITY.sub(lambda found: ENTITIES.get(found[1].lower(), "'"), text)


def plain(text: str) -> str:
    """Without what differs from one server to the next: case, quotes, white space."""
    return " ".join(QUOTES.sub("", text.lower()).split())
