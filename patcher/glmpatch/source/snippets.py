"""Python in words of its own with holes in it, found in a tree whatever its layout.

``X = self.norm(H, RESIDUAL)`` is a snippet. Names in capitals are holes: they stand for any
expression, the same one wherever a hole is repeated. ``(CALL := f(X))`` gives the name CALL to the
node at which ``f(X)`` is found. Arguments may be given by position or by name in the source where
the snippet gives them by position; ``...`` as the last one stands for any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import libcst as cst

from glmpatch.source.edits import Edits
from glmpatch.source.tree import code_fields, identifier, is_code, is_node, text, walk

Holes = Mapping[str, cst.CSTNode]


class Found:
    """Where a snippet stands: the node, and what its holes hold."""

    def __init__(self, node: cst.CSTNode, holes: Holes) -> None:
        self.node, self.holes = node, holes

    def __getitem__(self, hole: str) -> cst.CSTNode:
        return self.holes[hole]

    def name(self, hole: str) -> str:
        """What a hole holds, without its layout."""
        return text(self.holes[hole])


class Snippet:
    """One or more forms of the same thing; the first that fits is taken."""

    def __init__(self, *sources: str) -> None:
        self.forms = [_parsed(source) for source in sources]

    def match(self, node: cst.CSTNode) -> Found | None:
        """Whether a node is this; None where it is not."""
        for form in self.forms:
            holes: dict[str, cst.CSTNode] = {}
            if _fits(form, node, holes):
                return Found(node, holes)
        return None

    def find(self, *within: cst.CSTNode) -> Iterator[Found]:
        """Every place where it stands, in the order of the source."""
        for each in within:
            for node in walk(each):
                found = self.match(node)
                if found is not None:
                    yield found


def fill(source: str, found: Found) -> cst.CSTNode:
    """A snippet with its holes filled by the nodes that were found, comments and all."""
    filling = _Filling(found)
    new = _parsed(source).visit(filling)
    assert isinstance(new, cst.CSTNode)
    return new


def replace(found: Found, source: str | None) -> Edits:
    """The edit that puts ``source``, its holes filled, where the snippet was found."""
    return {found.node: None if source is None else fill(source, found)}


class _Filling(cst.CSTTransformer):
    def __init__(self, found: Found) -> None:
        super().__init__()
        self.found = found

    def leave_Name(  # noqa: N802 - LibCST's name
        self, original_node: cst.Name, updated_node: cst.Name
    ) -> cst.BaseExpression:
        node = self.found.holes.get(original_node.value, updated_node)
        assert isinstance(node, cst.BaseExpression)
        return node


def _parsed(source: str) -> cst.CSTNode:
    statement = cst.parse_statement(source)
    if isinstance(statement, cst.SimpleStatementLine) and len(statement.body) == 1:
        (small,) = statement.body
        return small.value if isinstance(small, cst.Expr) else small
    return statement


def _is_hole(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Name) and node.value.isupper()


def _fits(form: cst.CSTNode, node: cst.CSTNode, holes: dict[str, cst.CSTNode]) -> bool:
    if isinstance(form, cst.Name) and _is_hole(form):
        kept = holes.setdefault(form.value, node)
        return isinstance(node, cst.BaseExpression) and (kept is node or text(kept) == text(node))
    if isinstance(form, cst.NamedExpr) and _is_hole(form.target):
        assert isinstance(form.target, cst.Name)
        holes[form.target.value] = node
        return _fits(form.value, node, holes)
    if type(form) is not type(node):
        return False
    if isinstance(form, cst.Name):
        assert isinstance(node, cst.Name)
        return identifier(form) == identifier(node)
    if isinstance(form, cst.Call):
        assert isinstance(node, cst.Call)
        return _fits(form.func, node.func, holes) and _arguments(form, node, holes)
    if isinstance(form, cst.SimpleString):
        assert isinstance(node, cst.SimpleString)
        return form.evaluated_value == node.evaluated_value
    if isinstance(form, cst.FormattedString):
        assert isinstance(node, cst.FormattedString)
        # Whatever its quotes are.
        return form.prefix == node.prefix and _same(form.parts, node.parts, holes)
    return all(
        _same(getattr(form, name), getattr(node, name), holes) for name in code_fields(type(form))
    )


def _same(form: object, value: object, holes: dict[str, cst.CSTNode]) -> bool:
    if isinstance(form, (list, tuple)):
        return (
            isinstance(value, (list, tuple))
            and len(form) == len(value)
            and all(_same(a, b, holes) for a, b in zip(form, value, strict=True))
        )
    if isinstance(form, cst.CSTNode) and is_code(type(form)):
        return isinstance(value, cst.CSTNode) and _fits(form, value, holes)
    # Layout, and the sentinels that stand for it.
    return not is_node(type(form)) and (form == value or not isinstance(form, str))


def _arguments(form: cst.Call, node: cst.Call, holes: dict[str, cst.CSTNode]) -> bool:
    wanted, given = list(form.args), list(node.args)
    if wanted and isinstance(wanted[-1].value, cst.Ellipsis):
        wanted.pop()
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(
        a.star == b.star
        and (
            a.keyword is None
            or (b.keyword is not None and identifier(a.keyword) == identifier(b.keyword))
        )
        and _fits(a.value, b.value, holes)
        for a, b in zip(wanted, given, strict=True)
    )
