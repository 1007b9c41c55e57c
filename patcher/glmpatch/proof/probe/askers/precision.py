"""Asks ``ModelConfig`` which precision it chooses for a checkpoint and a user's wish.

A question: ``config_class`` (in Transformers), ``architecture`` and ``module`` (of the model class
in vLLM), ``checkpoint`` (the precision that the checkpoint names), ``dtype`` (what the user asks
for). An answer: a precision, or ``refused: `` and the message.
"""

from __future__ import annotations

import importlib
import tempfile
from typing import Any

from . import beside, refusal


def answer(module: str, path: str | None, questions: list[Any]) -> list[Any]:
    with beside(module, path) as loaded:
        return [_ask(loaded, question) for question in questions]


def _ask(module: Any, question: dict[str, str]) -> str:
    import transformers
    from vllm.model_executor.models.registry import ModelRegistry

    architecture = question["architecture"]
    model_class = getattr(importlib.import_module(question["module"]), architecture)
    # Registering the class itself spares the second process in which vLLM inspects architectures.
    ModelRegistry.register_model(architecture, model_class)
    config = getattr(transformers, question["config_class"])(
        architectures=[architecture], torch_dtype=question["checkpoint"]
    )
    folder = tempfile.mkdtemp(prefix="checkpoint-")
    config.save_pretrained(folder)
    try:
        chosen = module.ModelConfig(
            model=folder,
            task="generate",
            tokenizer=folder,
            tokenizer_mode="auto",
            trust_remote_code=False,
            dtype=question["dtype"],
            seed=0,
            enforce_eager=True,
            skip_tokenizer_init=True,
            model_impl="vllm",
        )
    except ValueError as error:
        return refusal(error)
    return str(chosen.dtype).replace("torch.", "")
