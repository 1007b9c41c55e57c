"""The two defects of ``glm4_moe_mtp.py`` up to vLLM 0.13.0: names of weights that go nowhere."""

from __future__ import annotations

from typing import Any

import libcst as cst

from glmpatch.language import _
from glmpatch.patch import Place, Unrecognized
from glmpatch.source import tree
from glmpatch.source.snippets import Found, Snippet, fill

LAYER = Snippet("SPEC = get_spec_layer_idx_from_weight_name(CONFIG, NAME)")
OUTSIDE = Snippet("SPEC is None")
RENAMED = Snippet("NAME = self._rewrite_spec_layer_name(SPEC, NAME)")
SHARED = ("lm_head.weight", "model.embed_tokens.weight")
MAPPED = """\
if NAME == "lm_head.weight":
    SPEC = self.model.mtp_start_layer_idx
    NAME = f"model.layers.{SPEC}.shared_head.head.weight"
elif NAME == "model.embed_tokens.weight":
    SPEC = self.model.mtp_start_layer_idx
else:
    SPEC = get_spec_layer_idx_from_weight_name(CONFIG, NAME)
    if SPEC is None:
        continue
    NAME = self._rewrite_spec_layer_name(SPEC, NAME)
"""
BIAS = Snippet("NAME.endswith('.bias') and NAME not in PARAMS")
SCALE = Snippet(
    "NAME.endswith('.weight_scale') and NAME not in PARAMS",
    "NAME.endswith('weight_scale') and NAME not in PARAMS",
    "NAME.endswith('scale') and NAME not in PARAMS",
    "'weight_scale' in NAME and NAME not in PARAMS",
    "'scale' in NAME and NAME not in PARAMS",
)
SKIP = 'if NAME.endswith(".weight_scale") and NAME not in PARAMS:\n    continue\n'


def map_shared_weights(module: cst.Module) -> list[Place]:
    """``lm_head`` and ``model.embed_tokens`` of the whole model → the draft layer shares them."""
    load = load_weights(module)
    loop = weights_loop(load)
    tests = [each.test for each in tree.find_all(load, cst.If)]
    mapped = [next((test for test in tests if name in true_of(test)), None) for name in SHARED]
    if mapped[0] and all(mapped):
        return [Place(mapped[0])]
    found = next(LAYER.find(loop.body), None)
    if found is None or any(mapped):
        raise Unrecognized(_("not both of lm_head and embed_tokens are mapped"), load)
    body: list[Any] = list(loop.body.body)
    at = next((i for i, each in enumerate(body) if found.node in tree.children(each)), None)
    end = None if at is None else renamed(body, at)
    if at is None or end is None:
        raise Unrecognized(
            _("the draft layer's number is not asked in the loop itself"), found.node
        )
    new = fill(MAPPED, found)
    assert isinstance(new, cst.If)
    new = with_between(new, body[at + 2 : end])
    body[at : end + 1] = [new.with_changes(leading_lines=body[at].leading_lines)]
    return [Place(found.node, True, {loop.body: loop.body.with_changes(body=body)})]


def skip_unknown_scales(module: cst.Module) -> list[Place]:
    """A scale that the model has no parameter for is skipped in the last branch, and only there.

    Skipped before the renaming, as upstream's first try did, the experts' scales are lost.
    """
    load = load_weights(module)
    last = skips(load, BIAS)[-1:]
    if not last:
        raise Unrecognized(_("no bias is skipped in the last branch"), load)
    block, at, bias = last[0]
    found = skips(load, SCALE)
    late = [scale for where, _, scale in found if where is block]
    early = [(where.body[i], scale) for where, i, scale in found if where is not block]
    if late and not early:
        return [Place(late[0].node)]
    edits: dict[cst.CSTNode, cst.CSTNode | None] = {statement: None for statement, _ in early}
    if not late:
        new = fill(SKIP, bias)
        assert isinstance(new, cst.If)
        body: list[Any] = [*block.body[: at + 1], new, *block.body[at + 1 :]]
        edits[block] = block.with_changes(body=body)
    return [Place((early[0][1] if early else bias).node, True, edits)]


def load_weights(module: cst.Module) -> cst.FunctionDef:
    return tree.find_method(module, "Glm4MoeMTP", "load_weights")


def weights_loop(load: cst.FunctionDef) -> cst.For:
    """The loop over the checkpoint's weights."""
    for loop in tree.find_all(load, cst.For):
        if tree.dotted(loop.iter) == "weights" and isinstance(loop.body, cst.IndentedBlock):
            return loop
    raise Unrecognized(_("no loop over the weights"), load)


def true_of(test: cst.BaseExpression) -> list[object]:
    """The words that a name may be for a test to hold, whatever else is the case."""
    if isinstance(test, cst.BooleanOperation) and isinstance(test.operator, cst.Or):
        return [*true_of(test.left), *true_of(test.right)]
    if not isinstance(test, cst.Comparison) or len(test.comparisons) != 1:
        return []
    operator, other = test.comparisons[0].operator, test.comparisons[0].comparator
    words: list[cst.BaseExpression] = []
    if isinstance(operator, cst.Equal):
        words = [other]
    elif isinstance(operator, cst.In) and isinstance(other, (cst.Tuple, cst.List, cst.Set)):
        words = [each.value for each in other.elements]
    return [each.evaluated_value for each in words if isinstance(each, cst.SimpleString)]


def renamed(body: list[Any], asked: int) -> int | None:
    """Where the name is renamed that the draft layer's number was asked for; what is not of that
    layer must be skipped at once, and no loop may come between."""
    if skipped(next(iter(body[asked + 1 :]), None), OUTSIDE) is None:
        return None
    for at, each in enumerate(body[asked + 2 :], asked + 2):
        if any(RENAMED.match(small) for small in tree.children(each)):
            return at
        if not isinstance(each, (cst.SimpleStatementLine, cst.If)):
            return None
    return None


def with_between(mapped: cst.If, between: list[Any]) -> cst.If:
    """The mapping, with these statements before the renaming in its last branch, where alone what
    they do was done before."""
    if isinstance(mapped.orelse, cst.If):
        return mapped.with_changes(orelse=with_between(mapped.orelse, between))
    assert mapped.orelse is not None
    block = mapped.orelse.body
    body = [*block.body[:-1], *between, block.body[-1]]
    return mapped.with_changes(
        orelse=mapped.orelse.with_changes(body=block.with_changes(body=body))
    )


def skipped(statement: cst.CSTNode | None, test: Snippet) -> Found | None:
    """``if TEST: continue``, and no more."""
    if not isinstance(statement, cst.If) or statement.orelse is not None:
        return None
    inside = tree.find_all(statement.body, cst.BaseSmallStatement)  # type: ignore[type-abstract]
    if len(inside) != 1 or not isinstance(inside[0], cst.Continue):
        return None
    return test.match(statement.test)


def skips(within: cst.CSTNode, test: Snippet) -> list[tuple[cst.IndentedBlock, int, Found]]:
    """Each such statement: the block that it stands in, its number there, and its test."""
    return [
        (block, at, found)
        for block in tree.find_all(within, cst.IndentedBlock)
        for at, each in enumerate(block.body)
        if (found := skipped(each, test)) is not None
    ]
