"""The form of a source: a digest of its program, without layout and comments.

Outside class bodies, docstrings, ``pass`` and statements that are a mere constant are left out
too. Nothing else is: a print alone makes a fully compiled graph fail, and class bodies are kept
whole, since vLLM's ``config.py`` reads the docstrings of fields from its own source. The digest is
the same on every Python from 3.9 on.

Standard library only, and nothing of glmpatch: the interpreter that owns vLLM runs this very file
(``python form.py < FILE``) to tell whether it reads the same program.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import sys
import tokenize
import warnings
from typing import Any, NamedTuple

DEPTH = 150
"""Levels of nesting of the syntax tree that are read; vLLM's files have up to 40."""
SIZE = 2 * 2**20
"""Bytes of a source that are read; vLLM's largest model files have 100,000. A tree can take some
2,000 times as much memory as its source."""
BITS = 14_000
"""Size of an integer literal; Pythons differ in what they take above some 4,300 digits."""
PART = 16
"""Hexadecimal digits of a part's digest: it is for messages, and decides nothing."""
PLAIN_DECORATORS = ("property", "staticmethod", "classmethod")
PLAIN_CALLS = ("re.compile", "init_logger", "frozenset", "set", "tuple", "list", "dict")
"""What a definition may call, and be no more than a definition."""
LEFT_OUT = ("ctx", "kind", "type_comment", "type_ignores")


class Unreadable(Exception):
    """The bytes are no Python program, or one that is too deep or too large to be read."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.line = reason, line


class Part(NamedTuple):
    """A top-level definition or a member of a class: its name, first line (from 1) and digest.

    ``kind`` says what happens where it stands, when the module is imported: ``function`` and
    ``value`` bind their own name and do nothing else, ``code`` may do anything.
    """

    name: str
    line: int
    digest: str
    kind: str


class Form(NamedTuple):
    """``digest`` tells one program from another; ``parts`` tell where two of them differ."""

    digest: str
    parts: tuple[Part, ...]


def read(data: bytes) -> Form:
    """The form of a source.

    Raises:
        Unreadable: it does not compile here, or is too deep or too large.
    """
    try:
        tree = _parsed(data)
        # Before it is compiled: the compilers of some Pythons overflow the stack of the process on
        # a tree that their parsers take.
        digest = hashlib.sha256(_text(tree, False, 0).encode("ascii")).hexdigest()
        _compile(data)
        return Form(digest, tuple(_parts(tree)))
    except SyntaxError as error:
        raise Unreadable(f"syntax error: {error.msg}", error.lineno or 1) from error
    except (RecursionError, MemoryError) as error:
        raise Unreadable("nested too deeply") from error


def _parsed(data: bytes) -> ast.Module:
    if not data.strip():
        raise Unreadable("the file is empty", 1)
    if len(data) > SIZE:
        raise Unreadable(f"too large: {len(data)} bytes")
    if b"\0" in data:
        raise Unreadable("a NUL byte", data[: data.index(b"\0")].count(b"\n") + 1)
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        data.decode(encoding)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as an invalid escape sequence
            return ast.parse(data)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise Unreadable(f"not {error.encoding}: {error.reason}", line) from error
    except (LookupError, ValueError, OverflowError) as error:
        raise Unreadable(f"not a Python source: {error}", 1) from error


def _compile(data: bytes) -> None:
    """The parser takes what the compiler refuses: a return outside of a function, a late
    ``__future__``, a parameter given twice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(data, "<file>", "exec", dont_inherit=True)
        except (ValueError, OverflowError) as error:
            raise Unreadable(f"not a Python source: {error}", 1) from error


def _text(node: object, whole: bool, depth: int) -> str:
    """A node in words that no two programs share.

    ``whole`` keeps every statement of a block: inside a class, outside of its functions.
    """
    if depth > DEPTH:
        raise Unreadable("nested too deeply")
    if isinstance(node, list):
        return "[" + ",".join([_text(each, whole, depth) for each in node]) + "]"
    if not isinstance(node, ast.AST):
        return _constant(node)
    if isinstance(node, ast.ClassDef):
        whole = True
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        # Decorators, defaults and annotations hold no statements.
        whole = False
    fields = []
    for name, value in ast.iter_fields(node):
        # What is absent is left out, so that a field that newer Pythons add makes no difference.
        if isinstance(node, ast.JoinedStr) and name == "values":
            value = _joined(value)
        if name in LEFT_OUT or value is None or value == []:
            continue
        if name in ("body", "orelse", "finalbody") and isinstance(value, list) and not whole:
            # An ``else`` or ``finally`` that does nothing is still there: compilers see it.
            value = [each for each in value if not _is_idle(each)]
            if not value and name == "body":
                continue
        fields.append(f"{name}={_text(value, whole, depth + 1)}")
    return f"{type(node).__name__}({','.join(fields)})"


def _is_idle(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def _constant(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        if value.bit_length() > BITS:
            raise Unreadable("an integer of more than 4,000 digits")
        return hex(value)
    return ascii(value)


def _joined(values: list[Any]) -> list[Any]:
    """The parts of an f-string, adjacent constants as one: Pythons cut them differently."""
    merged: list[Any] = []
    for each in values:
        before = merged[-1] if merged else None
        if isinstance(each, ast.Constant) and isinstance(before, ast.Constant):
            merged[-1] = ast.Constant(str(before.value) + str(each.value))
        else:
            merged.append(each)
    return [each for each in merged if not (isinstance(each, ast.Constant) and each.value == "")]


def _parts(tree: ast.Module) -> list[Part]:
    """Definitions in the order of the source; what has the same name is one part."""
    found: dict[str, tuple[int, list[str], set[str]]] = {}

    def add(name: str, statement: ast.stmt, text: str) -> None:
        first = min(
            [statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", ()))]
        )
        _line, texts, kinds = found.setdefault(name, (first, [], set()))
        texts.append(text)
        kinds.add(_kind(statement))

    for statement in tree.body:
        if isinstance(statement, ast.ClassDef):
            head = ast.ClassDef(**{**dict(ast.iter_fields(statement)), "body": []})
            add(statement.name, statement, _text(head, True, 1))
            for member in statement.body:
                name = f"{statement.name}.{_name(member)}"
                add(name, member, _text(member, True, 2))
        elif not _is_idle(statement):
            add(_name(statement), statement, _text(statement, False, 1))
    return [
        Part(
            name,
            line,
            hashlib.sha256("\n".join(texts).encode("ascii")).hexdigest()[:PART],
            kinds.pop() if len(kinds) == 1 else "code",
        )
        for name, (line, texts, kinds) in found.items()
    ]


def _name(statement: ast.stmt) -> str:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return statement.name
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return "imports"
    target = _target(statement)
    return target.id if target is not None else "statements"


def _target(statement: ast.stmt) -> ast.Name | None:
    """The one name that an assignment binds."""
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    return targets[0] if len(targets) == 1 and isinstance(targets[0], ast.Name) else None


def _kind(statement: ast.stmt) -> str:
    """Of a part: what is run when its definition is reached."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        plain = all(
            isinstance(each, ast.Name) and each.id in PLAIN_DECORATORS
            for each in statement.decorator_list
        )
        head = [statement.args, *([statement.returns] if statement.returns else [])]
        return "function" if plain and not any(map(_runs, head)) else "code"
    value = _target(statement) is not None or isinstance(statement, ast.Pass)
    if isinstance(statement, ast.Expr):
        value = isinstance(statement.value, ast.Constant)
    return "value" if value and not _runs(statement) else "code"


def _runs(node: ast.AST) -> bool:
    """Whether an expression may do more than give a value."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) in PLAIN_CALLS:
        return any(map(_runs, [*node.args, *node.keywords]))
    running = (ast.Call, ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)
    return isinstance(node, running) or any(map(_runs, ast.iter_child_nodes(node)))


def main() -> None:
    """Answer as JSON: the digest, or why there is none."""
    try:
        answer: dict[str, Any] = {"form": read(sys.stdin.buffer.read()).digest}
    except Unreadable as error:
        answer = {"unreadable": error.reason, "line": error.line}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
