"""The defects of ``glm4_moe.py`` up to vLLM 0.24.0: scales of the KV cache, and 0.10.0's router."""

from __future__ import annotations

from typing import Any

import libcst as cst

from glmpatch.language import _
from glmpatch.patch import Place, Unrecognized
from glmpatch.source import tree
from glmpatch.source.snippets import Snippet, fill, replace

REMAP = Snippet("maybe_remap_kv_scale_name(NAME, PARAMS)")
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
    "self.gate = ReplicatedLinear(INPUT, OUTPUT, bias=False, quant_config=None, prefix=PREFIX)",
    "self.gate = ReplicatedLinear(INPUT, OUTPUT, bias=False, prefix=PREFIX)",
    "self.gate = ReplicatedLinear(INPUT, OUTPUT, bias=False, quant_config=None)",
    "self.gate = nn.Linear(INPUT, OUTPUT, bias=False)",
)
PLAIN_GATES = ("ReplicatedLinear", "nn.Linear")
EXACT_GATE = """\
self.gate = nn.Linear(
    INPUT,
    OUTPUT,
    bias=False,
    dtype=torch.float32,
)
"""
LOGITS = Snippet("ROUTER_LOGITS, _ = self.gate(HIDDEN)", "ROUTER_LOGITS = self.gate(HIDDEN)")
EXACT = Snippet("HIDDEN.to(dtype=torch.float32)", "HIDDEN.to(torch.float32)", "HIDDEN.float()")
BIAS = Snippet("torch.empty(EXPERTS)")
EXACT_BIAS = Snippet("torch.empty(EXPERTS, dtype=torch.float32)")


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
    at = early[0] if early else after_draft(body, stacked)
    kept = [each for i, each in enumerate(body) if i not in early]
    kept.insert(at, new)
    place = next(REMAP.find(body[early[0]])).node if early else body[stacked].target
    return [Place(place, True, {block: block.with_changes(body=kept)})]


def exact_router_logits(module: cst.Module) -> list[Place]:
    """The gate, and what it is given, in float32."""
    moe = tree.find_class(module, "Glm4MoE")
    logits = next(LOGITS.find(tree.find_function(moe, "forward")), None)
    if logits is None:
        raise Unrecognized(_("the gate is not called"), moe)
    gate = next(GATE.find(moe), None)
    exact = EXACT.match(logits["HIDDEN"])
    gates = [n for n in tree.find_all(moe, cst.Assign) if assigned(n) == "self.gate"]
    if not gates:
        raise Unrecognized(_("there is no gate"), moe)
    made = gates[0].value
    if not isinstance(made, cst.Call) or tree.dotted(made.func) not in PLAIN_GATES:
        return [Place(gates[0]), Place(logits.node)]  # A gate that sees to it itself.
    places = [Place(gates[0])]
    if gate is not None:
        places = [Place(gate.node, True, replace(gate, EXACT_GATE))]
    unpacked = isinstance(logits.node, cst.Assign) and isinstance(
        logits.node.targets[0].target, cst.Tuple
    )
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
    for assign in tree.find_all(moe, cst.Assign):
        if assigned(assign) != "self.gate.e_score_correction_bias":
            continue
        for found in BIAS.find(assign.value):
            new = "torch.empty(EXPERTS, dtype=torch.float32)"
            return [Place(found.node, True, replace(found, new))]
        if next(EXACT_BIAS.find(assign.value), None):
            return [Place(assign)]
    raise Unrecognized(_("the correction of the experts' scores is not made"), moe)


def assigned(assign: cst.Assign) -> str | None:
    return tree.dotted(assign.targets[0].target)


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
