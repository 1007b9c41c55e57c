"""The part of a large source that a patch looks at; the rest is never parsed and never changes.

LibCST takes half a second for the four thousand lines of vLLM's ``config.py``, Python's own parser
a tenth of that.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from typing import NamedTuple

_COOKIE = re.compile(rb"^[ \t\f]*#.*?coding[:=]", re.MULTILINE)


class Window(NamedTuple):
    """A source in three parts, cut between lines."""

    above: bytes
    source: bytes
    below: bytes

    @property
    def offset(self) -> int:
        """How many lines stand above."""
        return len(self.above.splitlines())


def whole(data: bytes) -> Window:
    """All but blank lines at the end, which LibCST does not always print as they were."""
    after = data.find(b"\n", len(data.rstrip())) + 1 or len(data)
    return Window(b"", data[:after], data[after:])


def cut(data: bytes, names: Collection[str]) -> Window:
    """From the first to the last of the top-level definitions with these names.

    All of it where none has such a name, or where the part alone could be read otherwise than in
    its place (another encoding).
    """
    every = whole(data)
    lines = data.splitlines(keepends=True)
    if data.startswith(b"\xef\xbb\xbf") or _COOKIE.search(b"".join(lines[:2])):
        return every
    try:
        found = [node for node in ast.parse(data).body if _names(node) & set(names)]
    except (SyntaxError, ValueError, RecursionError):
        return every
    if not found:
        return every
    first = min(_first_line(node) for node in found) - 1
    last = max(node.end_lineno or 0 for node in found)
    return Window(*(b"".join(part) for part in (lines[:first], lines[first:last], lines[last:])))


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)])
