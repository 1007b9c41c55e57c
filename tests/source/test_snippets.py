"""Snippets stand for code whatever its layout; their holes keep what they stand for."""

from __future__ import annotations

import libcst as cst
import pytest

from glmpatch.source.edits import apply_edits
from glmpatch.source.snippets import Snippet, replace
from glmpatch.source.tree import argument, dotted

FITS = {
    ("f(X)", "f(a + b)"): {"X": "a + b"},
    ("f(X)", "f(  # why\n    a,\n)"): {"X": "a"},
    ("f(X)", "f(x=a)"): {"X": "a"},
    ("f(x=X)", "f(x=a)"): {"X": "a"},
    ("f(X, ...)", "f(a, b, *c, d=1)"): {"X": "a"},
    ("X + X", "a.b + (a . b)"): {"X": "a.b"},
    ("X = X[0]", "h = h[0]"): {"X": "h"},
    ("A, B = X", "(a, b) = c"): {"A": "a", "B": "b", "X": "c"},
    ("X.dim //= N", "self.rope.dim //= 2"): {"X": "self.rope", "N": "2"},
    ("(CALL := f(X))", "f(a)"): {"CALL": "f(a)", "X": "a"},
    ("f('a')", 'f("a")'): {},
    ("X if T else Y", "(a\n if b else c)"): {"X": "a", "T": "b", "Y": "c"},
    ("return X", "return a"): {"X": "a"},
}
DOES_NOT = [
    ("f(X)", "g(a)"),
    ("f(X)", "f(a, b)"),
    ("f(X)", "f(*a)"),
    ("f(x=X)", "f(y=a)"),
    ("f(x=X)", "f(a)"),
    ("X + X", "a + b"),
    ("X + Y", "a - b"),
    ("X = X[0]", "h = g[0]"),
    ("A, B = X", "a, b, c = d"),
    ("A, B = X", "a, *b = d"),
    ("f('a')", "f('b')"),
    ("f(1)", "f(2)"),
    ("X.dim //= N", "x.dim *= 2"),
    ("X = Y", "x: int = 1"),
    ("x.name", "x.other"),
]


def place(snippet: str, source: str) -> tuple[cst.Module, list[dict[str, str]]]:
    module = cst.parse_module(f"def g():\n    {source}\n")
    return module, [
        {hole: found.name(hole) for hole in found.holes} for found in Snippet(snippet).find(module)
    ]


@pytest.mark.parametrize(("pair", "holes"), FITS.items(), ids=[" ~ ".join(each) for each in FITS])
def test_it_fits(pair: tuple[str, str], holes: dict[str, str]) -> None:
    assert place(*pair)[1] == [holes]


@pytest.mark.parametrize(("snippet", "source"), DOES_NOT)
def test_it_does_not_fit(snippet: str, source: str) -> None:
    assert place(snippet, source)[1] == []


def test_the_first_form_that_fits_is_taken() -> None:
    found = Snippet("f(X)", "Y").match(cst.parse_expression("f(a)"))
    assert found is not None
    assert dict.fromkeys(found.holes) == {"X": None}


def test_what_is_put_in_its_place_keeps_the_comments_of_its_holes() -> None:
    """The others go above the statement."""
    module = cst.parse_module("x = f(  # one\n    [a,  # two\n     b],\n)  # three\n")
    (found,) = Snippet("f(X)").find(module)
    changed = apply_edits(module, replace(found, "g(1, X)"))
    assert changed.code == "# one\nx = g(1, [a,  # two\n     b])  # three\n"


def test_nothing_in_its_place_takes_the_line() -> None:
    module = cst.parse_module("x = 1\ny.dim //= 2\nz = 3\n")
    (found,) = Snippet("X.dim //= N").find(module)
    assert apply_edits(module, replace(found, None)).code == "x = 1\nz = 3\n"


def test_the_quotes_of_an_f_string_make_no_difference() -> None:
    snippet = Snippet('f"{X}.qkv"')
    for text, found in (("f'{prefix}.qkv'", True), ("f'{prefix}.qk'", False), ("'x.qkv'", False)):
        assert (snippet.match(cst.parse_expression(text)) is not None) == found
    assert Snippet('f"{X}.qkv"').match(cst.parse_expression("rf'{prefix}.qkv'")) is None


def test_a_name_is_what_python_reads() -> None:
    """Which takes full-width letters for the plain ones."""
    wide = "self.ｎｏｒｍ(ｘ, ｋ=1)"  # noqa: RUF001
    module = cst.parse_module(f"y = {wide}\n")
    (found,) = Snippet("self.norm(x, k=N)").find(module)
    assert isinstance(found.node, cst.Call)
    assert dotted(found.node.func) == "self.norm"
    assert argument(found.node, 1, "k") is not None
