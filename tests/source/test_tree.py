"""Walking a module: definitions, calls, arguments."""

from __future__ import annotations

import libcst as cst
import pytest

from glmpatch.patch import Unrecognized
from glmpatch.source import tree

SOURCE = """\
class A:
    def f(self):
        if x:
            try:
                def inner(): pass
            except E:
                class B: pass
        return self.mlp(a, b=2)

    async def g(self): return (lambda: f(1))

class A(Base):
    def f(self): return [self.mlp(c) for c in self.mlp()]

with x:
    def h(): pass
match x:
    case 1:
        def k(): pass
"""
MODULE = cst.parse_module(SOURCE)


def test_definitions_at_any_depth() -> None:
    names = [each.name.value for each in tree.definitions(MODULE)]
    assert names == ["A", "f", "inner", "B", "g", "A", "f", "h", "k"]
    walked = [n for n in tree.walk(MODULE) if isinstance(n, (cst.ClassDef, cst.FunctionDef))]
    assert list(tree.definitions(MODULE)) == walked


def test_of_several_the_last_one_counts() -> None:
    assert [tree.text(base.value) for base in tree.find_class(MODULE, "A").bases] == ["Base"]
    assert len(tree.calls(tree.find_method(MODULE, "A", "f"), "self.mlp")) == 2


@pytest.mark.parametrize(
    ("owner", "name", "reason"),
    [("C", "f", "no class named C"), ("A", "g", "no function named g in A")],
)
def test_what_is_not_there_is_named(owner: str, name: str, reason: str) -> None:
    with pytest.raises(Unrecognized) as caught:
        tree.find_method(MODULE, owner, name)
    assert caught.value.reason == reason


def test_arguments_by_position_and_by_name() -> None:
    call = cst.ensure_type(cst.parse_expression("f(a, *b, c=1, **d)"), cst.Call)
    found = [tree.argument(call, at, name) for at, name in ((0, "x"), (1, "y"), (5, "c"), (0, "c"))]
    texts = [each and tree.text(each.value) for each in found]
    assert texts == ["a", None, "1", "1"], "what a star stands for is not counted"


@pytest.mark.parametrize(
    ("source", "name"), [("x", "x"), ("self.x.y", "self.x.y"), ("f().x", None), ("x[0]", None)]
)
def test_dotted_names(source: str, name: str | None) -> None:
    assert tree.dotted(cst.parse_expression(source)) == name


def test_text_has_no_layout() -> None:
    assert tree.text(cst.parse_expression("f (  # a\n  x\n  + 1)")) == "f(x + 1)"
