"""Edits that a rewrite can ask for, formatted as the file around them, and their execution.

An edit maps a node of the module to what stands there afterwards. Nothing else moves: a statement
that is removed takes its own line with it, and no comment or blank line above it. Comments inside
an expression or statement that is replaced or removed go above it, unless what replaces it holds
them too.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import libcst as cst

from glmpatch.language import _
from glmpatch.source.tree import children, comments, dotted, fields, is_node, walk

WIDTH = 80
"""Columns that vLLM's formatters (yapf, later ruff) allow a line."""


@functools.lru_cache(maxsize=1)
def printed(module: cst.Module) -> str:
    """The source of a module, printed once; that takes as long as half of parsing it."""
    return module.code


def bind(
    module: cst.Module, statement: cst.BaseSmallStatement, names: Sequence[str], call: cst.Call
) -> cst.Assign:
    """``first, second = call`` in place of a statement, wrapped where the line gets too long."""
    bound = cst.Tuple([cst.Element(cst.Name(name)) for name in names], lpar=(), rpar=())
    value = call.with_changes(lpar=(), rpar=())
    if isinstance(statement, cst.Assign):
        target = statement.targets[0].with_changes(target=bound)
        pair = statement.with_changes(targets=[target], value=value)
    else:
        pair = cst.Assign([cst.AssignTarget(bound)], value, semicolon=statement.semicolon)
    lines = module.code_for_node(pair).splitlines()
    if len(lines) > 1:
        return pair
    widest = max(len(line) for line in printed(module).split("\n"))
    if _column(module, statement) + len(lines[0]) > max(WIDTH, widest):
        pair = pair.with_changes(value=_wrap(module, call))
    return pair


def _column(module: cst.Module, node: cst.CSTNode) -> int:
    """Columns of indentation in front of a statement."""

    def search(block: cst.CSTNode, column: int) -> int | None:
        for each in children(block):
            if each is node:
                return column
            inner = isinstance(each, cst.IndentedBlock)
            own = len(_indent(module, each).expandtabs(8)) if inner else 0
            found = search(each, column + own)
            if found is not None:
                return found
        return None

    return search(module, 0) or 0


def _indent(module: cst.Module, block: cst.CSTNode) -> str:
    own = block.indent if isinstance(block, cst.IndentedBlock) else ""
    return module.default_indent if own is None else own


def _wrap(module: cst.Module, call: cst.Call) -> cst.Call:
    """The arguments on a line of their own, as the file itself wraps a call that is named alike."""
    model = next((n for n in walk(module) if _is_wrapped_alike(n, call)), None)
    if model is None:
        indent = cst.SimpleWhitespace(module.default_indent)
        hanging = cst.ParenthesizedWhitespace(indent=True, last_line=indent)
        return call.with_changes(whitespace_before_args=hanging)
    assert isinstance(model, cst.Call)
    args = [
        arg.with_changes(comma=like.comma, whitespace_after_arg=like.whitespace_after_arg)
        for arg, like in zip(call.args, model.args, strict=True)
    ]
    return call.with_changes(args=args, whitespace_before_args=model.whitespace_before_args)


def _is_wrapped_alike(node: cst.CSTNode, call: cst.Call) -> bool:
    return (
        isinstance(node, cst.Call)
        and node is not call
        and len(node.args) == len(call.args)
        and _last(node.func) == _last(call.func)
        and isinstance(node.whitespace_before_args, cst.ParenthesizedWhitespace)
    )


def _last(function: cst.CSTNode) -> str:
    """``layernorm`` for ``self.post_attention_layernorm``: what such a thing is called."""
    return (dotted(function) or "").rpartition(".")[2].rpartition("_")[2]


def add_keyword(call: cst.Call, keyword: str, value: str) -> cst.Call:
    """The call with ``keyword=value`` as its last argument, laid out as the others are."""
    new = cst.Arg(
        cst.parse_expression(value),
        keyword=cst.Name(keyword),
        equal=_equal_sign(call),
    )
    if not call.args:
        return call.with_changes(args=[new])
    *before, last = call.args
    between = _separator(call)
    if isinstance(last.comma, cst.Comma):
        # The trailing comma and what follows go to the new argument, a comment stays behind.
        new = new.with_changes(
            comma=_without_comment(last.comma), whitespace_after_arg=last.whitespace_after_arg
        )
        last = last.with_changes(comma=_with_comment_of(between, last.comma.whitespace_after))
    else:
        after = last.whitespace_after_arg
        last = last.with_changes(
            comma=_with_comment_of(between, after), whitespace_after_arg=cst.SimpleWhitespace("")
        )
        new = new.with_changes(whitespace_after_arg=_plain(after))
    return call.with_changes(args=[*before, last, new])


def _equal_sign(call: cst.Call) -> cst.AssignEqual:
    for arg in call.args:
        if isinstance(arg.equal, cst.AssignEqual):
            return arg.equal
    tight = cst.SimpleWhitespace("")
    return cst.AssignEqual(whitespace_before=tight, whitespace_after=tight)


def _separator(call: cst.Call) -> cst.Comma:
    """What stands between two arguments: the comma of the last pair that is on two lines."""
    commas = [arg.comma for arg in call.args[:-1] if isinstance(arg.comma, cst.Comma)]
    wrapped = [c for c in commas if isinstance(c.whitespace_after, cst.ParenthesizedWhitespace)]
    for comma in reversed(wrapped):
        return _without_comment(comma)
    if isinstance(call.whitespace_before_args, cst.ParenthesizedWhitespace) and not commas:
        return cst.Comma(whitespace_after=_plain(call.whitespace_before_args))
    return commas[-1] if commas else cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))


def _without_comment(comma: cst.Comma) -> cst.Comma:
    return comma.with_changes(whitespace_after=_plain(comma.whitespace_after))


def _plain(space: cst.BaseParenthesizableWhitespace) -> cst.BaseParenthesizableWhitespace:
    if not isinstance(space, cst.ParenthesizedWhitespace):
        return space
    first = space.first_line.with_changes(comment=None, whitespace=cst.SimpleWhitespace(""))
    return space.with_changes(first_line=first, empty_lines=())


def _with_comment_of(comma: cst.Comma, space: cst.BaseParenthesizableWhitespace) -> cst.Comma:
    """``comma`` with the comments that ``space`` holds kept where they are."""
    if not isinstance(space, cst.ParenthesizedWhitespace):
        return comma
    after = comma.whitespace_after
    if not isinstance(after, cst.ParenthesizedWhitespace):
        if space.first_line.comment is None and not space.empty_lines:
            return comma
        after = space
    kept = after.with_changes(first_line=space.first_line, empty_lines=space.empty_lines)
    return comma.with_changes(whitespace_after=kept)


Edits = Mapping[cst.CSTNode, cst.CSTNode | None]


class NoPlace(Exception):
    """An edit asks for a change that cannot be made where its node stands."""


def apply_edits(module: cst.Module, edits: Edits) -> cst.Module:
    """The module with all of the edits made; NoPlace when one of them cannot be.

    Edits may lie inside what another one puts in place.
    """
    done: set[cst.CSTNode] = set()
    lost: list[list[cst.EmptyLine]] = [[]]  # comments, by the statements that are being rebuilt

    def enter(node: cst.CSTNode) -> cst.CSTNode:
        if hasattr(node, "leading_lines"):
            lost.append([])
        replacement = edits.get(node)
        if replacement is None:
            return node
        done.add(node)
        # A block, or a statement that holds one, is as its rewrite lays it out.
        if isinstance(node, (cst.BaseExpression, cst.BaseSmallStatement)):
            lost[-1] += _lost(node, replacement)
        return replacement

    def leave(original: cst.CSTNode, node: cst.CSTNode) -> cst.CSTNode:
        if hasattr(original, "leading_lines"):
            return _below(lost.pop(), node)
        if isinstance(node, (cst.IndentedBlock, cst.Module)):
            return _without_gone(node, edits, done)
        if isinstance(node, cst.SimpleStatementSuite):
            kept, above = _kept(node, edits, done)
            lost[-1] += above
            return kept or node.with_changes(body=[cst.Pass()])
        return node

    changed = _rebuilt(module, enter, leave)
    if len(done) != len(edits):
        raise NoPlace(_("{number} edits find no place", number=len(edits) - len(done)))
    assert isinstance(changed, cst.Module)
    return changed


def _rebuilt(
    original: cst.CSTNode,
    enter: Callable[[cst.CSTNode], cst.CSTNode],
    leave: Callable[[cst.CSTNode, cst.CSTNode], cst.CSTNode],
) -> cst.CSTNode:
    """The tree with ``enter`` applied on the way down and ``leave`` on the way up.

    Does what a LibCST transformer does, several times as fast: untouched nodes are shared.
    """
    node = enter(original)
    changes: dict[str, object] = {}
    for name in fields(type(node)):
        old = getattr(node, name)
        if is_node(type(old)):
            new: object = _rebuilt(old, enter, leave)
        elif isinstance(old, (list, tuple)) and old and is_node(type(old[0])):
            each = [_rebuilt(child, enter, leave) for child in old]
            new = each if any(a is not b for a, b in zip(old, each, strict=True)) else old
        else:
            continue
        if new is not old:
            changes[name] = new
    return leave(original, node.with_changes(**changes) if changes else node)


def _lost(node: cst.CSTNode, replacement: cst.CSTNode | None) -> Iterator[cst.EmptyLine]:
    """The comments in a node that are not in what replaces it, each as a line of its own."""
    kept = Counter(() if replacement is None else comments(replacement))
    for each in comments(node):
        kept[each] -= 1
        if kept[each] < 0:
            yield cst.EmptyLine(comment=cst.Comment(each))


def _below(above: Sequence[cst.EmptyLine], statement: Any) -> cst.CSTNode:
    """The statement with these lines directly above it."""
    if above:
        statement = statement.with_changes(leading_lines=(*statement.leading_lines, *above))
    assert isinstance(statement, cst.CSTNode)
    return statement


def _without_gone(
    block: cst.IndentedBlock | cst.Module, edits: Edits, done: set[cst.CSTNode]
) -> cst.CSTNode:
    """The block without the statements that an edit removes, all comments kept."""
    body: list[cst.CSTNode] = []
    above: tuple[cst.EmptyLine, ...] = ()
    before = len(done)
    for each in block.body:
        statement, inside = _kept(each, edits, done)
        if statement is None:
            above += (*getattr(each, "leading_lines", ()), *inside)
            continue
        if above:
            lines = (*above, *statement.leading_lines)
            statement, above = statement.with_changes(leading_lines=lines), ()
        body.append(_below(inside, statement))
    if len(done) == before:
        return block
    if not body and isinstance(block, cst.IndentedBlock):
        body, above = [cst.SimpleStatementLine([cst.Pass()], leading_lines=above)], ()
    if not body:
        raise NoPlace(_("a block would be left empty"))
    return block.with_changes(body=body, footer=(*above, *block.footer))


def _kept(
    statement: Any, edits: Edits, done: set[cst.CSTNode]
) -> tuple[Any, Sequence[cst.EmptyLine]]:
    """A line or one-line block without what an edit removes; None where nothing is left.

    With it the comments inside what is gone.
    """
    several = isinstance(statement, (cst.SimpleStatementLine, cst.SimpleStatementSuite))
    nodes = statement.body if several else [statement]
    gone = [node for node in nodes if node in edits and edits[node] is None]
    done.update(gone)
    # The comments above a statement of several lines stay where they are.
    bare = [node if several else node.with_changes(leading_lines=()) for node in gone]
    inside = [line for node in bare for line in _lost(node, None)]
    rest = [node for node in nodes if node not in gone]
    if not gone or not rest:
        return statement if rest else None, inside
    rest[-1] = rest[-1].with_changes(semicolon=cst.MaybeSentinel.DEFAULT)
    return statement.with_changes(body=rest), inside


def line_numbers(module: cst.Module, nodes: Iterable[cst.CSTNode]) -> dict[cst.CSTNode, int]:
    """The line, from 1, of each of these nodes of the module.

    Found by printing the module with another name in place of the first one in each node:
    LibCST's own position metadata takes as long to import as the rest of LibCST.
    """
    anchors = {node: _anchor(node) for node in nodes}
    marks = {anchor: f"__glmpatch_mark_{i}__" for i, anchor in enumerate(set(anchors.values()))}

    def enter(node: cst.CSTNode) -> cst.CSTNode:
        mark = marks.get(node)
        if mark is None:
            return node
        if isinstance(node, cst.SimpleString):
            return node.with_changes(value=f"{node.prefix}'{mark}'")  # may be one of several
        name = cst.Name(mark)
        return cst.Expr(name) if isinstance(node, cst.BaseSmallStatement) else name

    code = _rebuilt(module, enter, lambda _original, node: node)
    assert isinstance(code, cst.Module)
    text = code.code
    lines = {anchor: text.partition(mark)[0].count("\n") + 1 for anchor, mark in marks.items()}
    return {node: lines[anchor] for node, anchor in anchors.items()}


def _anchor(node: cst.CSTNode) -> cst.CSTNode:
    """The first name in it; else, as in ``return 1``, what a name can stand for."""
    inside = list(walk(node))
    names = (each for each in inside if isinstance(each, cst.Name))
    kinds = (cst.BaseExpression, cst.BaseSmallStatement)
    return next(names, next((each for each in inside if isinstance(each, kinds)), node))
