"""The defect of the reasoning parser up to vLLM 0.11.0: any ``</think>`` ends the thinking."""

from __future__ import annotations

import ast

import libcst as cst

from glmpatch.language import _
from glmpatch.patch import Place, Unrecognized
from glmpatch.source import tree
from glmpatch.source.snippets import Snippet

PARSER = "Glm4MoeModelReasoningParser"
ANYWHERE = Snippet("self.think_end_token_id in IDS", "IDS.count(self.think_end_token_id) > 0")

LAST = """\
assistant_token_id = self.vocab.get("<|assistant|>")
for token_id in IDS[::-1]:
    if token_id == self.think_end_token_id:
        return True
    if token_id == assistant_token_id:
        return False
return False
"""


END = "self.think_end_token_id"
FEW = 100
"""A number below is none of a special token."""
KNOWN = {"bool", "any", "all", "len", "list", "tuple", "set", "frozenset", "reversed"}
KNOWN |= {"enumerate", "iter", "next", "range", "sorted", "sum", "max", "min", "map", "filter"}
"""Names behind which there is no token."""


def last_answer_only(module: cst.Module) -> list[Place]:
    """``return </think> in ids`` → whether it stands after the last ``<|assistant|>``.

    Whoever knows no other token than ``</think>`` cannot find the last answer, in whatever words.
    """
    method = tree.find_method(module, PARSER, "is_reasoning_end")
    returned = [each for each in tree.find_all(method, cst.Return) if each.value is not None]
    if not returned:
        raise Unrecognized(_("is_reasoning_end returns nothing"), method)
    if not of_one_token(method):
        return [Place(returned[-1])]
    ids = tree.identifier(method.params.params[1].name)
    last = method.body.body[-1]
    released = next(ANYWHERE.find(returned[-1]), None)
    if (
        released
        and released.node is returned[-1].value
        and released.name("IDS") == ids
        and len(returned) == 1
        and isinstance(last, cst.SimpleStatementLine)
        and last.body[-1] is returned[0]
    ):
        return [in_place_of(last, method, ids)]
    lines = method.body.body if isinstance(method.body, cst.IndentedBlock) else []
    kept = lines[: method.get_docstring() is not None]
    block = cst.IndentedBlock(body=[*kept, *cst.parse_module(LAST.replace("IDS", ids)).body])
    return [Place(returned[-1], broken=True, edits={method.body: block})]


def in_place_of(line: cst.SimpleStatementLine, method: cst.FunctionDef, ids: str) -> Place:
    """The released line alone is replaced, and what stands before it is left."""
    first, *between, last = cst.parse_module(LAST.replace("IDS", ids)).body
    first = first.with_changes(leading_lines=line.leading_lines)
    last = last.with_changes(trailing_whitespace=line.trailing_whitespace)
    block = method.body.with_changes(body=[*method.body.body[:-1], first, *between, last])
    return Place(line.body[-1], broken=True, edits={method.body: block})


def of_one_token(method: cst.FunctionDef) -> bool:
    """Whether the method knows of no token but ``</think>``, and asks nobody who may."""
    (function,) = ast.parse(cst.Module([method]).code).body
    assert isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
    lines = function.body[method.get_docstring() is not None :]
    nodes = [node for line in lines for node in ast.walk(line)]
    own = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)} - {"self"}
    own |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    ends = [node for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node) == END]
    selves = [each.value for each in ends]
    return len(function.args.args) == 2 and not any(
        is_elsewhere(node, own | KNOWN) for node in nodes if node not in selves
    )


def is_elsewhere(node: ast.AST, known: set[str]) -> bool:
    """Whether a token may come from here: from another name, or as a number or a text."""
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, (int, type(None))) or (node.value or 0) >= FEW
    if isinstance(node, ast.Name):
        return node.id not in known
    return isinstance(node, (ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal))
