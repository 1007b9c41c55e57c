"""GLM-4-0414 in vLLM 0.8.4: four defects of ``glm4.py``, fixed upstream in 0.8.5.

https://github.com/vllm-project/vllm/pull/16618
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patcher.patch import Patch, PatchState, Place, Proof, Rewrite, Unrecognized, lazy

if TYPE_CHECKING:
    import libcst as cst

    from patcher import editing, reading
    from patcher.reading import Flow, Value
else:
    cst = lazy("libcst")
    editing = lazy("patcher.editing")
    reading = lazy("patcher.reading")

LAYERS = "vllm.model_executor.layers"
FUSED = "self.post_attention_layernorm"
PARTS = {
    "self_attn": "Glm4Attention",
    "mlp": "Glm4MLP",
    "input_layernorm": "RMSNorm",
    "post_attention_layernorm": "RMSNorm",
    "post_self_attn_layernorm": "RMSNorm",
    "post_mlp_layernorm": "RMSNorm",
}
"""Attributes of the layer and the classes that they are made of."""
LAYER_PARTS = tuple(f"self.{part}" for part in PARTS)
FACTOR = repr("partial_rotary_factor")
GET_ROPE = (
    "head_size",
    "rotary_dim",
    "max_position",
    "base",
    "is_neox_style",
    "rope_scaling",
    "dtype",
    "partial_rotary_factor",
)
"""Parameters of ``get_rope`` in vLLM 0.8.4, in order."""
NEWER_GET_ROPE = {"head_size", "max_position", "rope_parameters", "is_neox_style"}
"""What ``get_rope`` is given from vLLM 0.13 on; it takes the factor out of ``rope_parameters``."""


# -- the decoder layer --------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """``Glm4DecoderLayer.forward`` as far as the rewrites need it.

    The layer takes ``hidden`` and ``residual``, norms them, and from there computes, when right::

        attention    = self.post_self_attn_layernorm(self.self_attn(positions, normed))
        fused        = self.post_attention_layernorm(attention, residual)   # a pair
        return self.post_mlp_layernorm(self.mlp(fused[0])), fused[1]

    ``into_fused`` and ``returned`` may carry ``residual +`` in front of them, ``into_mlp`` may be
    the pair itself, ``carried`` (the residual that is returned) may be the old one.
    """

    owner: cst.ClassDef
    method: cst.FunctionDef
    flow: Flow
    fused: Value
    attention: Value
    into_fused: Value
    into_mlp: Value
    mlp: Value
    returned: Value
    carried: Value

    @property
    def keeps_residual(self) -> bool:
        """Whether the sum that the fused norm made is what the layer hands on."""
        return self.carried.text == f"{self.fused.text}[1]"


@functools.lru_cache(maxsize=1)
def read_layer(module: cst.Module) -> Layer:
    reading.require_import(module, "RMSNorm", f"{LAYERS}.layernorm")
    reading.require_builtins(module, "isinstance", "tuple")
    layer = reading.find_class(module, "Glm4DecoderLayer")
    reading.require_attributes(module, layer, *PARTS)
    built = reading.Flow().run(reading.find_method(layer, "__init__").body)
    for part in PARTS:
        value = built.values.get(f"self.{part}")
        if value is None or not value.is_call(PARTS[part]):
            where = value.node if value else layer
            raise Unrecognized(f"self.{part} is not known to be a {PARTS[part]}", where)
    forward = reading.find_method(layer, "forward")
    require_once(forward)
    flow = run_forward(forward)

    result = flow.returned
    if result is None or result.kind != "tuple" or len(result.parts) != 2:
        where = result.node if result is not None else forward
        raise Unrecognized("the layer does not return hidden states and residual", where)
    returned, carried = (part.known() for part in result.parts)
    mlp = addend(returned, "self.post_mlp_layernorm")
    into_mlp = argument(argument(mlp, "self.post_mlp_layernorm"), "self.mlp")
    fused = into_mlp.parts[0] if into_mlp.kind == "item" and into_mlp.name == "0" else into_mlp
    if not fused.known().is_call(FUSED):
        raise Unrecognized(f"self.mlp is not given the result of {FUSED}", fused.node)
    given = fused.arguments("x", "residual")
    if set(given) != {"x", "residual"} or given["residual"].known().text != "<residual>":
        raise Unrecognized(f"{FUSED} is not given the residual as it came", fused.node)
    into_fused = given["x"].known()
    attention = addend(into_fused, "self.post_self_attn_layernorm")
    attended = argument(attention, "self.post_self_attn_layernorm")
    if not attended.is_call("self.self_attn"):
        raise Unrecognized("expected the result of self.self_attn here", attended.node)
    require_given(module, attended)
    if carried.text not in ("<residual>", f"{fused.text}[1]"):
        raise Unrecognized("the residual that is returned has an unknown form", carried.node)
    for value, kept in ((returned, mlp), (into_fused, attention)):
        if value is not kept:
            added = value.parts[1] if value.parts[0] is kept else value.parts[0]
            if added.text not in ("<residual>", f"{fused.text}[1]"):
                raise Unrecognized("something else than the residual is added here", value.node)
    return Layer(
        layer, forward, flow, fused, attention, into_fused, into_mlp, mlp, returned, carried
    )


def require_once(forward: cst.FunctionDef) -> None:
    """Each part of the layer is used once, the first norm in two branches.

    The fused norm writes in place on some devices, so that calling it twice is not the same.
    """
    used = [reading.dotted(node) for node in reading.walk(forward)]
    for part in PARTS:
        if used.count(f"self.{part}") > (2 if part == "input_layernorm" else 1):
            raise Unrecognized(f"self.{part} is used more than once", forward)


def require_given(module: cst.Module, call: Value) -> None:
    """The attention must be given the positions as they came, and the normed hidden states."""
    attention = reading.find_class(module, "Glm4Attention")
    method = reading.find_method(attention, "forward", followed=False)
    parameters = [p.name.value for p in (*method.params.posonly_params, *method.params.params)]
    given = call.arguments(*parameters[1:])
    for name, meaning in (("positions", "positions"), ("hidden_states", "<normed>")):
        if name not in given or given[name].text != meaning:
            raise Unrecognized(f"the attention is not given its {name}", call.node)


def run_forward(forward: cst.FunctionDef) -> Flow:
    """Follow the method past its first norm, where hidden states and residual get their names."""
    parameters = {p.name.value for p in forward.params.params}
    statements = list(forward.body.body)
    for position, node in enumerate(statements):
        found = first_norm(node) if isinstance(node, cst.If) else None
        if found is None:
            continue
        hidden, residual, *others = found
        if not {hidden, residual} <= parameters:
            break
        flow = reading.Flow(pairs=(FUSED,), fresh=LAYER_PARTS)
        flow.run(cst.IndentedBlock(statements[:position]))  # type: ignore[arg-type]
        if hidden in flow.values or residual in flow.values:
            raise Unrecognized("hidden states or residual are changed before the first norm", node)
        flow.values |= {name: reading.Value("unknown", "", node, node, name) for name in others}
        for name, meaning in ((hidden, "<normed>"), (residual, "<residual>")):
            flow.values[name] = reading.Value("name", meaning, node, node, name)
        flow.run(cst.IndentedBlock(statements[position + 1 :]))  # type: ignore[arg-type]
        if "positions" in flow.values:
            flow.values["positions"].known()  # The next layer gets the same tensor.
        return flow
    raise Unrecognized("the first norm of the layer has an unknown form", forward)


def first_norm(node: cst.If) -> tuple[str, ...] | None:
    """The names of hidden states and residual where ``node`` is this, else None::

    if residual is None:
        residual = hidden_states
        hidden_states = self.input_layernorm(hidden_states)
    else:
        hidden_states, residual = self.input_layernorm(hidden_states, residual)

    They are followed by the names of all else that is assigned here.
    """
    test = reading.text(node.test)
    residual, _, condition = test.partition(" is ")
    if condition not in ("None", "not None") or not isinstance(node.orelse, cst.Else):
        return None
    first, later = node.body, node.orelse.body
    if condition == "not None":
        first, later = later, first
    start = branch(first).values
    for hidden, normed in start.items():
        kept = start.get(residual)
        if kept is not None and kept.text == hidden and normed.is_call("self.input_layernorm"):
            if [part.text for part in normed.arguments("x").values()] != [hidden]:
                continue
            after = branch(later).values
            if hidden not in after or residual not in after:
                continue
            both = [after[hidden], after[residual]]
            if share(start, normed, kept) or share(after, *both):
                continue  # Other names for the same tensors would be lost from sight.
            if all(v.kind == "item" and v.name == str(i) for i, v in enumerate(both)):
                call = both[0].parts[0]
                if call is both[1].parts[0] and call.is_call("self.input_layernorm"):
                    given = call.arguments("x", "residual")
                    if {k: v.text for k, v in given.items()} == {"x": hidden, "residual": residual}:
                        every = start | after
                        rest = [n for n, v in every.items() if v.text != n]
                        return hidden, residual, *(n for n in rest if n not in (hidden, residual))
    return None


def branch(block: cst.BaseSuite) -> Flow:
    norm = ("self.input_layernorm",)
    flow = reading.Flow(fresh=norm, pairs=norm).run(block)
    if flow.returned is not None:
        raise Unrecognized("an early return", flow.returned.node)
    return flow


def share(values: dict[str, Value], *held: Value) -> bool:
    """Whether a third name may share its tensor with the two that are held."""
    storage = set().union(*(value.storage(LAYER_PARTS) for value in held))
    return (
        any(value not in held and storage & value.storage(LAYER_PARTS) for value in values.values())
        or sum(value in held for value in values.values()) > 2
    )


def addend(value: Value, function: str) -> Value:
    """The call of ``function`` that is ``value``, or one of the two things added up in it."""
    for part in (value, *(value.parts if value.kind == "add" else ())):
        if part.known().is_call(function):
            return part
    raise Unrecognized(f"expected the result of {function} here", value.node)


def argument(call: Value, function: str) -> Value:
    """The one argument of a call of ``function``."""
    if (
        not call.known().is_call(function)
        or len(call.parts) != 1
        or call.keywords[0] in ("*", "**")
    ):
        raise Unrecognized(f"expected {function} with one argument here", call.node)
    return call.parts[0].known()


def unpack_fused_norm(module: cst.Module) -> list[Place]:
    """Both values of the fused norm must be bound: the second is the residual from there on.

    Taking the first alone works only where the kernel updates the residual in place.
    """
    layer = read_layer(module)
    unpacked = layer.into_mlp.kind == "item"
    if unpacked and layer.keeps_residual:
        return [Place(layer.fused.node)]
    if layer.keeps_residual:
        raise Unrecognized("the pair is given to self.mlp, though unpacked", layer.mlp.node)
    return [Place(layer.fused.node, broken=True, edits=bind_both(module, layer))]


def bind_both(module: cst.Module, layer: Layer) -> dict[cst.CSTNode, cst.CSTNode | None]:
    """To ``h, r = norm(h, r)``, from ``h = norm(h, r)`` with or without ``[0]``, now or later, or
    from ``h, _ = norm(h, r)``."""
    fused, first, flow = layer.fused, layer.into_mlp, layer.flow
    edits: dict[cst.CSTNode, cst.CSTNode | None] = {}
    assign = flow.binding.get(fused) or flow.binding.get(first)
    if assign is None or len(assign.targets) != 1:
        raise Unrecognized(f"the result of {FUSED} is not bound to a name", fused.node)
    target: cst.BaseExpression = assign.targets[0].target
    if isinstance(target, cst.Tuple):
        target, second = (element.value for element in target.elements)
        if (name := reading.dotted(second)) != "_":
            used = [reading.dotted(node) for node in reading.walk(layer.method)].count(name)
            if used > 1 and name != "residual":
                raise Unrecognized(f"{name} is bound here and used elsewhere", assign)
    elif first is not fused and flow.binding.get(fused) is assign:
        # h = norm(h, r), and later h[0]: in a statement of its own, under a test, or in a call
        for value, statement in flow.reported:
            kinds = (cst.Assert, cst.Subscript)
            if value is fused and any(isinstance(n, kinds) for n in reading.walk(statement)):
                raise Unrecognized("the pair is expected here", statement)
        edits = unwrapped(flow, first, target)
    arguments = fused.node.args if isinstance(fused.node, cst.Call) else ()
    given = zip(arguments, fused.parts, strict=True)
    residual = next(arg.value for arg, part in given if part.text == "<residual>")
    if not isinstance(target, cst.Name) or not isinstance(residual, cst.Name):
        raise Unrecognized(f"the result of {FUSED} is not bound to a plain name", assign)
    edits[assign] = editing.assign_pair(
        module, (layer.owner, layer.method), assign, target, residual, fused.node
    )
    return edits


def unwrapped(
    flow: Flow, first: Value, pair: cst.BaseExpression
) -> dict[cst.CSTNode, cst.CSTNode | None]:
    """Without the step from the pair to its first value, which ``pair`` then is.

    The step is a statement of its own, ``h = h[0]`` or ``h, _ = h``, which goes, with the test
    that it may stand under; or it is a mere ``h[0]`` somewhere.
    """
    step = first.statement
    if isinstance(step, cst.Assign) and len(step.targets) == 1:
        target: cst.BaseExpression = step.targets[0].target
        if isinstance(target, cst.Tuple):
            target = target.elements[0].value
        whole = step.value is first.node or reading.dotted(step.value) is not None
        if whole and reading.dotted(target) == reading.dotted(pair):
            guard = flow.guards.get(step)
            if guard is None:
                return {step: None}
            # Never entered once the pair is unpacked: it goes, or stays with what else it does.
            inside = [n for n in reading.walk(guard.body) if isinstance(n, cst.BaseSmallStatement)]
            return {guard: None} if inside == [step] else {}
    if not isinstance(first.node, cst.Subscript):
        raise Unrecognized("the pair is unpacked in a form that is not known", step)
    return {first.node: pair}


def drop_double_residual(module: cst.Module) -> list[Place]:
    """The next fused norm adds the residual; adding it by hand as well counts it twice."""
    layer = read_layer(module)
    return [
        Place(fixed.node)
        if value is fixed
        else Place(value.node, broken=True, edits=editing.drop_addend(value, fixed))
        for value, fixed in (
            (layer.into_fused, layer.attention),
            (layer.returned, layer.mlp),
        )
    ]


# -- the rotary embedding -----------------------------------------------------------------------


@dataclass(frozen=True)
class Rope:
    """The one call of ``get_rope`` in ``Glm4Attention.__init__`` and its arguments' values."""

    owner: cst.ClassDef
    flow: Flow
    call: cst.Call
    value: Value
    given: dict[str, Value]

    @property
    def head(self) -> Value:
        if "head_size" not in self.given:
            raise Unrecognized("get_rope is not given the head size", self.call)
        return self.given["head_size"].known()

    def require_unused(self, width: Value) -> None:
        """Nothing but ``get_rope``, a print or a log may read the rotary dimension."""
        names = [name for name, value in self.flow.values.items() if value is width]
        printed = {n for _, shown in self.flow.reported for n in reading.walk(shown)}
        uses = [
            node
            for node in reading.walk(self.owner)
            if reading.dotted(node) in names and node not in printed
        ]
        # Each name is bound once, all but one to another one, and get_rope reads one of them.
        if len(uses) > 2 * len(names):
            raise Unrecognized("the rotary dimension is used elsewhere, too", uses[-1])


@functools.lru_cache(maxsize=1)
def read_rope(module: cst.Module) -> Rope:
    reading.require_import(module, "get_rope", f"{LAYERS}.rotary_embedding")
    reading.require_builtins(module, "int", "getattr")
    attention = reading.find_class(module, "Glm4Attention")
    reading.require_attributes(module, attention, "rotary_emb", "attn", "head_dim")
    calls = [
        node
        for node in reading.walk(attention)
        if isinstance(node, cst.Call) and reading.dotted(node.func) == "get_rope"
    ]
    flow = reading.Flow(fresh=("get_rope",))
    flow.run(reading.find_method(attention, "__init__").body)
    value = flow.values.get("self.rotary_emb")
    if len(calls) != 1 or value is None or value.node is not calls[0]:
        raise Unrecognized("self.rotary_emb is not the result of one call of get_rope", attention)
    rope = Rope(attention, flow, calls[0], value, value.arguments(*GET_ROPE))
    heads = flow.values.get("self.attn")
    if heads is None or not heads.is_call("Attention"):
        raise Unrecognized("self.attn is not known to be an Attention", attention)
    size = heads.arguments("num_heads", "head_size", "scale").get("head_size")
    if size is None or size.known().text != rope.head.text:
        raise Unrecognized("get_rope and the attention are given different head sizes", calls[0])
    forward = reading.find_method(attention, "forward", followed=False)
    shown = {n for _, statement in flow.reported for n in reading.walk(statement)}
    mentioned = [n for n in reading.walk(attention) if reading.dotted(n) == "self.rotary_emb"]
    used = [node for node in mentioned if node not in shown]
    if len(used) != 2 or used[1] not in [
        node.func for node in reading.walk(forward) if isinstance(node, cst.Call)
    ]:
        raise Unrecognized("self.rotary_emb is not called once", forward)
    return rope


def is_factor(value: Value) -> bool:
    """``config.partial_rotary_factor``, or ``getattr`` of it with or without a default."""
    if value.is_call("getattr") and len(value.parts) in (2, 3):
        return value.parts[0].text.endswith("config") and value.parts[1].text == FACTOR
    return value.text in ("config.partial_rotary_factor", "self.config.partial_rotary_factor")


def rotary_dim_once(module: cst.Module) -> list[Place]:
    """``get_rope`` multiplies by ``partial_rotary_factor``; the width it is given must not have
    been multiplied already.

    A file that computes the part itself and passes no factor is right too.
    """
    rope = read_rope(module)
    if set(rope.given) == NEWER_GET_ROPE:
        parameters = [each.value for each in rope.call.args if each.keyword is not None]
        if "config.rope_parameters" not in [reading.dotted(each) for each in parameters]:
            raise Unrecognized("the rotary factor does not come from the configuration", rope.call)
        return [Place(rope.call)]
    if "rotary_dim" not in rope.given:
        raise Unrecognized("get_rope is not given the rotary dimension", rope.call)
    head, width = rope.head, rope.given["rotary_dim"].known()
    factor = rope.given.get("partial_rotary_factor")
    if factor is not None and factor.known().text in ("1.0", "1"):
        factor = None
    if factor is not None and not is_factor(factor):
        raise Unrecognized("the rotary factor is not that of the configuration", rope.call)
    if width.text == head.text and factor is not None:
        return [Place(rope.call)]
    product = width.parts[0] if width.is_call("int") and len(width.parts) == 1 else width
    if product.kind != "multiply" or head.text not in [part.text for part in product.parts]:
        raise Unrecognized("the rotary dimension has an unknown form", rope.call)
    own_factor, whole = sorted(product.parts, key=lambda part: part.text == head.text)
    if not is_factor(own_factor):
        raise Unrecognized("the rotary factor is not that of the configuration", rope.call)
    if width is product:
        raise Unrecognized("the rotary dimension is not an integer", rope.call)
    if factor is None:
        return [Place(rope.call)]
    operation = product.node
    if not isinstance(operation, cst.BinaryOperation):
        raise Unrecognized("the rotary dimension has an unknown form", rope.call)
    rope.require_unused(width)
    operand = operation.left if product.parts[0] is whole else operation.right
    return [
        Place(width.node, broken=True, edits={width.node: operand.with_changes(lpar=(), rpar=())})
    ]


def interleaved_rope(module: cst.Module) -> list[Place]:
    """GLM-4 rotates neighbouring pairs; ``get_rope`` rotates halves (NeoX) unless told."""
    rope = read_rope(module)
    style = rope.given.get("is_neox_style")
    if style is None:
        wanted = editing.add_keyword(rope.call, "is_neox_style", "False")
        return [Place(rope.call, broken=True, edits={rope.call: wanted})]
    if style.known().text == "False":
        return [Place(rope.call)]
    if style.text != "True" or style.kind != "name":
        raise Unrecognized("is_neox_style has an unknown form", rope.call)
    given = zip(rope.call.args, rope.value.parts, strict=True)
    argument = next(arg.value for arg, part in given if part is style)
    return [Place(rope.call, broken=True, edits={argument: cst.Name("False")})]


PATCH = Patch(
    id="glm4-residual",
    title="GLM-4-0414 (GLM-4-9B/32B-0414, GLM-Z1) crashes, or answers garbage once it does not",
    why="""\
vLLM 0.8.4 stops on every GLM-4-0414 model with "linear(): argument 'input' (position 1) must be
Tensor, not tuple": RMSNorm given a residual returns a pair, and the decoder layer hands the pair
on. Behind the crash three silent defects wait: the residual is added by hand although the next
fused norm adds it, a quarter of each head is rotated instead of half, and in the wrong style.
A file in which any one of the four is left runs, at best, and computes wrong numbers.""",
    how="""\
Binds both values of the fused norm, drops the two additions, hands the whole head size to
get_rope (which multiplies by partial_rotary_factor itself), and passes is_neox_style=False.
sample() and the sampler stay, since the runners of 0.8.4 call them.""",
    upstream="https://github.com/vllm-project/vllm/pull/16618",
    removal="Not needed from vLLM 0.8.5 on. Upgrading vLLM replaces the file and its receipt.",
    versions="==0.8.4",
    file="vllm/model_executor/models/glm4.py",
    rewrites=(
        Rewrite(
            "unpack-fused-norm",
            "bind both values of the fused norm (normed hidden states, new residual)",
            1,
            unpack_fused_norm,
        ),
        Rewrite(
            "drop-double-residual",
            "do not add the residual by hand: the next fused norm adds it",
            2,
            drop_double_residual,
        ),
        Rewrite(
            "rotary-dim-once",
            "hand get_rope the whole head size: it multiplies by the factor itself",
            1,
            rotary_dim_once,
        ),
        Rewrite(
            "interleaved-rope",
            "rotate interleaved pairs: is_neox_style=False",
            1,
            interleaved_rope,
        ),
    ),
    known={
        # as released in 0.8.4
        "7c495ea634a8ed95cfd109a021affdb7ae38dea4a788ceb4348c25398a6d0ed6": PatchState.NEEDED,
        # that file, repaired by this patch
        "c8b7dc47c6522b0535a411715d0b03a329b57a07ff545ffad670cde509a2a730": PatchState.FIXED,
    },
    proof=Proof(
        architecture="Glm4ForCausalLM",
        module="vllm.model_executor.models.glm4",
        config_class="Glm4Config",
        transformers="4.51.3",
        precisions=("float32", "bfloat16"),
        wrong={
            "module float32": 1.0e-3,
            "module bfloat16": 8.6,
            "engine float32": 9.8e-4,
            "engine bfloat16": 8.0,
        },
        refused={
            "float16": "GLM-4-0414 overflows in float16, patched or not: a server answers '!!!!'"
        },
        # Nothing at its default and no two sizes alike, so that each part shows in the numbers:
        # grouped heads, a head size that is not hidden size over heads, biases, an epsilon that
        # is large enough against the values for a wrong one to be seen.
        config={
            "vocab_size": 128,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "partial_rotary_factor": 0.5,
            "max_position_embeddings": 256,
            "rms_norm_eps": 0.02,
            "rope_theta": 500.0,
            "attention_bias": True,
            "tie_word_embeddings": False,
            "pad_token_id": 0,
            "eos_token_id": [1],
        },
    ),
)
