"""The four defects of ``glm4.py`` in vLLM 0.8.4, each with its wrong forms and what is right."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import libcst as cst

from glmpatch.language import _
from glmpatch.patch import Place, Unrecognized
from glmpatch.source import edits, tree
from glmpatch.source.edits import Edits
from glmpatch.source.snippets import Snippet, fill

NORM = "self.post_attention_layernorm"
FIRST = Snippet(
    "PAIR[0]", "next(iter(PAIR))", "PAIR[0] if TEST else PAIR", "PAIR if TEST else PAIR[0]"
)
FIRST_OF_TWO = Snippet("FIRST, REST = PAIR", "FIRST, *REST = PAIR")
SAME_PAIR = Snippet("tuple(PAIR)", "list(PAIR)")
IS_PAIR = Snippet(
    "isinstance(PAIR, tuple)",
    "isinstance(PAIR, (tuple, list))",
    "isinstance(PAIR, (list, tuple))",
    "type(PAIR) is tuple",
    "len(PAIR) == 2",
)
SUM = Snippet("RESIDUAL + KEPT", "torch.add(RESIDUAL, KEPT)", "RESIDUAL.add(KEPT)")
ADDED = Snippet("KEPT += RESIDUAL", "KEPT.add_(RESIDUAL)")
CAST = Snippet("X.float()", "X.to(...)", "X.clone()", "X.contiguous()")
WIDTH = Snippet("int(KEPT * FACTOR)", "int(FACTOR * KEPT)", "KEPT * FACTOR", "FACTOR * KEPT")
HALF = Snippet("WIDTH // 2", "WIDTH >> 1", "int(WIDTH / 2)")
HALVED = Snippet(
    *(f"{width} {by}= N" for width in ("WIDTH.rotary_dim", "rotary_dim") for by in ("//", "*", "/"))
)
Bound = (cst.Assign, cst.AnnAssign)


def unpack_fused_norm(module: cst.Module) -> list[Place]:
    """``h = norm(h, residual)``, with or without ``[0]``, now or later → ``h, residual = …``.

    Taking the first value alone works only where the kernel updates the residual in place.
    """
    forward, call = fused(module)
    if tree.argument(call, 1, "residual") is None:
        return [Place(call)]  # The residual is added by hand, as Transformers does.
    residual = residual_of(call)
    assign = statement_of(forward, call)
    found = (each.node for each in FIRST.find(forward) if same_pair(each["PAIR"]) is call)
    value = next(found, call)
    bound = assign is not None and value in (assign.value, same_pair(assign.value))
    pair = target(assign) if assign is not None and bound else call
    if assign is None or not isinstance(pair, (cst.Name, cst.Tuple, cst.List)):
        return [Place(call, broken=True, edits=bound_above(module, forward, call, value))]
    own = set(tree.walk(assign))
    taken = {tree.dotted(each) for each in tree.walk(forward) if each not in own}
    if not isinstance(pair, cst.Name):
        first, second = [*(tree.dotted(each.value) or "" for each in pair.elements), "", ""][:2]
        swapped = first == residual and second == given(forward)
        if first in taken and second in taken and not swapped:
            return [Place(call)]
        first = given(forward) or first
        edited: dict[cst.CSTNode, cst.CSTNode | None] = {}
    else:
        first = tree.identifier(pair)
        if first not in taken:
            first = given(forward) or first
        if any(Snippet(f"{first}[1]", f"{first}[-1]").find(forward)):
            return [Place(call)]
        named = [tree.dotted(each) for each in tree.walk(forward)]
        for each in FIRST_OF_TWO.find(forward):
            rest = tree.dotted(each["REST"])
            if each.name("PAIR") == first and (rest is None or named.count(rest) > 1):
                return [Place(call)]
        edited = unwrapped(forward, assign, first)
    edited[assign] = edits.bind(module, assign, (first, residual), call)
    return [Place(call, broken=True, edits=edited)]


def same_pair(node: cst.CSTNode | None) -> cst.CSTNode | None:
    """What a pair is made of by ``tuple(…)`` or ``list(…)``, or the node itself."""
    same = SAME_PAIR.match(node) if node is not None else None
    return same_pair(same["PAIR"]) if same else node


def bound_above(
    module: cst.Module, forward: cst.FunctionDef, call: cst.Call, value: cst.CSTNode
) -> Edits:
    """``h = mlp(norm(h, residual)[0])`` → ``h, residual = norm(h, residual)``, ``h = mlp(h)``."""
    given = tree.argument(call, 0, "x")
    first = (tree.dotted(given.value) if given else None) or "hidden_states"
    for block in tree.find_all(forward, cst.IndentedBlock):
        for at, line in enumerate(block.body):
            if isinstance(line, cst.SimpleStatementLine) and takes_first(line.body[0], call, value):
                statement = line.body[0]
                pair = edits.bind(module, statement, (first, residual_of(call)), call)
                if isinstance(statement, cst.Expr) and statement.value is call:
                    return {statement: pair}
                pair = pair.with_changes(semicolon=cst.MaybeSentinel.DEFAULT)
                above = cst.SimpleStatementLine([pair], leading_lines=line.leading_lines)
                lines = [above, line.with_changes(leading_lines=())]
                body = [*block.body[:at], *lines, *block.body[at + 1 :]]
                return {block: block.with_changes(body=body), value: cst.Name(first)}
    raise Unrecognized(_("the result of {name} is not bound to a name", name=NORM), call)


def takes_first(statement: cst.BaseSmallStatement, call: cst.Call, value: cst.CSTNode) -> bool:
    """Whether a statement calls for the pair whenever it runs, and takes its first value alone.

    Where a pair is bound, or passed on as it is, its first value is what was meant.
    """
    inside = list(tree.walk(statement))
    kinds = (cst.Lambda, cst.BaseComp, cst.IfExp, cst.NamedExpr)
    otherwise = any(call in tree.walk(each) for each in inside if isinstance(each, kinds))
    passed = any(isinstance(e, cst.Arg) and e.value is value and not e.star for e in inside)
    bound = getattr(statement, "value", None) is call and not isinstance(statement, cst.Return)
    return call in inside and not otherwise and (value is not call or passed or bound)


def given(forward: cst.FunctionDef) -> str | None:
    """The name of what the MLP is given."""
    found = [each.args[0].value for each in tree.calls(forward, "self.mlp") if each.args]
    return tree.dotted(found[0]) if found else None


def unwrapped(
    forward: cst.FunctionDef, assign: cst.CSTNode, pair: str
) -> dict[cst.CSTNode, cst.CSTNode | None]:
    """Without the steps from the pair to its first value, which ``pair`` then is."""
    edited: dict[cst.CSTNode, cst.CSTNode | None] = {}
    own = set(tree.walk(assign))
    for step in (each for each in FIRST.find(forward) if each.node not in own):
        if step.name("PAIR") == pair and not any(step.node in tree.walk(n) for n in edited):
            edited[step.node] = cst.Name(pair)
    for step in FIRST_OF_TWO.find(forward):
        if step.name("PAIR") == pair:
            same = step.name("FIRST") == pair
            edited[step.node] = None if same else fill("FIRST = PAIR", step)
    for each in tree.find_all(forward, cst.Assign):  # also those under a test
        if each.value in edited and tree.dotted(each.targets[0].target) == pair:
            edited[each] = None
    for claim in tree.find_all(forward, cst.Assert):
        if is_pair(claim.test, pair):
            edited[claim] = None
    for test in tree.find_all(forward, cst.If):
        inside = tree.find_all(test.body, cst.BaseSmallStatement)  # type: ignore[type-abstract]
        if test.orelse is None and all(each in edited for each in inside):
            edited[test] = None
    gone = [node for node, edit in edited.items() if edit is None]
    within = {each for node in gone for each in tree.walk(node) if each is not node}
    return {node: edit for node, edit in edited.items() if node not in within}


def is_pair(test: cst.CSTNode, name: str) -> bool:
    """Whether a test holds for the pair, and so no longer for its first value."""
    if isinstance(test, cst.BooleanOperation):
        return is_pair(test.left, name) and is_pair(test.right, name)
    found = IS_PAIR.match(test)
    return found is not None and found.name("PAIR") == name


def drop_double_residual(module: cst.Module) -> list[Place]:
    """``h = residual + h`` before the fused norm and before the return → nothing: it adds it."""
    forward, call = fused(module)
    residuals = {"residual", residual_of(call)}
    order = {each: number for number, each in enumerate(tree.walk(forward))}
    before: dict[cst.CSTNode, cst.CSTNode | None] = {}
    after: dict[cst.CSTNode, cst.CSTNode | None] = {}
    for node, kept in additions(forward, residuals):
        assign = statement_of(forward, node)
        gone = isinstance(node, cst.AugAssign)
        whole = node
        alone = next((e for e in tree.find_all(forward, cst.Expr) if e.value is node), None)
        if alone is not None:
            gone, whole = True, alone
        if assign is not None and assign.value is node:
            gone = tree.dotted(target(assign)) in {tree.dotted(kept), *residuals}
            whole = assign if gone else node
        wanted: dict[cst.CSTNode, cst.CSTNode | None] = {whole: None if gone else kept}
        for copy in tree.find_all(forward, cst.Assign) if gone else ():
            sum_taken = tree.dotted(copy.value) in residuals and order[copy] > order[node]
            if sum_taken and tree.dotted(target(copy)) == tree.dotted(kept):
                wanted[copy] = None
        inside = order[node] < order[call] or node in tree.walk(call)
        (before if inside else after).update(wanted)
    if tree.argument(call, 1, "residual") is None:
        before = {}
    returned = tree.find_all(forward, cst.Return)
    last: cst.CSTNode = returned[-1] if returned else forward
    return [
        Place(next(iter(found), place), broken=bool(found), edits=found)
        for place, found in ((call, before), (last, after))
    ]


def additions(
    forward: cst.FunctionDef, residuals: Collection[str]
) -> Iterator[tuple[cst.CSTNode, cst.CSTNode]]:
    """Each ``residual + x``, ``x += residual`` and ``residual += x``, with its ``x``."""
    for found in (*SUM.find(forward), *ADDED.find(forward)):
        one, other = found["RESIDUAL"], found["KEPT"]
        if is_residual(other, residuals):
            one, other = other, one
        if is_residual(one, residuals):
            yield found.node, other


def is_residual(node: cst.CSTNode, residuals: Collection[str]) -> bool:
    """Whether it is the residual, whatever its precision."""
    return tree.dotted(uncast(node)) in residuals


def residual_of(call: cst.Call) -> str:
    """What the layer calls the residual, as the fused norm is given it."""
    added = tree.argument(call, 1, "residual")
    return (tree.dotted(uncast(added.value)) if added else None) or "residual"


def uncast(node: cst.CSTNode) -> cst.CSTNode:
    cast = CAST.match(node)
    return uncast(cast["X"]) if cast else node


def rotary_dim_once(module: cst.Module) -> list[Place]:
    """``int(factor * head)`` where ``get_rope`` is given the factor too → ``head``."""
    init, rope = get_rope(module)
    factor = tree.argument(rope, 7, "partial_rotary_factor")
    if factor is None or tree.text(factor.value) in ("1", "1.0"):
        return [Place(rope)]
    values = tree.find_all(init, cst.Assign)
    factors = {tree.dotted(target(e)) for e in values if "factor" in (tree.dotted(e.value) or "")}
    factors.add(tree.text(factor.value))
    for halved in HALVED.find(init):
        return [Place(halved.node, broken=True, edits={halved.node: None})]
    for found in WIDTH.find(init):
        for whole, part in (("KEPT", "FACTOR"), ("FACTOR", "KEPT")):
            of, by = found.name(whole), found.name(part)
            named = tree.dotted(found[whole]) is not None and "rotary_factor" in by
            is_factor = "factor" in by or by == "0.5" or by in factors
            if (named or "head" in of or "rotary_dim" in of) and is_factor:
                kept = found[whole].with_changes(lpar=(), rpar=())
                return [Place(found.node, broken=True, edits={found.node: kept})]
    widths = {*(each.value for each in values), *(each.value for each in rope.args)}
    for found in HALF.find(init):
        if found.node in widths and found.name("WIDTH").endswith(
            ("head_dim", "head_size", "rotary_dim")
        ):
            return [Place(found.node, broken=True, edits={found.node: found["WIDTH"]})]
    return [Place(rope)]


def interleaved_rope(module: cst.Module) -> list[Place]:
    """``get_rope(…)`` → ``get_rope(…, is_neox_style=False)``: GLM-4 rotates neighbouring pairs."""
    _call, rope = get_rope(module)
    style = tree.argument(rope, 4, "is_neox_style")
    if style is None:
        wanted: Edits = {rope: edits.add_keyword(rope, "is_neox_style", "False")}
    elif tree.text(style.value) == "False":
        return [Place(rope)]
    else:
        wanted = {style.value: cst.Name("False")}
    return [Place(rope, broken=True, edits=wanted)]


def fused(module: cst.Module) -> tuple[cst.FunctionDef, cst.Call]:
    """The layer's ``forward`` and its last call of the norm between attention and MLP."""
    forward = tree.find_method(module, "Glm4DecoderLayer", "forward")
    found = called(module, forward, NORM)
    if not found:
        raise Unrecognized(_("{name} is not called", name=NORM), forward)
    # One without it may be what a try falls back to.
    added = [each for each in found if tree.argument(each, 1, "residual")]
    return forward, (added or found)[-1]


def get_rope(module: cst.Module) -> tuple[cst.FunctionDef, cst.Call]:
    init = tree.find_method(module, "Glm4Attention", "__init__")
    found = called(module, init, "get_rope")
    if len(found) != 1:
        raise Unrecognized(
            _("{number} calls of get_rope", number=len(found)), found[-1] if found else init
        )
    return init, found[0]


def called(module: cst.Module, within: cst.FunctionDef, name: str) -> list[cst.Call]:
    """The calls of a function, also by another name, in a module, or as a layer's ``forward``."""
    names = {name}
    for alias in tree.find_all(module, cst.ImportAlias):
        if alias.asname is not None and tree.dotted(alias.name) == name:
            names.add(tree.dotted(alias.asname.name) or name)
    for assign in tree.find_all(within, cst.Assign):
        if (tree.dotted(assign.value) or "") in names:
            names.add(tree.dotted(target(assign)) or name)

    def is_one(function: str) -> bool:
        return function.removesuffix(".forward") in names or function.endswith(f".{name}")

    return [e for e in tree.find_all(within, cst.Call) if is_one(tree.dotted(e.func) or "")]


def statement_of(forward: cst.FunctionDef, node: cst.CSTNode) -> cst.Assign | cst.AnnAssign | None:
    """The assignment that holds an expression."""
    for each in tree.walk(forward):
        if isinstance(each, Bound) and node in tree.walk(each):
            return each
    return None


def target(assign: cst.Assign | cst.AnnAssign) -> cst.CSTNode:
    """The name that is bound; the first one, where there are several."""
    return assign.target if isinstance(assign, cst.AnnAssign) else assign.targets[0].target
