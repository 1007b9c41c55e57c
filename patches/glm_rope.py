"""GLM-4-9B-chat-hf in vLLM 0.7.3 to 0.8.4: every layer halves the one rope that all layers share.

https://github.com/vllm-project/vllm/pull/16912
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from patcher.patch import Neighbour, Patch, PatchState, Place, Proof, Rewrite, Unrecognized, lazy

if TYPE_CHECKING:
    import libcst as cst

    from patcher import reading
else:
    cst = lazy("libcst")
    reading = lazy("patcher.reading")

MODELS = "vllm.model_executor.models"
ROPE = "rotary_emb"
FACTOR = "partial_rotary_factor"
WORDS = (ROPE, FACTOR, "rotary_dim", "is_neox_style", "get_rope", "cos_sin_cache", "inv_freq")
"""Names that nothing but a statement about the rope has in it."""
LOOPS = ("self.model.layers", "enumerate(self.model.layers)")
GUARD = "not isinstance({layer}, PPMissingLayer)"
"""Layers of other pipeline stages are placeholders without an attention."""


def keep_rope_width(module: cst.Module) -> list[Place]:
    """No layer may change the width of the rope: llama built it with the right one.

    A file that sets the factor on the configuration first, as upstream's does, is right too.
    """
    reading.require_import(module, "LlamaForCausalLM", f"{MODELS}.llama")
    model = reading.find_class(module, "GlmForCausalLM", base="LlamaForCausalLM")
    method = reading.find_method(model, "__init__")
    ropes: list[str] = []
    styles: list[cst.CSTNode] = []
    halvings: list[Place] = []
    known: set[cst.CSTNode] = set()
    for statement, needed, around in small_statements(method.body, ()):
        if not mentions_rope(statement, ropes):
            continue
        known.update(reading.walk(statement))
        if sets_factor(statement):
            continue
        if not in_plain_loop(around):
            raise Unrecognized("the rope is changed outside of a loop over all layers", statement)
        named = alias(statement)
        if named is not None:
            ropes.append(named)
        elif sets_style(statement, ropes):
            styles.append(statement)
        elif halves_width(statement, ropes):
            edits = {statement: cst.Pass() if needed else None}
            halvings.append(Place(statement, broken=True, edits=edits))
        else:
            raise Unrecognized("the rope is changed in an unknown way", statement)
    for node in reading.walk(model):
        if node not in known and isinstance(node, cst.Name) and node.value in (*WORDS, *ropes):
            raise Unrecognized(f"{node.value} is used here in an unknown way", node)
    if len(styles) != 1 or len(halvings) > 1:
        raise Unrecognized("is_neox_style is not set to False once for each layer", method)
    return halvings or [Place(styles[0])]


def small_statements(
    block: cst.CSTNode, around: tuple[cst.CSTNode, ...]
) -> Iterator[tuple[cst.CSTNode, bool, tuple[cst.CSTNode, ...]]]:
    """Every simple statement, whether its block cannot do without one, and what is around it."""
    for statement in getattr(block, "body", ()):
        if isinstance(statement, cst.SimpleStatementLine):
            needed = len(statement.body) == 1 and len(getattr(block, "body", ())) == 1
            for small in statement.body:
                yield small, needed, around
        elif isinstance(statement, cst.BaseSmallStatement):
            yield statement, True, around
        elif isinstance(statement, cst.BaseCompoundStatement):
            yield from small_statements(statement.body, (*around, statement))


def mentions_rope(statement: cst.CSTNode, ropes: list[str]) -> bool:
    for node in reading.walk(statement):
        if isinstance(node, cst.Name) and node.value in (*WORDS, *ropes):
            return True
        if isinstance(node, cst.SimpleString) and node.evaluated_value == FACTOR:
            return True
    return False


def in_plain_loop(around: tuple[cst.CSTNode, ...]) -> bool:
    """Whether a statement runs once for every layer that is here."""
    loop, *guards = around or (None,)
    if not isinstance(loop, cst.For) or loop.orelse is not None:
        return False
    layer = reading.text(loop.target).strip("()").split(", ")[-1]
    return reading.text(loop.iter) in LOOPS and all(
        isinstance(guard, cst.If)
        and guard.orelse is None
        and reading.text(guard.test) == GUARD.format(layer=layer)
        for guard in guards
    )


def is_rope(name: str | None, ropes: list[str]) -> bool:
    return name is not None and (name in ropes or name.endswith(f".self_attn.{ROPE}"))


def alias(statement: cst.CSTNode) -> str | None:
    """``rope`` for the statement ``rope = layer.self_attn.rotary_emb``."""
    if isinstance(statement, cst.Assign) and len(statement.targets) == 1:
        target = statement.targets[0].target
        if isinstance(target, cst.Name) and is_rope(reading.dotted(statement.value), []):
            return target.value
    return None


def sets_factor(statement: cst.CSTNode) -> bool:
    """``config.partial_rotary_factor = 0.5``, or the same in ``config.rope_parameters``."""
    if not isinstance(statement, cst.Assign) or len(statement.targets) != 1:
        return False
    target = reading.text(statement.targets[0].target)
    named = target.endswith((f".{FACTOR}", f".rope_parameters['{FACTOR}']"))
    return named and reading.text(statement.value) == "0.5"


def sets_style(statement: cst.CSTNode, ropes: list[str]) -> bool:
    if not isinstance(statement, cst.Assign) or len(statement.targets) != 1:
        return False
    rope, _, attribute = (reading.dotted(statement.targets[0].target) or "").rpartition(".")
    right = attribute == "is_neox_style" and reading.text(statement.value) == "False"
    return right and is_rope(rope, ropes)


def halves_width(statement: cst.CSTNode, ropes: list[str]) -> bool:
    """``rope.rotary_dim //= 2``, in its short or its long form."""
    if isinstance(statement, cst.AugAssign):
        target = reading.dotted(statement.target) or ""
        written = f"{target} // {reading.text(statement.value)}"
        if not isinstance(statement.operator, cst.FloorDivideAssign):
            return False
    elif isinstance(statement, cst.Assign) and len(statement.targets) == 1:
        target = reading.dotted(statement.targets[0].target) or ""
        written = reading.text(statement.value)
    else:
        return False
    rope, _, attribute = target.rpartition(".")
    return attribute == "rotary_dim" and is_rope(rope, ropes) and written == f"{target} // 2"


def llama_takes_the_factor(module: cst.Module) -> None:
    """Up to 0.7.2 llama ignores the factor; without the halving the whole head is rotated there."""
    attention = reading.find_class(module, "LlamaAttention")
    for node in reading.walk(reading.find_method(attention, "__init__")):
        named = isinstance(node, cst.Name) and node.value == FACTOR
        if named or (isinstance(node, cst.SimpleString) and node.evaluated_value == FACTOR):
            return
    raise Unrecognized(f"LlamaAttention ignores the configuration's {FACTOR}", attention)


PATCH = Patch(
    id="glm-rope",
    title="GLM-4-9B-chat-hf (GlmForCausalLM) fails wherever the rope runs in plain PyTorch",
    why="""\
All layers share one rope object, and vLLM 0.7.3 to 0.8.4 halves its rotary_dim once for each of
them: 64, 32, ..., 0. The CUDA kernel takes the width from its cache and is right by luck; plain
PyTorch takes rotary_dim, and stops because the shapes do not fit.""",
    how="""\
Drops the halving: llama, which GlmForCausalLM is built on, takes the width from the
configuration's partial_rotary_factor (0.5 for these models). Upstream also sets that factor to
0.5, which changes nothing for them and would override another value. Upstream lifted the
restriction to the V0 engine at the same time; this patch leaves it.""",
    upstream="https://github.com/vllm-project/vllm/pull/16912",
    removal="Not needed from vLLM 0.8.5 on. Upgrading vLLM replaces the file and its receipt.",
    versions=">=0.7.3,<0.8.5",
    file="vllm/model_executor/models/glm.py",
    neighbours=(Neighbour("vllm/model_executor/models/llama.py", llama_takes_the_factor),),
    rewrites=(
        Rewrite(
            "keep-rope-width",
            "do not halve rotary_dim: the rope is shared and has the right width already",
            1,
            keep_rope_width,
        ),
    ),
    known={
        # as released in 0.7.3, and repaired by this patch
        "717952cb6f3ff432c5eff9fd406b1748e980e38f699c0eddd137b21d6e39ec33": PatchState.NEEDED,
        "02fcec0d8960a584fade343a9f42ac56553d742bbb334713713164a4a4f62dc8": PatchState.FIXED,
        # as released in 0.8.0 to 0.8.4, and repaired by this patch
        "00f90e110299e418fd7818023306bc71e8c96f914e06fd72225ac2d09875ce16": PatchState.NEEDED,
        "59586243d86cb6ee6046e46e3ee1d3f3eededdf31c551a2e033f1006e437345e": PatchState.FIXED,
    },
    proof=Proof(
        architecture="GlmForCausalLM",
        module="vllm.model_executor.models.glm",
        config_class="GlmConfig",
        transformers="4.46.0",
        precisions=("float32", "bfloat16"),
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
