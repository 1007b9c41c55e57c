"""GLM-OCR's checkpoint in small: its draft layer must load, whole, by the value in each place.

The names are those of the checkpoint's index: the text model below ``model.language_model``, with
the draft layer as its last; the head outside of it. Older checkpoints have no such wrapper.
"""

from __future__ import annotations

from typing import Any

from glmpatch.language import N_
from glmpatch.patches.glm4_moe.checkpoint import CONFIG, HIDDEN, Checkpoint, Place
from glmpatch.patches.glm4_moe_mtp.questions import NotInitialized
from glmpatch.proof.questions import Question

LAYERS = 2
DRAFT = f"model.layers.{LAYERS}"
NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "post_self_attn_layernorm",
    "post_mlp_layernorm",
)


def checkpoint() -> Checkpoint:
    """Its text model; the draft layer holds the embedding, which it shares, once more."""
    made = Checkpoint(config={**CONFIG, "attention_bias": False, "use_qk_norm": False})
    made.add("lm_head.weight", f"{DRAFT}.shared_head.head.weight")
    shared = made.add("model.embed_tokens.weight", "model.embed_tokens.weight")
    for number in range(LAYERS):
        layer(made, number, None)
    made.add(f"{DRAFT}.embed_tokens.weight", value=shared)
    made.add(f"{DRAFT}.eh_proj.weight", f"{DRAFT}.eh_proj.weight", (HIDDEN, 2 * HIDDEN))
    for part in ("enorm", "hnorm", "shared_head.norm"):
        made.add(f"{DRAFT}.{part}.weight", f"{DRAFT}.{part}.weight", (HIDDEN,))
    layer(made, LAYERS, f"{DRAFT}.mtp_block")
    made.add("model.norm.weight", shape=(HIDDEN,))
    return made


def layer(made: Checkpoint, number: int, place: str | None) -> None:
    name, at = f"model.layers.{number}", Place(place)
    for norm in NORMS:
        made.add(f"{name}.{norm}.weight", at(f"{norm}.weight"), (HIDDEN,))
    for part in "qkv":
        made.linear(f"{name}.self_attn.{part}_proj", at("self_attn.qkv_proj"), f"[{part}]")
    made.linear(f"{name}.self_attn.o_proj", at("self_attn.o_proj"))
    for number_of, part in enumerate(("gate_proj", "up_proj")):
        made.linear(f"{name}.mlp.{part}", at("mlp.gate_up_proj"), f"[{number_of}]")
    made.linear(f"{name}.mlp.down_proj", at("mlp.down_proj"))


def wrapped(made: Checkpoint) -> Checkpoint:
    """The same with the names that GLM-OCR's checkpoint has, beside an image encoder."""
    made.tensors = [
        (name.replace("model.", "model.language_model.", 1), shape, value)
        for name, shape, value in made.tensors
    ]
    made.add("model.visual.blocks.2.attn.qkv.weight")
    return made


def questions() -> tuple[Question, ...]:
    found = []
    names = N_("names below {prefix}", prefix="model.language_model")
    for told, below in ((names, True), (N_("names below {prefix}", prefix="model"), False)):
        for order in ("", N_(", read backwards")):
            made = wrapped(checkpoint()) if below else checkpoint()
            asked = (made.backwards() if order else made).asked("GlmOcrMTP")
            words = N_("{names}{order}", names=told, order=order)
            found.append(Question(words, asked, made.right()))
    lost = wrapped(checkpoint()).without(f".layers.{LAYERS}.eh_proj.weight")
    right: Any = NotInitialized(f"{DRAFT}.eh_proj.weight")
    words = N_("{names}, a weight of the draft layer missing", names=names)
    found.append(Question(words, lost.asked("GlmOcrMTP"), right))
    return tuple(found)


QUESTIONS = questions()
