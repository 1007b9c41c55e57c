"""The defects of ``glm4_moe.py`` up to vLLM 0.24.0: scales of the KV cache, and 0.10.0's router."""

from __future__ import annotations

from typing import Any

import libcst as cst

from glmpatch.language import _
from glmpatch.patch import Place, Unrecognized
from glmpatch.patches.glm4_moe.remapped import REMAP, taken_out
from glmpatch.source import tree
from glmpatch.source.snippets import Found, Snippet, fill, replace

LOADED = Snippet("LOADED_PARAMS.add(NAME)")
PAIR = Snippet("NAME, WEIGHT")
SCALES = """\
if NAME.endswith((".k_scale", ".v_scale")):
    NAME = maybe_remap_kv_scale_name(NAME, params_dict)
    if NAME is None or is_pp_missing_parameter(NAME, self):
        continue
    param = params_dict[NAME]
    weight_loader = getattr(param, "weight_loader", default_weight_loader)
    weight_loader(param, WEIGHT)
    loaded_params.add(NAME)
    continue
"""
GATE = Snippet(
    "ReplicatedLinear(INPUT, OUTPUT, bias=False, quant_config=None, prefix=PREFIX)",
    "ReplicatedLinear(INPUT, OUTPUT, bias=False, prefix=PREFIX)",
    "ReplicatedLinear(INPUT, OUTPUT, bias=False, quant_config=None)",
    "nn.Linear(INPUT, OUTPUT, bias=False)",
)
PLAIN_GATES = ("ReplicatedLinear", "nn.Linear")
EXACT_GATE = """\
nn.Linear(
    INPUT,
    OUTPUT,
    bias=False,
    dtype=torch.float32,
)
"""
LOGITS = Snippet(
    "ROUTER_LOGITS, REST = self.gate(HIDDEN)",
    "ROUTER_LOGITS = self.gate(HIDDEN)[0]",
    "ROUTER_LOGITS = self.gate(HIDDEN)",
    "ROUTER_LOGITS = F.linear(HIDDEN, self.gate.weight)",
    "ROUTER_LOGITS = nn.functional.linear(HIDDEN, self.gate.weight)",
    "ROUTER_LOGITS = torch.nn.functional.linear(HIDDEN, self.gate.weight)",
)
EXACT = Snippet(
    "HIDDEN.to(dtype=torch.float32)",
    "HIDDEN.to(torch.float32)",
    "HIDDEN.to(torch.float)",
    "HIDDEN.float()",
)
BIAS = Snippet("torch.empty(EXPERTS)")
EXACT_BIAS = Snippet(
    "torch.empty(EXPERTS, dtype=torch.float32)", "torch.empty(EXPERTS, dtype=torch.float)"
)


def load_cache_scales(module: cst.Module) -> list[Place]:
    """A k or v scale is remapped and loaded before the stacked projections can take its name.

    Remapped and no more, it falls through to the last branch, which remaps it again and drops it.
    """
    load = tree.find_method(module, "Glm4MoeModel", "load_weights")
    loop = weights_loop(load)
    block = loop.body
    body: list[Any] = list(block.body)
    stacked = next((i for i, each in enumerate(body) if isinstance(each, cst.For)), None)
    pair = PAIR.match(loop.target)
    if stacked is None or pair is None:
        raise Unrecognized(_("no loop over the stacked projections"), load)
    early = [i for i in range(stacked) if any(REMAP.find(body[i]))]
    if early and any(LOADED.find(body[early[0]])):
        return [Place(next(REMAP.find(body[early[0]])).node)]
    new = fill(SCALES, pair)
    assert isinstance(new, cst.If)
    kept = taken_out(body, stacked)
    kept.insert(after_draft(kept, kept.index(body[stacked])), new)
    place = next(REMAP.find(body[early[0]])).node if early else body[stacked].target
    return [Place(place, True, {block: block.with_changes(body=kept)})]


def exact_router_logits(module: cst.Module) -> list[Place]:
    """The gate, and what it is given, in float32."""
    moe = tree.find_class(module, "Glm4MoE")
    forward = tree.find_function(moe, "forward")
    logits = next(LOGITS.find(forward), None)
    if logits is None:
        raise Unrecognized(_("the gate is not called"), moe)
    if is_used(forward, logits):
        raise Unrecognized(_("the second value of the gate is used"), logits.node)
    exact = EXACT.match(logits["HIDDEN"])
    gates = assignments(moe, "self.gate")
    if not gates:
        raise Unrecognized(_("there is no gate"), moe)
    made = gates[0].value
    if not isinstance(made, cst.Call) or tree.dotted(made.func) not in PLAIN_GATES:
        return [Place(gates[0]), Place(logits.node)]  # A gate that sees to it itself.
    places = [Place(gates[0])]
    gate = GATE.match(made)
    if gate is not None:
        places = [Place(gates[0], True, replace(gate, EXACT_GATE))]
    assert isinstance(logits.node, cst.Assign)
    # Of a plain layer's answer ``[0]`` would be the first token.
    unpacked = "REST" in logits.holes or isinstance(logits.node.value, cst.Subscript)
    if exact is None or unpacked:
        given = logits if exact is None else exact
        new = fill(
            f"{logits.name('ROUTER_LOGITS')} = self.gate(HIDDEN.to(dtype=torch.float32))", given
        )
        return [*places, Place(logits.node, True, {logits.node: new})]
    return [*places, Place(logits.node)]


def exact_router_bias(module: cst.Module) -> list[Place]:
    """The correction of the experts' scores in float32: its values lie closer than bfloat16's."""
    moe = tree.find_class(module, "Glm4MoE")
    for assign in assignments(moe, "self.gate.e_score_correction_bias"):
        assert assign.value is not None
        for found in BIAS.find(assign.value):
            new = "torch.empty(EXPERTS, dtype=torch.float32)"
            return [Place(found.node, True, replace(found, new))]
        if next(EXACT_BIAS.find(assign.value), None):
            return [Place(assign)]
    raise Unrecognized(_("the correction of the experts' scores is not made"), moe)


def assignments(within: cst.CSTNode, name: str) -> list[cst.Assign | cst.AnnAssign]:
    """Where a value is given to this name, with or without a type."""
    plain = [n for n in tree.find_all(within, cst.Assign) if assigned(n.targets[0]) == name]
    typed = [n for n in tree.find_all(within, cst.AnnAssign) if assigned(n) == name and n.value]
    return [*plain, *typed]


def assigned(target: cst.AssignTarget | cst.AnnAssign) -> str | None:
    return tree.dotted(target.target)


def is_used(forward: cst.FunctionDef, logits: Found) -> bool:
    """Whether what comes beside the logits is needed; ``_`` never is."""
    rest = tree.dotted(logits.holes.get("REST"))
    if "REST" not in logits.holes or rest == "_":
        return False
    names = [tree.identifier(each) for each in tree.find_all(forward, cst.Name)]
    return rest is None or names.count(rest) > 1


def weights_loop(load: cst.FunctionDef) -> cst.For:
    """The loop over the checkpoint's weights."""
    for loop in tree.find_all(load, cst.For):
        if tree.dotted(loop.iter) == "weights" and isinstance(loop.body, cst.IndentedBlock):
            return loop
    raise Unrecognized(_("no loop over the weights"), load)


def after_draft(body: list[cst.BaseStatement], stacked: int) -> int:
    """Behind the test that leaves the draft layer out; at the top, where there is none."""
    tests = [i for i in range(stacked) if isinstance(body[i], cst.If)]
    return tests[0] + 1 if tests else 0
