"""Edits change their place alone, laid out as what stands around it."""

from __future__ import annotations

import libcst as cst
import pytest

from patcher import editing, reading


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
    module = cst.parse_module(before)
    gone = next(n for n in reading.walk(module) if isinstance(n, cst.Expr) and has_call(n))
    assert editing.apply_edits(module, {gone: None}).code == after


def has_call(node: cst.Expr) -> bool:
    return isinstance(node.value, cst.Call)


@pytest.mark.parametrize("code", ["if a: gone()\n", "if a:\n    gone()\n"])
def test_a_block_is_never_left_empty(code: str) -> None:
    module = cst.parse_module(code)
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
