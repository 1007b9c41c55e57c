"""Why a source cannot be read, in the language of the user.

``form.py`` knows nothing of glmpatch, since the interpreter that owns vLLM runs it alone; so what
it says is English, and is told anew here.
"""

from __future__ import annotations

from glmpatch.language import N_, retold

REASONS = (
    N_("syntax error: {error}"),
    N_("nested too deeply"),
    N_("the file is empty"),
    N_("too large: {size} bytes"),
    N_("a NUL byte"),
    N_("not a Python source: {error}"),
    N_("an integer of more than 4,000 digits"),
    N_("a form feed or lone carriage return, which would not survive"),
    N_("it cannot be written in its own encoding: {error}"),
    N_("not in its encoding: {error}"),
    N_("not {encoding}: {error}"),
)
"""What ``Unreadable`` says; the first that fits is meant."""


def told(reason: str) -> str:
    """The reason of an Unreadable, or of one in another interpreter."""
    return retold(reason, REASONS)
