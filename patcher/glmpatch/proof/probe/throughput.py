"""Tokens per second of an engine, on a model large enough for the arithmetic to count."""

from __future__ import annotations

import json
import os
import tempfile
import time
from typing import Any

from .language import N_

SIZES: dict[str, dict[str, int]] = {
    "cpu": {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
    },
    "cuda": {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 8,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 128,
    },
}
"""Shape of the model; its weights are any, since they make no difference to the time."""
LOAD = {
    "cpu": {"batch": 16, "prefill": 128, "decode": 32},
    "cuda": {"batch": 64, "prefill": 512, "decode": 128},
}
"""Prompts in the batch, tokens in each prompt, and tokens generated after each."""
REPEATS, MOST = 3, 12
"""How often each is timed, and at most where other work of the machine hides what is sought."""


def describe(device: str) -> str:
    """What is timed, in words."""
    load, sizes = LOAD[device], SIZES[device]
    return N_(
        "{batch} prompts of {prefill} tokens, {decode} tokens after each, hidden size {size}, "
        "{layers} layers, weights made up",
        **load,
        size=sizes["hidden_size"],
        layers=sizes["num_hidden_layers"],
    )


def prepare(checkpoint: Any) -> str:
    """A folder with a configuration and a tokenizer, for weights that vLLM makes up."""
    folder = tempfile.mkdtemp(prefix="throughput-")
    for name in sorted(os.listdir(checkpoint.folder)):
        if name.endswith(".json") and "index" not in name:
            with open(os.path.join(checkpoint.folder, name), encoding="utf-8") as stream:
                content = json.load(stream)
            if name == "config.json":
                load = LOAD[checkpoint.device]
                longest = load["prefill"] + load["decode"] + 1
                content.update(SIZES[checkpoint.device], max_position_embeddings=longest)
            with open(os.path.join(folder, name), "w", encoding="utf-8") as stream:
                json.dump(content, stream)
    return folder


def measure(llm: Any, load: dict[str, int], vocabulary: int) -> dict[str, float]:
    """Tokens per second of prefill and decode, the best of some runs after one to warm up.

    Decode is the difference of two times, and what else the machine does only ever adds to a time:
    the least of each is nearest to what the model takes.
    """
    from vllm import SamplingParams

    prompts = [
        {"prompt_token_ids": [(7 * i + number) % vocabulary for i in range(load["prefill"])]}
        for number in range(load["batch"])
    ]

    def seconds(tokens: int) -> float:
        parameters = SamplingParams(
            temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=False
        )
        started = time.perf_counter()
        llm.generate(prompts, parameters, use_tqdm=False)
        return time.perf_counter() - started

    seconds(2)
    first = whole = float("inf")
    for number in range(MOST):
        first = min(first, seconds(1))
        whole = min(whole, seconds(load["decode"] + 1))
        if number + 1 >= REPEATS and whole > first:
            break
    else:
        raise RuntimeError(N_("other work on this machine hides the time of decoding"))
    return {
        "prefill": load["batch"] * load["prefill"] / first,
        "decode": load["batch"] * load["decode"] / (whole - first),
    }
