"""Checkpoints that must load, scales of the KV cache and all, and experts that must be chosen."""

from __future__ import annotations

from glmpatch.language import N_
from glmpatch.patches.glm4_moe.checkpoint import (
    BFLOAT16,
    CONFIG,
    FP8,
    HIDDEN,
    LAYERS,
    NVFP4,
    Checkpoint,
    draft,
)
from glmpatch.proof.questions import Question

MODEL = "Glm4MoeForCausalLM"
BODY = "Glm4MoeModel"
SCHEMES = {"bfloat16": BFLOAT16, "FP8": FP8, "NVFP4": NVFP4}
CACHE_SCALES = [
    f"model.layers.{layer}.self_attn.attn.{part}_scale" for layer in range(LAYERS) for part in "kv"
]
WITH_K = "K_proj.K_scale"
SCALES = {
    "": N_("no scales of the cache"),
    WITH_K: N_("scales beside k_proj and v_proj"),
    "qkv_proj.K_scale": N_("scales beside qkv_proj"),
    "K_scale": N_("scales of the attention"),
}
"""Names of a layer's scales: ModelOpt's, llm-compressor's, and the older one; K is k or v."""
ATTENTION = {True: N_("an attention with scales"), False: N_("an attention without scales")}
DRAFTS = {True: N_("with the draft layer"), False: N_("without the draft layer")}
MANY = 12
"""So many that the name of one begins as another's does: ``layers.1`` and ``layers.11``."""
STAGE, STAGES = 1, 3
"""A stage in the middle of a pipeline holds neither the embedding, nor the norm, nor the head."""
ORDER = {True: N_(", read backwards"), False: ""}


def checkpoint(scheme: str, scales: str, drafts: bool, layers: int = LAYERS) -> Checkpoint:
    """A whole checkpoint, with or without the draft layer, which this model leaves out."""
    made = Checkpoint(SCHEMES[scheme], {**CONFIG, "num_hidden_layers": layers})
    made.add("lm_head.weight", "lm_head.weight")
    made.add("model.embed_tokens.weight", "model.embed_tokens.weight")
    for number in range(layers):
        made.layer(number, f"model.layers.{number}", experts=number > 0, scales=scales)
    if drafts:
        draft(made, own=True, place=None)
        made.layer(layers, None, experts=True, scales=scales)
    made.add("model.norm.weight", "model.norm.weight", (HIDDEN,))
    return made


def loading() -> list[Question]:
    """Each kind of checkpoint; scales are dropped where the attention has no parameters for them,
    as where the cache is not quantized."""
    found = []
    for scheme, drafts, (scales, words) in (
        (scheme, drafts, each)
        for scheme in SCHEMES
        for drafts in (False, True)
        for each in SCALES.items()
        if scheme != "bfloat16" or not each[0]
    ):
        for held in (False, True) if scheme != "bfloat16" else (False,):
            for backwards in (False, True):
                made = checkpoint(scheme, scales, drafts)
                if backwards:
                    made.backwards()
                empty = CACHE_SCALES if held and not scales else []
                if not held:
                    made.values = {k: v for k, v in made.values.items() if k not in CACHE_SCALES}
                asked = {"asker": "weight_names", "asked": made.asked(MODEL, cache_scales=held)}
                told = N_(
                    "{scheme}, {scales}, {attention}, {layers}{order}",
                    scheme=scheme,
                    scales=words,
                    attention=ATTENTION[held],
                    layers=DRAFTS[drafts],
                    order=ORDER[backwards],
                )
                found.append(Question(told, asked, made.right(empty)))
    return found


def many() -> list[Question]:
    """As many layers as have two figures in their numbers: all of them, and one stage's.

    The stage is asked of the model alone, as 0.10.0 cannot make the whole of it in parts.
    """
    found = []
    for scheme, scales in (("bfloat16", ""), ("FP8", "qkv_proj.K_scale"), ("NVFP4", WITH_K)):
        made = checkpoint(scheme, scales, True, MANY)
        words = N_("{scheme}, {layers} layers", scheme=scheme, layers=MANY)
        asked = made.asked(MODEL, cache_scales=bool(scales))
        found.append(Question(words, {"asker": "weight_names", "asked": asked}, made.right()))
        first = MANY // STAGES * STAGE
        held = tuple(f"layers.{number}." for number in range(first, first + MANY // STAGES))
        made = checkpoint(scheme, scales, True, MANY).part("model.", *held)
        asked = made.asked(BODY, cache_scales=bool(scales), stage=(STAGE, STAGES))
        words = N_("{scheme}, one of {stages} stages of the pipeline", scheme=scheme, stages=STAGES)
        found.append(Question(words, {"asker": "weight_names", "asked": asked}, made.right()))
    return found


class AtLeast:
    """A count that is not less."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, answer: object) -> bool:
        return isinstance(answer, int) and answer >= self.count

    def __str__(self) -> str:
        return N_("at least {count}", count=self.count)


def choosing(seed: int) -> Question:
    """Experts chosen in bfloat16, with corrections as close together as real models have them."""
    tokens = 512
    config = {**CONFIG, "hidden_size": 256, "n_routed_experts": 128, "num_experts_per_tok": 8}
    asked = {
        "class": "Glm4MoE",
        "config": {**config, "n_shared_experts": None},
        "tokens": tokens,
        "seed": seed,
        "spread": 0.25,
        "corrections": [6.8, 7.1],
    }
    words = N_(
        "{tokens} tokens with the right experts, in bfloat16 (seed {seed})",
        tokens=tokens,
        seed=seed,
    )
    return Question(words, {"asker": "router", "asked": asked}, AtLeast(tokens - tokens // 64))


QUESTIONS: tuple[Question, ...] = (*loading(), *many(), *map(choosing, range(3)))
