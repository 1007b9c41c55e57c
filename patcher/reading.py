"""Reading a module by structure: what value does each name hold at each statement?

Rewrites decide by the value that reaches a place and never by its text, so that comments,
formatting, parentheses, temporaries and unrelated statements make no difference. A method is
followed statement by statement; anything that is not understood makes the names that it may have
changed unknown, and a rewrite that meets an unknown value refuses.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import libcst as cst

from patcher.patch import Unrecognized

_SPACE = (
    cst.BaseParenthesizableWhitespace,
    cst.TrailingWhitespace,
    cst.EmptyLine,
    cst.Comma,
    cst.LeftParen,
    cst.RightParen,
)
_counter = itertools.count(1)
_MESSAGES = ("print", "logger", "logging", "log", "warnings")
_READERS = ("len", "type", "tuple", "str", "repr", "id", "isinstance", "size", "getattr", "hasattr")


def text(node: cst.CSTNode) -> str:
    """The expression as ``ast.unparse`` writes it: comments and formatting gone."""
    code = cst.Module([]).code_for_node(node)
    return ast.unparse(ast.parse(f"({code}\n)", mode="eval"))


@dataclass(frozen=True, eq=False)
class Value:
    """What an expression amounts to, with the names in it replaced by their values.

    ``kind`` is one of call, item, add, multiply, tuple, name, other, unknown. ``name`` is the
    function of a call (``self.mlp``) or the index of an item. Two values are the same when their
    ``text`` is. ``node`` is the expression in the source, ``statement`` the statement that it
    stands in; of a name's value, those that computed it.
    """

    kind: str
    text: str
    node: cst.CSTNode
    statement: cst.CSTNode
    name: str = ""
    parts: tuple[Value, ...] = ()
    keywords: tuple[str | None, ...] = ()
    """For a call, the keyword of each part (None for a positional one, ``*`` or ``**``)."""

    def is_call(self, name: str) -> bool:
        return self.kind == "call" and self.name == name

    def arguments(self, *parameters: str) -> dict[str, Value]:
        """The parts of a call by parameter name, given the function's parameters in order."""
        found: dict[str, Value] = {}
        for position, (keyword, part) in enumerate(zip(self.keywords, self.parts, strict=True)):
            if keyword is None and position < len(parameters):
                keyword = parameters[position]
            if keyword is None or keyword.startswith("*") or keyword in found:
                raise Unrecognized(
                    f"the arguments of {self.name}() cannot be told apart", self.node
                )
            found[keyword] = part
        return found

    def known(self) -> Value:
        """Itself, unless it is unknown."""
        if self.kind == "unknown":
            raise Unrecognized(self.name, self.node)
        return self


@dataclass
class Flow:
    """The values of names (``x``, ``self.x``) after the statements run so far.

    ``binding`` tells the assignment that first gave a value to a name; ``tests`` the ``if``
    statement under which a statement was run.
    """

    values: dict[str, Value] = field(default_factory=dict)
    binding: dict[Value, cst.Assign] = field(default_factory=dict)
    guards: dict[cst.CSTNode, cst.If] = field(default_factory=dict)
    tuples: tuple[str, ...] = ()
    """Functions whose value is a tuple, for ``if isinstance(x, tuple)``."""
    returned: Value | None = None
    statement: cst.CSTNode = field(default_factory=cst.Pass)

    # -- statements -------------------------------------------------------------------------

    def run(self, block: cst.BaseSuite) -> Flow:
        for statement in block.body:
            if self.returned is not None:
                raise Unrecognized("there is code after the return", statement)
            if isinstance(statement, cst.SimpleStatementLine):
                for small in statement.body:
                    self.statement = small
                    self._small(small)
            elif isinstance(statement, cst.BaseSmallStatement):
                self.statement = statement
                self._small(statement)
            elif isinstance(statement, cst.BaseCompoundStatement):
                self._compound(statement)
        return self

    def _small(self, node: cst.BaseSmallStatement) -> None:
        if isinstance(node, cst.Assign):
            value = self.evaluate(node.value)
            for target in node.targets:
                self._bind(target.target, value)
            self.binding.setdefault(value, node)
        elif isinstance(node, cst.AnnAssign) and node.value is not None:
            self._bind(node.target, self.evaluate(node.value))
        elif isinstance(node, cst.AugAssign):
            if isinstance(node.operator, cst.AddAssign):
                parts = (self.evaluate(node.target), self.evaluate(node.value))
                self._forget(node.target)  # in place: other names of the same tensor change too
                self._bind(node.target, self._sum(node, parts))
            else:
                self._forget(node)
        elif isinstance(node, cst.Return):
            if node.value is None:
                raise Unrecognized("a return without a value", node)
            self.returned = self.evaluate(node.value)
        elif not _inert(node):
            self._forget(node)

    def _compound(self, node: cst.BaseCompoundStatement) -> None:
        """An ``if isinstance(x, tuple)`` is decided where x is known; all else is not followed."""
        if isinstance(node, cst.If) and node.orelse is None:
            name = _isinstance_tuple(node.test)
            value = self.values.get(name or "")
            if value is not None and value.kind != "unknown":
                if value.kind == "tuple" or (value.kind == "call" and value.name in self.tuples):
                    for inner in walk(node.body):
                        self.guards[inner] = node
                    self.run(node.body)
                elif value.kind not in ("item", "call"):
                    self._forget(node)
                return
        for inner in walk(node):
            if isinstance(inner, (cst.Return, cst.Break, cst.Continue, cst.Yield)):
                raise Unrecognized("control flow that glmpatch does not follow", node)
        if not _inert(node):
            self._forget(node)

    def _bind(self, target: cst.BaseExpression, value: Value) -> None:
        if isinstance(target, (cst.Tuple, cst.List)):
            for position, element in enumerate(target.elements):
                if isinstance(element, cst.StarredElement):
                    self._forget(target)
                    return
                self._bind(element.value, self._item(target, value, position))
            return
        name = dotted(target)
        if name is None:
            self._forget(target)
        else:
            self.values[name] = value
            for other in [n for n in self.values if n.startswith(name + ".")]:
                del self.values[other]

    def _forget(self, node: cst.CSTNode) -> None:
        """Every name that ``node`` may change becomes unknown, and all names of the same value."""
        touched = _touched(node)
        held = {id(self.values[name]) for name in touched if name in self.values}
        touched |= {name for name, value in self.values.items() if id(value) in held}
        for name in touched:
            reason = f"{name} is changed here in a way that glmpatch does not know"
            self.values[name] = Value(
                "unknown", f"<unknown {next(_counter)}>", node, self.statement, reason
            )

    # -- expressions ------------------------------------------------------------------------

    def evaluate(self, node: cst.BaseExpression) -> Value:
        name = dotted(node)
        if name is not None:
            if name in self.values:
                return self.values[name]
            return Value("name", name, node, self.statement, name)
        if isinstance(node, cst.Call):
            return self._call(node)
        if isinstance(node, cst.Subscript) and len(node.slice) == 1:
            index = node.slice[0].slice
            if isinstance(index, cst.Index) and isinstance(index.value, cst.Integer):
                position = index.value.evaluated_value
                return self._item(node, self.evaluate(node.value), position)
        if isinstance(node, cst.BinaryOperation):
            parts: tuple[Value, ...] = (self.evaluate(node.left), self.evaluate(node.right))
            if isinstance(node.operator, cst.Add):
                return self._sum(node, parts)
            if isinstance(node.operator, cst.Multiply):
                ordered = " * ".join(sorted(p.text for p in parts))
                return self._value("multiply", f"({ordered})", node, parts=parts)
        if isinstance(node, cst.Tuple) and all(isinstance(e, cst.Element) for e in node.elements):
            parts = tuple(self.evaluate(element.value) for element in node.elements)
            return self._value("tuple", f"({', '.join(p.text for p in parts)})", node, parts=parts)
        if any(isinstance(inner, cst.NamedExpr) for inner in walk(node)):
            self._forget(node)
        return self._value("other", text(node), node)

    def _value(
        self, kind: str, text: str, node: cst.CSTNode, name: str = "", parts: tuple[Value, ...] = ()
    ) -> Value:
        return Value(kind, text, node, self.statement, name, parts)

    def _sum(self, node: cst.CSTNode, parts: tuple[Value, ...]) -> Value:
        ordered = " + ".join(sorted(p.text for p in parts))
        return self._value("add", f"({ordered})", node, parts=parts)

    def _item(self, node: cst.CSTNode, value: Value, position: int) -> Value:
        if value.kind == "tuple" and 0 <= position < len(value.parts):
            return value.parts[position]
        return self._value("item", f"{value.text}[{position}]", node, str(position), (value,))

    def _call(self, node: cst.Call) -> Value:
        parts = []
        keywords: list[str | None] = []
        for arg in node.args:
            parts.append(self.evaluate(arg.value))
            keywords.append(arg.star or (arg.keyword.value if arg.keyword else None))
        if isinstance(node.func, cst.Attribute) and self._holds(node.func.value):
            # A method of a value that is followed: x.to(dtype)
            name = "." + node.func.attr.value
            parts.insert(0, self.evaluate(node.func.value))
            keywords.insert(0, None)
            if name.endswith("_"):  # PyTorch's mark of a method that writes in place
                self._forget(node.func.value)
        else:
            name = dotted(node.func) or text(node.func)
        written = ", ".join(
            p.text if k is None else k + p.text if k.startswith("*") else f"{k}={p.text}"
            for k, p in zip(keywords, parts, strict=True)
        )
        return Value(
            "call", f"{name}({written})", node, self.statement, name, tuple(parts), tuple(keywords)
        )

    def _holds(self, node: cst.BaseExpression) -> bool:
        name = dotted(node)
        return name in self.values if name is not None else isinstance(node, cst.Call)


def dotted(node: cst.CSTNode) -> str | None:
    """``x`` and ``self.x.y`` as written; None for everything else."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        base = dotted(node.value)
        return None if base is None else f"{base}.{node.attr.value}"
    return None


@functools.cache
def fields(kind: type[cst.CSTNode]) -> tuple[str, ...]:
    """Names of the fields of a kind of node, in the order of the source."""
    return tuple(field.name for field in dataclasses.fields(kind))


def children(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """The nodes directly below, but for whitespace; much faster than ``node.children``."""
    for name in fields(type(node)):
        value = getattr(node, name)
        for child in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(child, cst.CSTNode) and not isinstance(child, _SPACE):
                yield child


def walk(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """The node and everything below it, in the order of the source."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(list(children(node))))


def statements(block: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """All statements of a module or block, at any depth, without the expressions in them."""
    body = getattr(block, "body", ())
    for statement in body if isinstance(body, (list, tuple)) else (body,):
        yield statement
        yield from statements(statement)
    for name in ("orelse", "handlers", "finalbody", "cases"):
        more = getattr(block, name, None) or ()
        for clause in more if isinstance(more, (list, tuple)) else (more,):
            yield from statements(clause)


def _isinstance_tuple(test: cst.BaseExpression) -> str | None:
    """``x`` for the test ``isinstance(x, tuple)``."""
    if isinstance(test, cst.Call) and dotted(test.func) == "isinstance" and len(test.args) == 2:
        kinds = text(test.args[1].value)
        if kinds in ("tuple", "(tuple,)", "(tuple, list)", "(list, tuple)"):
            return dotted(test.args[0].value)
    return None


def _inert(node: cst.CSTNode) -> bool:
    """A statement that changes no value: a docstring, a print, a log message, an assertion."""
    if isinstance(node, cst.SimpleStatementLine):
        return all(_inert(small) for small in node.body)
    if isinstance(node, cst.If):
        branches = [node.body] + ([node.orelse] if node.orelse else [])
        return _only_reads(node.test) and all(_inert(branch) for branch in branches)
    if isinstance(node, (cst.IndentedBlock, cst.SimpleStatementSuite)):
        return all(_inert(statement) for statement in node.body)
    if isinstance(node, cst.Else):
        return _inert(node.body)
    if isinstance(node, cst.Assert):
        return _only_reads(node.test)
    if isinstance(node, cst.Expr):
        if isinstance(node.value, cst.Call):
            root = (dotted(node.value.func) or "").split(".")[0]
            return root in _MESSAGES and all(_only_reads(arg.value) for arg in node.value.args)
        return isinstance(node.value, (cst.SimpleString, cst.ConcatenatedString, cst.Ellipsis))
    return isinstance(node, (cst.Pass, cst.AnnAssign))


def _only_reads(node: cst.CSTNode) -> bool:
    """An expression that binds no name and calls nothing that could write to a tensor."""
    for inner in walk(node):
        if isinstance(inner, (cst.NamedExpr, cst.Await, cst.Yield)):
            return False
        if isinstance(inner, cst.Call):
            path = (dotted(inner.func) or ".").split(".")
            method = inner.func.attr.value if isinstance(inner.func, cst.Attribute) else path[-1]
            if method.endswith("_") or not (
                method in _READERS or path[0] == "torch" or not inner.args
            ):
                return False
    return True


def _touched(node: cst.CSTNode) -> set[str]:
    """Names that a statement may change: every name in it, for methods can write in place."""
    names = set()
    for inner in walk(node):
        name = dotted(inner)
        if name is not None and name != "self":
            names.add(name)
    return names


# -- modules ------------------------------------------------------------------------------------


def find_class(module: cst.Module, name: str) -> cst.ClassDef:
    """The one class of this name."""
    found = [n for n in statements(module) if isinstance(n, cst.ClassDef) and n.name.value == name]
    if len(found) != 1:
        count = "no class" if not found else f"{len(found)} classes"
        raise Unrecognized(f"{count} named {name}", found[-1] if found else None)
    return found[0]


def find_method(owner: cst.ClassDef, name: str) -> cst.FunctionDef:
    """The one undecorated method of this name."""
    found = [n for n in owner.body.body if isinstance(n, cst.FunctionDef) and n.name.value == name]
    if len(found) != 1 or found[0].decorators or found[0].asynchronous:
        count = "no plain method" if len(found) < 2 else f"{len(found)} methods"
        where = found[-1] if found else owner
        raise Unrecognized(f"{count} named {name} in {owner.name.value}", where)
    return found[0]


def require_import(module: cst.Module, name: str, source: str) -> None:
    """``name`` must be what ``from source import name`` gives, and nothing else in this module."""
    imported = False
    for node in statements(module):
        if isinstance(node, cst.ImportFrom) and not isinstance(node.names, cst.ImportStar):
            for alias in node.names:
                bound = alias.asname.name if alias.asname else alias.name
                if dotted(bound) == name:
                    whole = dotted(node.module) if node.module else ""
                    if whole != source or alias.asname:
                        raise Unrecognized(f"{name} is not the one of {source}", node)
                    imported = True
        elif isinstance(node, (cst.ClassDef, cst.FunctionDef)) and node.name.value == name:
            raise Unrecognized(f"{name} is defined here, not imported from {source}", node)
        elif isinstance(node, cst.Assign) and name in [dotted(t.target) for t in node.targets]:
            raise Unrecognized(f"{name} is assigned here, not imported from {source}", node)
    if not imported:
        raise Unrecognized(f"{name} is not imported from {source}")
