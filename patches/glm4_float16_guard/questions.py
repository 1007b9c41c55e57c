"""Which precision vLLM's configuration must choose for a GLM-4, and for other models."""

from __future__ import annotations

from typing import Any

from glmpatch.language import N_
from glmpatch.proof.questions import OneOf, Question, Refused

MODELS = "vllm.model_executor.models"
REFUSED = Refused("does not support float16")
SOME = OneOf("bfloat16", "float32")
"""Which of them, is the device's: float32 where it has no bfloat16."""
RELEASED = OneOf("float16", REFUSED)
"""These releases take float16 for Gemma 2; one may have upstream's table of 0.9.1, which does not.
"""


def glm4(checkpoint: str, dtype: str, right: Any) -> Question:
    """What becomes of a GLM-4-0414 that names ``checkpoint``, served with ``--dtype dtype``."""
    return _question("Glm4Config", "Glm4ForCausalLM", "glm4", checkpoint, dtype, right)


def glm(checkpoint: str, dtype: str, right: Any) -> Question:
    """The same of the older GLM-4, which is not to be touched."""
    return _question("GlmConfig", "GlmForCausalLM", "glm", checkpoint, dtype, right)


def other(family: str, module: str, checkpoint: str, dtype: str, right: Any) -> Question:
    """The same of a model of another family, which is not to be touched either."""
    config = "Gemma3TextConfig" if family == "Gemma3" else f"{family}Config"
    return _question(config, f"{family}ForCausalLM", module, checkpoint, dtype, right)


def _question(
    config: str, architecture: str, module: str, checkpoint: str, dtype: str, right: Any
) -> Question:
    asked = {
        "config_class": config,
        "architecture": architecture,
        "module": f"{MODELS}.{module}",
        "checkpoint": checkpoint,
        "dtype": dtype,
    }
    words = N_(
        "dtype {dtype} for {architecture} in {checkpoint}",
        dtype=dtype,
        architecture=architecture,
        checkpoint=checkpoint,
    )
    return Question(words, asked, right)


QUESTIONS = (
    glm4("bfloat16", "float16", REFUSED),
    glm4("bfloat16", "half", REFUSED),
    glm4("float16", "float16", REFUSED),
    glm4("float16", "auto", SOME),
    glm4("float32", "auto", SOME),
    glm4("bfloat16", "auto", SOME),
    glm4("bfloat16", "bfloat16", "bfloat16"),
    glm4("float16", "bfloat16", "bfloat16"),
    glm4("bfloat16", "float32", "float32"),
    glm("bfloat16", "float16", "float16"),
    glm("float16", "auto", "float16"),
    glm("bfloat16", "auto", "bfloat16"),
    glm("float32", "bfloat16", "bfloat16"),
    other("Llama", "llama", "bfloat16", "float16", "float16"),
    other("Llama", "llama", "float32", "half", "float16"),
    other("Llama", "llama", "float16", "auto", "float16"),
    other("Llama", "llama", "bfloat16", "auto", "bfloat16"),
    other("Qwen2", "qwen2", "bfloat16", "float16", "float16"),
    other("Gemma2", "gemma2", "bfloat16", "float16", RELEASED),
    other("Gemma3", "gemma3", "bfloat16", "float16", "float16"),
)
