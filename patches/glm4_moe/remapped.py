"""Takes out what remaps a scale before the stacked projections, and nothing beside it."""

from __future__ import annotations

from typing import Any

import libcst as cst

from glmpatch.language import _
from glmpatch.patch import Unrecognized
from glmpatch.source import tree
from glmpatch.source.snippets import Snippet

REMAP = Snippet("maybe_remap_kv_scale_name(NAME, PARAMS)")
REMAPPED = Snippet("NAME = maybe_remap_kv_scale_name(NAME, PARAMS)")
DROPPED = Snippet("NAME is None")


def taken_out(body: list[Any], stacked: int) -> list[Any]:
    """The statements of the loop without those that remap a scale before the one at ``stacked``.

    Raises:
        Unrecognized: something else would be taken out with them.
    """
    kept = []
    waiting = body[:stacked]
    while waiting:
        each = waiting.pop(0)
        if not any(REMAP.find(each)):
            kept.append(each)
        elif waiting and _remaps([each, waiting[0]]):
            waiting.pop(0)
        else:
            kept.extend(_rest(each))
    return [*kept, *body[stacked:]]


def _rest(statement: cst.CSTNode) -> list[cst.If]:
    """What is left of an ``if``: nothing, or the branches before the last one."""
    if isinstance(statement, cst.If):
        if statement.orelse is None and _remaps(list(statement.body.body)):
            return []
        if isinstance(statement.orelse, cst.If) and not any(REMAP.find(statement.body)):
            rest = _rest(statement.orelse)
            return [statement.with_changes(orelse=rest[0] if rest else None)]
    raise Unrecognized(_("a scale is remapped among other statements"), statement)


def _remaps(statements: list[Any]) -> bool:
    """Whether these are the remapping and the skip of what it drops, and no more."""
    if len(statements) != 2 or not isinstance(statements[1], cst.If):
        return False
    remapping, skip = statements
    small = [*_small(remapping), *_small(skip.body)]
    if len(small) != 2 or not isinstance(small[1], cst.Continue) or skip.orelse is not None:
        return False
    remapped, dropped = REMAPPED.match(small[0]), DROPPED.match(skip.test)
    if remapped is None or dropped is None:
        return False
    return remapped.name("NAME") == dropped.name("NAME")


def _small(statement: cst.CSTNode) -> list[cst.BaseSmallStatement]:
    return tree.find_all(statement, cst.BaseSmallStatement)  # type: ignore[type-abstract]
