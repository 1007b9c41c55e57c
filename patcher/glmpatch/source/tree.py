"""A module as a tree without its layout: walking it, finding definitions, naming what it holds."""

from __future__ import annotations

import ast
import dataclasses
import functools
import unicodedata
from collections.abc import Callable, Iterator
from typing import TypeVar

import libcst as cst

from glmpatch.language import _
from glmpatch.patch import Unrecognized

_SPACE = (
    cst.BaseParenthesizableWhitespace,
    cst.TrailingWhitespace,
    cst.EmptyLine,
    cst.Comma,
    cst.LeftParen,
    cst.RightParen,
)
_Node = TypeVar("_Node", bound=cst.CSTNode)


def text(node: cst.CSTNode) -> str:
    """The expression as ``ast.unparse`` writes it: comments and formatting gone."""
    code = cst.Module([]).code_for_node(node)
    return ast.unparse(ast.parse(f"({code}\n)", mode="eval"))


def identifier(name: cst.Name) -> str:
    """The name as Python reads it, which folds compatible letters, as full-width ones."""
    return name.value if name.value.isascii() else unicodedata.normalize("NFKC", name.value)


def dotted(node: cst.CSTNode | None) -> str | None:
    """``x`` and ``self.x.y``; None for everything else."""
    if isinstance(node, cst.Name):
        return identifier(node)
    if isinstance(node, cst.Attribute):
        base = dotted(node.value)
        return None if base is None else f"{base}.{identifier(node.attr)}"
    return None


@functools.cache
def fields(kind: type[cst.CSTNode]) -> tuple[str, ...]:
    """Names of the fields of a kind of node, in the order of the source."""
    return tuple(field.name for field in dataclasses.fields(kind))


def _is_node(kind: type) -> bool:
    return issubclass(kind, cst.CSTNode)


def _is_code(kind: type) -> bool:
    return issubclass(kind, cst.CSTNode) and not issubclass(kind, _SPACE)


# Asked of every node, and much faster than ``isinstance``, for LibCST's nodes are abstract.
is_node: Callable[[type], bool] = functools.cache(_is_node)
is_code: Callable[[type], bool] = functools.cache(_is_code)


@functools.cache
def code_fields(kind: type[cst.CSTNode]) -> tuple[str, ...]:
    """The fields of a kind of node that are not layout."""
    space = ("whitespace", "leading_lines", "lines_after", "lpar", "rpar", "comma", "semicolon")
    return tuple(name for name in fields(kind) if not name.startswith(space))


def children(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """The nodes directly below, but for whitespace; much faster than ``node.children``."""
    for name in code_fields(type(node)):
        value = getattr(node, name)
        for child in value if type(value) in (list, tuple) else (value,):
            if is_code(type(child)):
                yield child


def walk(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """The node and everything below it, in the order of the source."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(list(children(node))))


def comments(node: cst.CSTNode) -> Iterator[str]:
    """Every comment in a node, in the order of the source."""
    if isinstance(node, cst.Comment):
        yield node.value
    for each in node.children:
        yield from comments(each)


def find_all(node: cst.CSTNode, kind: type[_Node]) -> list[_Node]:
    """Every node of a kind, in the order of the source."""
    return [each for each in walk(node) if isinstance(each, kind)]


def _holds_statements(kind: type) -> bool:
    parts = (cst.BaseExpression, cst.BaseSmallStatement, cst.SimpleStatementLine, cst.Parameters)
    return not issubclass(kind, parts)


holds_statements: Callable[[type], bool] = functools.cache(_holds_statements)


def definitions(within: cst.CSTNode) -> Iterator[cst.ClassDef | cst.FunctionDef]:
    """Classes and functions at any depth, in the order of the source; no expression holds one."""
    waiting = [within]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (cst.ClassDef, cst.FunctionDef)):
            yield node
        inside = [each for each in children(node) if holds_statements(type(each))]
        waiting.extend(reversed(inside))


def find_class(module: cst.Module, name: str) -> cst.ClassDef:
    """The class of this name, at any depth; the last one, where there are several."""
    named = [each for each in definitions(module) if identifier(each.name) == name]
    found = [each for each in named if isinstance(each, cst.ClassDef)]
    if not found:
        raise Unrecognized(_("no class named {name}", name=name))
    return found[-1]


def find_function(within: cst.Module | cst.ClassDef, name: str) -> cst.FunctionDef:
    """The function of this name, at any depth; the last one, where there are several."""
    named = [each for each in definitions(within) if identifier(each.name) == name]
    found = [each for each in named if isinstance(each, cst.FunctionDef)]
    if not found:
        if not isinstance(within, cst.ClassDef):
            raise Unrecognized(_("no function named {name}", name=name))
        owner = within.name.value
        raise Unrecognized(_("no function named {name} in {owner}", name=name, owner=owner), within)
    return found[-1]


def find_method(module: cst.Module, owner: str, name: str) -> cst.FunctionDef:
    """``name`` of the class ``owner``."""
    return find_function(find_class(module, owner), name)


def calls(within: cst.CSTNode, name: str) -> list[cst.Call]:
    """Every call of ``name``, such as ``self.mlp``, in the order of the source."""
    return [each for each in find_all(within, cst.Call) if dotted(each.func) == name]


def argument(call: cst.Call, position: int, name: str) -> cst.Arg | None:
    """An argument that is given by position (from 0) or by name."""
    for each in call.args:
        if each.keyword is not None and identifier(each.keyword) == name:
            return each
    plain = [each for each in call.args if each.keyword is None and not each.star]
    return plain[position] if position < len(plain) else None
