"""A large source is cut between lines, and only where the part means the same alone."""

from __future__ import annotations

import pytest

from glmpatch.source.window import cut, whole

SOURCE = b"""\
import sys

TABLE = {"a": 1}
other = 2


@decorate
def function():
    return TABLE  # why

# below
class Last:
    pass
"""
FUNCTION = b"@decorate\ndef function():\n    return TABLE  # why\n"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["function"], FUNCTION),
        (["function", "missing"], FUNCTION),
        (["TABLE"], b'TABLE = {"a": 1}\n'),
        (["Last"], b"class Last:\n    pass\n"),
        (["Last", "function"], FUNCTION + b"\n# below\nclass Last:\n    pass\n"),
        (["missing"], SOURCE),
        ([], SOURCE),
    ],
)
def test_from_the_first_to_the_last_definition(names: list[str], expected: bytes) -> None:
    window = cut(SOURCE, names)
    assert window.source == expected
    assert window.above + window.source + window.below == SOURCE
    assert window.offset == SOURCE[: SOURCE.index(expected)].count(b"\n")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_kind_of_line_end(end: bytes) -> None:
    source = SOURCE.replace(b"\n", end)
    window = cut(source, ["function"])
    assert window.source == FUNCTION.replace(b"\n", end)
    assert b"".join(window) == source


@pytest.mark.parametrize(
    "source",
    [
        b"\xef\xbb\xbf" + SOURCE,
        b"# -*- coding: latin-1 -*-\n" + SOURCE,
        b"#!/usr/bin/python\n# vim: set fileencoding=latin-1 :\n" + SOURCE,
        SOURCE + b"def (:\n",
        SOURCE + b"\0",
        b"\xff\n" + SOURCE,
        b"",
    ],
)
def test_what_could_be_read_otherwise_alone_stays_whole(source: bytes) -> None:
    assert cut(source, ["function"]) == (b"", source, b"")


@pytest.mark.parametrize(
    ("source", "below"),
    [
        (b"x = 1\n", b""),
        (b"x = 1", b""),
        (b"x = 1  \n", b""),
        (b"x = 1\n\n  \n", b"\n  \n"),
        (b"x = 1\r\n\r\n ", b"\r\n "),
        (b"x = 1  # a\n\t", b"\t"),
        (b"", b""),
        (b"\n\n", b"\n"),
    ],
)
def test_blank_lines_at_the_end_stay_out(source: bytes, below: bytes) -> None:
    assert whole(source) == (b"", source[: len(source) - len(below)], below)
