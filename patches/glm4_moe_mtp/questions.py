"""Checkpoints whose draft layer must load, whole: by names, and by the value in each place."""

from __future__ import annotations

from typing import Any

from glmpatch.language import N_
from glmpatch.patches.glm4_moe.checkpoint import (
    BFLOAT16,
    FP8,
    HIDDEN,
    LAYERS,
    NVFP4,
    Checkpoint,
    draft,
)
from glmpatch.proof.questions import Question

DRAFT = f"model.layers.{LAYERS}"
SCHEMES = {"bfloat16": BFLOAT16, "FP8": FP8, "NVFP4": NVFP4}


def checkpoint(scheme: str, own: bool = False, head_scale: bool = False) -> Checkpoint:
    """A whole checkpoint; the places are those of the draft model.

    Args:
        own: whether the draft layer holds the embedding and the head that it shares with the model
            (GLM-4.5) or only the model does (GLM-4.6 and newer).
        head_scale: whether there is a scale of the head, which vLLM does not quantize.
    """
    made = Checkpoint(SCHEMES[scheme])
    made.add("lm_head.weight", f"{DRAFT}.shared_head.head.weight")
    if head_scale:
        made.add("lm_head.weight_scale")
    made.add("model.embed_tokens.weight", "model.embed_tokens.weight")
    for number in range(LAYERS):
        made.layer(number, None, experts=number > 0)
    draft(made, own, DRAFT)
    if head_scale:
        made.add(f"{DRAFT}.shared_head.head.weight_scale")
    made.layer(LAYERS, f"{DRAFT}.mtp_block", experts=True)
    made.add("model.norm.weight", shape=(HIDDEN,))
    return made


class NotInitialized:
    """vLLM must say that a parameter of the draft layer was not in the checkpoint."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, answer: Any) -> bool:
        told = answer.get("raised", "") if isinstance(answer, dict) else ""
        return "not initialized from checkpoint" in told and self.name in told

    def __str__(self) -> str:
        return N_("an error that names {name}", name=self.name)


def questions() -> tuple[Question, ...]:
    found = []
    for scheme in SCHEMES:
        for own, owner in ((False, N_("the model alone")), (True, N_("the draft layer too"))):
            for head_scale in (False, True) if scheme == "FP8" else (False,):
                for backwards in (False, True):
                    words = N_(
                        "{scheme}, embedding and head held by {owner}{head}{order}",
                        scheme=scheme,
                        owner=owner,
                        head=N_(", with a scale of the head") if head_scale else "",
                        order=N_(", read backwards") if backwards else "",
                    )
                    made = checkpoint(scheme, own, head_scale)
                    made = made.backwards() if backwards else made
                    found.append(Question(words, made.asked("Glm4MoeMTP"), made.right()))
    lost = checkpoint("bfloat16").without(f"{DRAFT}.enorm.weight")
    asked = lost.asked("Glm4MoeMTP")
    words = N_("{names}, a weight of the draft layer missing", names="bfloat16")
    found.append(Question(words, asked, NotInitialized(f"{DRAFT}.enorm.weight")))
    return tuple(found)


QUESTIONS = questions()
