"""Edits change their place alone, laid out as what stands around it."""

from __future__ import annotations

import libcst as cst
import pytest

from glmpatch.source import edits as editing
from glmpatch.source import tree as reading


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("f(a)", "f(a, k=False)"),
        ("f()", "f(k=False)"),
        ("f(a,)", "f(a, k=False,)"),
        ("f(a, b = 1)", "f(a, b = 1, k = False)"),
        ("f(\n    a,\n    b,\n)", "f(\n    a,\n    b,\n    k=False,\n)"),
        ("f(\n    a,\n    b\n)", "f(\n    a,\n    b,\n    k=False\n)"),
        ("f(a,\n  b)", "f(a,\n  b,\n  k=False)"),
        (
            "f(\n    a,  # one\n    b,  # two\n)",
            "f(\n    a,  # one\n    b,  # two\n    k=False,\n)",
        ),
        ("f(\n    a,\n    # last\n    b,\n)", "f(\n    a,\n    # last\n    b,\n    k=False,\n)"),
        ("f(\n    a\n)", "f(\n    a,\n    k=False\n)"),
    ],
)
def test_a_keyword_is_laid_out_as_the_other_arguments(before: str, after: str) -> None:
    module = cst.parse_module(f"x = {before}\n")
    call = next(node for node in reading.walk(module) if isinstance(node, cst.Call))
    changed = editing.apply_edits(module, {call: editing.add_keyword(call, "k", "False")})
    assert changed.code == f"x = {after}\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\ngone()\nb\n", "a\nb\n"),
        ("a\n# kept\ngone()\nb\n", "a\n# kept\nb\n"),
        ("a\n\ngone()\n\n# kept\nb\n", "a\n\n\n# kept\nb\n"),
        ("a; gone(); b\n", "a; b\n"),
        ("a; gone()\n", "a\n"),
        ("if a:\n    b\n    gone()\nc\n", "if a:\n    b\nc\n"),
        ("if a:\n    b\n    # kept\n    gone()\nc\n", "if a:\n    b\n    # kept\nc\n"),
        ("a\ngone()  # goes with it\nb\n", "a\nb\n"),
    ],
)
def test_a_statement_goes_with_its_line_and_no_other(before: str, after: str) -> None:
    assert without_calls(before, 1) == after


def without_calls(source: str, most: int | None = None) -> str:
    """The source once the statements that are calls, or the first of them, are removed."""
    module = cst.parse_module(source)
    every = [node for node in reading.walk(module) if isinstance(node, cst.Expr)]
    gone = [node for node in every if isinstance(node.value, cst.Call)][:most]
    assert gone
    return editing.apply_edits(module, dict.fromkeys(gone)).code


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("if a: gone()\n", "if a: pass\n"),
        ("if a: b; gone()\n", "if a: b\n"),
        ("if a: gone(); b\n", "if a: b\n"),
        ("if a: gone(); gone()\n", "if a: pass\n"),
        ("if a:\n    gone()\n", "if a:\n    pass\n"),
        ("if a:\n    # kept\n    gone()\nc\n", "if a:\n    # kept\n    pass\nc\n"),
        ("with a:\n    gone(); gone()\n", "with a:\n    pass\n"),
        ("try:\n    gone()\nfinally:\n    b\n", "try:\n    pass\nfinally:\n    b\n"),
    ],
)
def test_a_block_is_never_left_empty(before: str, after: str) -> None:
    assert without_calls(before) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = (a  # why\n     + gone)\n", "# why\nx = a\n"),
        (
            "# kept\nx = (a + # why\n     # and how\n     gone)\n",
            "# kept\n# why\n# and how\nx = a\n",
        ),
        ("b; x = (a  # why\n     + gone)\n", "# why\nb; x = a\n"),
        ("if b: x = (a  # why\n     + gone)\n", "# why\nif b: x = a\n"),
        ("if (a  # why\n        + gone):\n    b\n", "# why\nif a:\n    b\n"),
        (
            "if b:\n    c\nelif (a  # why\n        + gone):\n    b\n",
            "if b:\n    c\n# why\nelif a:\n    b\n",
        ),
        (
            "if b:\n    x = (a  # why\n         + gone)  # kept\n",
            "if b:\n    # why\n    x = a  # kept\n",
        ),
    ],
)
def test_comments_of_what_is_replaced_go_above_its_statement(before: str, after: str) -> None:
    module = cst.parse_module(before)
    whole = next(n for n in reading.walk(module) if isinstance(n, cst.BinaryOperation))
    assert editing.apply_edits(module, {whole: cst.Name("a")}).code == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\ngone(  # why\n)  # goes with it\nb\n", "a\n# why\nb\n"),
        ("a; gone(  # why\n)\n", "# why\na\n"),
        ("if b: gone(  # why\n)\n", "# why\nif b: pass\n"),
        ("if b:\n    gone(  # why\n    )\nc\n", "if b:\n    # why\n    pass\nc\n"),
        ("if b:\n    a\n    gone(  # why\n    )\nc\n", "if b:\n    a\n    # why\nc\n"),
        ("# kept\ngone(  # why\n)\n# below\nb\n", "# kept\n# why\n# below\nb\n"),
    ],
)
def test_comments_inside_what_is_removed_survive(before: str, after: str) -> None:
    assert without_calls(before, 1) == after


def test_comments_in_a_block_that_is_removed_survive() -> None:
    module = cst.parse_module("# kept\nif a:  # one\n    # two\n    b  # three\n    # four\nc\n")
    gone = next(n for n in reading.walk(module) if isinstance(n, cst.If))
    changed = editing.apply_edits(module, {gone: None})
    assert changed.code == "# kept\n# one\n# two\n# three\n# four\nc\n"


def test_a_file_is_never_left_empty() -> None:
    module = cst.parse_module("gone()\n")
    gone = next(n for n in reading.walk(module) if isinstance(n, cst.Expr))
    with pytest.raises(editing.NoPlace):
        editing.apply_edits(module, {gone: None})


def test_an_edit_without_a_place_is_an_error() -> None:
    module = cst.parse_module("a\n")
    with pytest.raises(editing.NoPlace):
        editing.apply_edits(module, {cst.Name("b"): cst.Name("c")})


def test_lines_are_those_of_the_source() -> None:
    code = (
        "import a\nfrom b import (\n    c as d,\n)\nfrom e import *\n\n\n@f\ndef g():\n"
        "    '''text\n    text'''\n    # note\n    return 1\n\nx = (\n    y\n    + 1\n)\n"
    )
    module = cst.parse_module(code)
    lines = code.splitlines()
    for node in reading.walk(module):
        if isinstance(node, cst.Name):
            found = editing.line_numbers(module, [node])[node]
            assert node.value in lines[found - 1]
    kinds = {type(node): node for node in reading.walk(module)}
    assert editing.line_numbers(module, [kinds[cst.Return]])[kinds[cst.Return]] == 13
    assert editing.line_numbers(module, [kinds[cst.FunctionDef]])[kinds[cst.FunctionDef]] == 9
