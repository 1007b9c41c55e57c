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
from collections.abc import Callable, Collection, Iterator
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
_REPORTERS = ("print", "logger", "logging", "warnings")
_MESSAGES = ("debug", "info", "warning", "error", "exception", "critical", "log")
_BUILTINS = (
    *("len", "type", "tuple", "str", "repr", "id", "isinstance", "getattr", "hasattr"),
    *("int", "float", "bool", "abs", "max", "min", "round", "super"),
)
_METHODS = (
    *("abs", "all", "any", "chunk", "clamp", "clone", "contiguous", "cpu", "detach", "dim"),
    *("bfloat16", "flatten", "float", "get", "half", "isfinite", "isinf", "isnan", "item", "max"),
    *("mean", "min", "norm", "numel", "reshape", "size", "split", "squeeze", "std", "sum", "to"),
    *("tolist", "transpose", "type_as", "unsqueeze", "view"),
)
"""Functions of ``torch`` and methods of its tensors that write nothing."""
_FACTS = ("device", "dtype", "ndim", "shape")
"""Attributes of a tensor through which it cannot be changed."""
_LIMIT = 20_000
"""Characters of a value's text: sums of sums double it with every statement."""


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

    def storage(self, fresh: tuple[str, ...]) -> set[Value]:
        """Values that a write in place to this one may change as well: those it may be a view of.

        Sums, products and the results of ``fresh`` functions are new tensors.
        """
        shared = {self}
        if self.kind in ("item", "tuple", "other") or (
            self.kind == "call" and self.name not in fresh
        ):
            for part in self.parts:
                shared |= part.storage(fresh)
        return shared

    def known(self) -> Value:
        """Itself, unless it is unknown."""
        if self.kind == "unknown":
            raise Unrecognized(self.name, self.node)
        return self


@dataclass
class Flow:
    """The values of names (``x``, ``self.x``) after the statements run so far.

    ``binding`` tells the assignment that first gave a value to a name; ``guards`` the ``if``
    statement under which a statement was run; ``reported`` the statements that a value only is
    printed, logged or asserted in.
    """

    values: dict[str, Value] = field(default_factory=dict)
    binding: dict[Value, cst.Assign] = field(default_factory=dict)
    guards: dict[cst.CSTNode, cst.If] = field(default_factory=dict)
    reported: list[tuple[Value, cst.CSTNode]] = field(default_factory=list)
    pairs: tuple[str, ...] = ()
    """Functions whose value is a pair, for ``if isinstance(x, tuple)`` and unpacking."""
    fresh: tuple[str, ...] = ()
    """Functions that do not write to their arguments and return a new tensor, or a pair."""
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
        elif isinstance(node, cst.Raise):
            raise Unrecognized("an exception is raised here", node)
        elif self._inert(node):
            self._report(node)
        else:
            self._forget(node)

    def _compound(self, node: cst.BaseCompoundStatement) -> None:
        """An ``if isinstance(x, tuple)`` is decided where x is known; all else is not followed."""
        if isinstance(node, cst.If) and node.orelse is None:
            name = _isinstance_tuple(node.test)
            value = self.values.get(name or "")
            if value is not None and value.kind == "call" and value.name in self.pairs:
                for inner in walk(node.body):
                    self.guards[inner] = node
                self.run(node.body)
                return
            if value is not None and self._is_tensor(value):
                return
        for inner in walk(node):
            if isinstance(inner, (cst.Return, cst.Break, cst.Continue, cst.Yield)):
                raise Unrecognized("control flow that glmpatch does not follow", node)
        if self._inert(node):
            self._report(node)
        else:
            self._forget(node)

    def _is_tensor(self, value: Value) -> bool:
        """Certainly no tuple: what a module returns, or the first of a pair."""
        if value.kind == "item":
            return value.parts[0].kind == "call" and value.parts[0].name in self.pairs
        return value.kind == "call" and value.name in self.fresh and value.name not in self.pairs

    def _inert(self, node: cst.CSTNode) -> bool:
        return _inert(node) and not any(self._rebound(name) for name in _called(node, _REPORTERS))

    def _report(self, node: cst.CSTNode) -> None:
        for name in _touched(node):
            if name in self.values:
                self.reported.append((self.values[name], node))

    def _bind(self, target: cst.BaseExpression, value: Value) -> None:
        if isinstance(target, (cst.Tuple, cst.List)):
            parts = len(target.elements)
            known = {"tuple": len(value.parts), "call": 2 if value.name in self.pairs else parts}
            starred = any(isinstance(e, cst.StarredElement) for e in target.elements)
            if starred or known.get(value.kind, parts) != parts:
                self._forget(target)
                return
            for position, element in enumerate(target.elements):
                self._bind(element.value, self._item(target, value, position))
            return
        name = dotted(target)
        if name is None or (
            "." in name and not (name.startswith("self.") and name.count(".") == 1)
        ):
            self._forget(target)
            return
        for other in [n for n in self.values if n.startswith(name + ".")]:
            del self.values[other]
        self.values[name] = value

    def _forget(self, *nodes: cst.CSTNode) -> None:
        """Every name that the nodes may change becomes unknown, and all that share its storage."""
        touched = set().union(*(_touched(node) for node in nodes))
        if "self" in touched:
            touched |= {name for name in self.values if name.startswith("self.")}
        held: set[Value] = set()
        for name in touched:
            held |= self.values[name].storage(self.fresh) if name in self.values else set()
        touched |= {name for name, value in self.values.items() if held & value.storage(self.fresh)}
        for name in touched:
            reason = f"{name} is changed here in a way that glmpatch does not know"
            self.values[name] = Value(
                "unknown", f"<unknown {next(_counter)}>", nodes[0], self.statement, reason
            )

    # -- expressions ------------------------------------------------------------------------

    def evaluate(self, node: cst.BaseExpression) -> Value:
        name = dotted(node)
        if name is not None:
            return self._named(node, name)
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
        if not _only_reads(node):
            self._forget(node)
        # The names in it stand for their values of now.
        parts = tuple(self._named(inner, name) for name, inner in sorted(_mentions(node).items()))
        meant = [p.text for p in parts if p.kind != "name" or p.text != dotted(p.node)]
        return self._value("other", " & ".join([text(node), *meant]), node, parts=parts)

    def _named(self, node: cst.CSTNode, name: str) -> Value:
        """The value of ``x`` or ``x.y``; a name that was never assigned stands for itself."""
        if name in self.values:
            return self.values[name]
        base, _, last = name.rpartition(".")
        if base and base != "self":
            if last in _FACTS and base not in self.values:
                return self._value("other", name, node)
            of = self._named(node, base)
            return self._value(
                "other", f"{of.text}.{last}", node, parts=() if last in _FACTS else (of,)
            )
        if base and self._rebound("self"):
            return self._value("other", f"{self.values['self'].text}.{last}", node)
        return self.values.setdefault(name, self._value("name", name, node, name))

    def _value(
        self,
        kind: str,
        text: str,
        node: cst.CSTNode,
        name: str = "",
        parts: tuple[Value, ...] = (),
        keywords: tuple[str | None, ...] = (),
    ) -> Value:
        if len(text) > _LIMIT:
            raise Unrecognized("too long a computation to follow", node)
        return Value(kind, text, node, self.statement, name, parts, keywords)

    def _sum(self, node: cst.CSTNode, parts: tuple[Value, ...]) -> Value:
        ordered = " + ".join(sorted(p.text for p in parts))
        return self._value("add", f"({ordered})", node, parts=parts)

    def _item(self, node: cst.CSTNode, value: Value, position: int) -> Value:
        if value.kind == "tuple" and 0 <= position < len(value.parts):
            return value.parts[position]
        if self._is_tensor(value) and isinstance(node, cst.Subscript):
            raise Unrecognized("a tensor is indexed here", node)
        return self._value("item", f"{value.text}[{position}]", node, str(position), (value,))

    def _call(self, node: cst.Call) -> Value:
        parts = []
        keywords: list[str | None] = []
        for arg in node.args:
            parts.append(self.evaluate(arg.value))
            keywords.append(arg.star or (arg.keyword.value if arg.keyword else None))
        name = dotted(node.func) or text(node.func)
        if isinstance(node.func, cst.Attribute) and self._holds(node.func.value):
            # A method of a value that is followed: x.to(dtype)
            parts.insert(0, self.evaluate(node.func.value))
            keywords.insert(0, None)
            name = "." + node.func.attr.value
        elif name in self.values:
            name = f"<{self.values[name].text}>"
        written = ", ".join(
            p.text if k is None else k + p.text if k.startswith("*") else f"{k}={p.text}"
            for k, p in zip(keywords, parts, strict=True)
        )
        if name not in self.fresh and not _reads(node):
            self._forget(node)
        return self._value("call", f"{name}({written})", node, name, tuple(parts), tuple(keywords))

    def _holds(self, node: cst.BaseExpression) -> bool:
        name = dotted(node)
        if name is None:
            return isinstance(node, (cst.Call, cst.Subscript))
        return self._rebound(name)

    def _rebound(self, name: str) -> bool:
        """Whether ``x.y`` stands for a value of this method, not for what it is outside."""
        return any(p in self.values and self.values[p].text != p for p in _prefixes(name))


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


def _is_node(kind: type) -> bool:
    return issubclass(kind, cst.CSTNode)


def _is_code(kind: type) -> bool:
    return issubclass(kind, cst.CSTNode) and not issubclass(kind, _SPACE)


# Asked of every node, and much faster than ``isinstance``, for LibCST's nodes are abstract.
is_node: Callable[[type], bool] = functools.cache(_is_node)
is_code: Callable[[type], bool] = functools.cache(_is_code)


@functools.cache
def _code_fields(kind: type[cst.CSTNode]) -> tuple[str, ...]:
    space = ("whitespace", "leading_lines", "lines_after", "lpar", "rpar", "comma", "semicolon")
    return tuple(name for name in fields(kind) if not name.startswith(space))


def children(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """The nodes directly below, but for whitespace; much faster than ``node.children``."""
    for name in _code_fields(type(node)):
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
            path = (dotted(node.value.func) or "").split(".")
            return (
                path == ["print"]
                or path == ["warnings", "warn"]
                or (
                    len(path) == 2
                    and path[0] in ("logger", "logging")
                    and path[1].removesuffix("_once") in _MESSAGES
                )
            ) and all(_only_reads(arg.value) for arg in node.value.args)
        text = (cst.SimpleString, cst.ConcatenatedString, cst.Ellipsis)
        return isinstance(node.value, text) and _only_reads(node.value)
    return isinstance(node, cst.Pass) or (isinstance(node, cst.AnnAssign) and node.value is None)


def _only_reads(node: cst.CSTNode) -> bool:
    """An expression that binds no name and calls nothing that could write to a tensor."""
    return all(
        _reads(inner)
        if isinstance(inner, cst.Call)
        else not isinstance(inner, (cst.NamedExpr, cst.Await, cst.Yield))
        for inner in walk(node)
    )


def _reads(call: cst.Call) -> bool:
    """A call that is known not to change its arguments, nor an attribute of ``self``."""
    path = (dotted(call.func) or "").split(".")
    method = call.func.attr.value if isinstance(call.func, cst.Attribute) else path[0]
    if path[0] == "self" or {a.keyword.value for a in call.args if a.keyword} & {"out", "inplace"}:
        return path[0] == "self" and len(path) > 2 and method in _METHODS
    if isinstance(call.func, cst.Attribute):
        return method in _METHODS or (not call.args and path[0] == "torch")
    # A class makes a new object; a function without arguments has nothing to change.
    return method in _BUILTINS or method[:1].isupper() or (bool(method) and not call.args)


def _called(node: cst.CSTNode, roots: Collection[str]) -> set[str]:
    """Functions that are called in it, of those that begin with one of the roots."""
    calls = (inner for inner in walk(node) if isinstance(inner, cst.Call))
    names = {name for call in calls if (name := dotted(call.func)) is not None}
    return {name for name in names if name.split(".")[0] in roots}


def _mentions(node: cst.CSTNode) -> dict[str, cst.CSTNode]:
    """The names in an expression or statement, ``x.y`` as a whole; no keywords of arguments."""
    found: dict[str, cst.CSTNode] = {}
    waiting = [node]
    while waiting:
        node = waiting.pop()
        name = dotted(node)
        if name is not None:
            found.setdefault(name, node)
        elif isinstance(node, (cst.Attribute, cst.Arg)):
            waiting.append(node.value)
        else:
            waiting.extend(children(node))
    return found


def _prefixes(name: str) -> Iterator[str]:
    """``x``, ``x.y`` and ``x.y.z`` for ``x.y.z``."""
    parts = name.split(".")
    return (".".join(parts[: i + 1]) for i in range(len(parts)))


def _touched(node: cst.CSTNode) -> set[str]:
    """Names that a statement may change: every name in it, for methods can write in place.

    ``self`` itself is among them where it is given away, or one of its methods is called.
    """
    names = {"self"} if any(n.count(".") == 1 for n in _called(node, ("self",))) else set()
    for name in _mentions(node):
        names |= {name} if name == "self" else set(_prefixes(name)) - {"self"}
    return names


# -- modules ------------------------------------------------------------------------------------

_BINDERS: dict[type[cst.CSTNode], str] = {
    **dict.fromkeys((cst.AssignTarget, cst.AnnAssign, cst.AugAssign, cst.NamedExpr), "target"),
    **dict.fromkeys((cst.For, cst.CompFor, cst.Del), "target"),
    **dict.fromkeys((cst.AsName, cst.Param, cst.FunctionDef, cst.ClassDef), "name"),
    **dict.fromkeys((cst.NameItem, cst.ImportAlias, cst.MatchAs, cst.MatchStar), "name"),
    cst.MatchMapping: "rest",
}
"""Every kind of node that gives a meaning to a name, and the field that holds the name."""
_HIDDEN = (
    *(cst.FunctionDef, cst.ClassDef, cst.Lambda, cst.GeneratorExp, cst.Global, cst.Nonlocal),
    *(cst.Yield, cst.Await),
)
"""What can change names later or from elsewhere."""
_TRICKS = ("__call__", "__getattr__", "__getattribute__", "__setattr__", "__new__")
_BASES = ("nn.Module", "torch.nn.Module", "Module")


@dataclass(frozen=True)
class Names:
    """What a module gives a meaning to, at any depth: names, and paths like ``x.y``."""

    bound: dict[str, list[cst.CSTNode]]
    bases: dict[str, cst.ClassDef]


@functools.lru_cache(maxsize=1)
def names(module: cst.Module) -> Names:
    found = Names({}, {})
    for node in walk(module):
        field = _BINDERS.get(type(node))
        if field is None:
            if type(node) is cst.ImportFrom and isinstance(node.names, cst.ImportStar):
                found.bound.setdefault("*", []).append(node)
            elif type(node) is cst.Call and dotted(node.func) in ("setattr", "delattr"):
                first = node.args[0].value if node.args else node
                found.bound.setdefault(f"{_path(first)}.*", []).append(node)
            continue
        if isinstance(node, cst.ImportAlias) and node.asname is not None:
            continue
        if isinstance(node, cst.ClassDef):
            for arg in node.bases:
                found.bases[dotted(arg.value) or ""] = node
        waiting = [getattr(node, field)]
        while waiting:
            target = waiting.pop()
            if isinstance(target, (cst.Tuple, cst.List)):
                waiting.extend(e.value for e in target.elements)
            elif isinstance(target, (cst.Name, cst.Attribute)):
                found.bound.setdefault(_path(target), []).append(node)
    return found


def _path(node: cst.CSTNode) -> str:
    """``x.y`` as written, and ``?.y`` for ``x[0].y``."""
    if isinstance(node, cst.Attribute):
        return f"{_path(node.value)}.{node.attr.value}"
    return node.value if isinstance(node, cst.Name) else "?"


def find_class(module: cst.Module, name: str, base: str | None = None) -> cst.ClassDef:
    """The one class of this name, at the top of the module and left as it is.

    It must be a plain ``nn.Module``; or, with ``base``, be derived from that class and, beside it,
    from nothing but vLLM's marks of what a model supports, such as ``SupportsPP``.
    """
    found = [n for n in statements(module) if isinstance(n, cst.ClassDef) and n.name.value == name]
    if len(found) != 1:
        count = "no class" if not found else f"{len(found)} classes"
        raise Unrecognized(f"{count} named {name}", found[-1] if found else None)
    (owner,) = found
    require_untouched(module, name, owner)
    bases = [text(arg.value) for arg in owner.bases if arg.keyword is None and not arg.star] or [""]
    marked = base is not None and all(each.startswith("Supports") for each in bases[1:])
    if owner not in module.body or owner.decorators or owner.keywords or (bases[1:] and not marked):
        raise Unrecognized(f"{name} is no plain class", owner)
    if bases[0] not in (("", *_BASES) if base is None else (base,)):
        raise Unrecognized(f"{name} is not built on {base or 'nn.Module'}", owner)
    if name in names(module).bases:
        raise Unrecognized(f"another class is derived from {name}", names(module).bases[name])
    return owner


def find_method(owner: cst.ClassDef, name: str) -> cst.FunctionDef:
    """The one plain method of this name."""
    found = [n for n in statements(owner) if isinstance(n, cst.FunctionDef)]
    for trick in found:
        if trick.name.value in _TRICKS:
            raise Unrecognized(f"{owner.name.value} defines {trick.name.value}", trick)
    found = [n for n in found if n.name.value == name]
    if len(found) != 1 or found[0].decorators or found[0].asynchronous:
        count = "no plain method" if len(found) < 2 else f"{len(found)} methods"
        where = found[-1] if found else owner
        raise Unrecognized(f"{count} named {name} in {owner.name.value}", where)
    (method,) = found
    if method not in owner.body.body:
        raise Unrecognized(f"{name} is not always defined", method)
    for inner in walk(method.body):
        if type(inner) in _HIDDEN:
            raise Unrecognized(f"{name} holds code that does not run in its place", inner)
    return method


def require_attributes(module: cst.Module, owner: cst.ClassDef, *attributes: str) -> None:
    """Each is given its value by one ``self.x = `` of the class, and nothing changes it after.

    ``self.y.x = ``, ``layer.x.y = ``, ``setattr(layer.x, …)`` and a method named x all could.
    """
    for statement in owner.body.body:
        lines = statement.body if isinstance(statement, cst.SimpleStatementLine) else ()
        given = [each.target for line in lines for each in getattr(line, "targets", ())]
        own = {dotted(target) for target in given} & {"forward", "__init__", *attributes}
        if own or (isinstance(statement, cst.FunctionDef) and statement.name.value in attributes):
            raise Unrecognized("the class itself hides a part of its objects", statement)
    seen: set[str] = set()
    inside = set(walk(owner))
    for name, nodes in names(module).bound.items():
        root, *path = name.split(".")
        concerned = {"forward", *attributes}.intersection(path)
        for node in nodes if concerned or path == ["*"] else ():
            if root == "self" and node not in inside:
                continue  # another class
            if root == "self" and len(path) == 1 and path[0] in attributes and name not in seen:
                seen.add(name)
            elif concerned or root == "self":
                raise Unrecognized(f"{name} is changed here", node)


def require_untouched(module: cst.Module, name: str, *meaning: cst.CSTNode) -> None:
    """``name`` must mean that alone in the whole module, with no attribute of it changed."""
    for bound, nodes in names(module).bound.items():
        if bound == name or bound == "*" or bound.startswith(f"{name}."):
            for node in nodes:
                if node not in meaning:
                    raise Unrecognized(f"{name} may be something else from here on", node)


def require_builtins(module: cst.Module, *builtins: str) -> None:
    """These names must have the meaning that Python gives them."""
    for name in builtins:
        require_untouched(module, name)


def require_import(module: cst.Module, name: str, source: str) -> None:
    """``name`` must be what ``from source import name`` gives, and nothing else in this module."""
    imported = [
        alias
        for node in statements(module)
        if isinstance(node, cst.ImportFrom) and not isinstance(node.names, cst.ImportStar)
        if not node.relative and node.module and dotted(node.module) == source
        for alias in node.names
        if alias.asname is None and dotted(alias.name) == name
    ]
    if not imported:
        where = names(module).bound.get(name, [None])[0]
        raise Unrecognized(f"{name} is not imported from {source}", where)
    require_untouched(module, name, *imported)
