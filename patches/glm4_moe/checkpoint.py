"""Checkpoints of GLM-4.5, 4.6 and 4.7 in small: what their tensors are, and where each belongs.

By the models' own description (Transformers' ``Glm4MoeForCausalLM``, the checkpoints' index), the
quantizations' formats (compressed-tensors' FP8: a scale for each weight; ModelOpt's NVFP4: two
scales for each weight and one for its input) and vLLM's layout (q, k and v are stacked, gate and up
are, and so are the experts). Each number of each tensor is its own, and must be found in its place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from glmpatch.proof.probe.contents import STEP

BFLOAT16 = ("weight",)
FP8 = ("weight", "weight_scale")
NVFP4 = ("weight", "weight_scale", "weight_scale_2", "input_scale")

LAYERS = 2
"""The first is dense, the second has experts; the draft layer comes after them."""
EXPERTS = 12
"""So many that the name of one begins as another's does: ``experts.1`` and ``experts.11``."""
HIDDEN, HEAD = 2, 4
SHAPES = {
    "weight": (4, HIDDEN),
    "bias": (4,),
    "weight_scale": (4, 1),
    "weight_scale_2": (),
    "input_scale": (),
}
"""What a linear layer's parameters look like, more than one number wherever there may be."""
FIRST = 4097.0
"""The first number of all (``probe/contents.py`` says why)."""
PRECISION = "float32"
CONFIG: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 1,
    "moe_intermediate_size": 1,
    "num_hidden_layers": LAYERS,
    "num_nextn_predict_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": HEAD,
    "vocab_size": 1,
    "max_position_embeddings": 16,
    "rms_norm_eps": 1e-05,
    "hidden_act": "silu",
    "attention_bias": True,
    "use_qk_norm": True,
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 1.0,
    "first_k_dense_replace": 1,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "partial_rotary_factor": 0.5,
}


class Checkpoint:
    """Tensors, each with its name, shape and first number, and what a model then holds of them."""

    def __init__(self, scheme: Sequence[str] = BFLOAT16, config: dict[str, Any] = CONFIG) -> None:
        self.scheme, self.config = scheme, config
        self.tensors: list[tuple[str, tuple[int, ...], float]] = []
        self.values: dict[str, list[Any]] = {}
        self.next = FIRST

    def add(
        self,
        name: str,
        place: str | None = None,
        shape: tuple[int, ...] = SHAPES["weight"],
        value: float | None = None,
    ) -> float:
        """A tensor, and the place where it must be found; None where it has none.

        Args:
            value: its first number, where that is not the next of all.
        """
        first = self.next if value is None else value
        self.next += STEP * math.prod(shape)
        self.tensors.append((name, shape, first))
        if place is not None:
            self.values[place] = [first, list(shape), PRECISION]
        return first

    def scale(self, name: str, place: str | None, shape: tuple[int, ...]) -> None:
        """A scale of the KV cache: vLLM's own parameter for it has no dimension."""
        first = self.add(name, shape=shape, value=self.next / 1024)
        if place is not None:
            self.values[place] = [first, [], PRECISION]

    def linear(self, name: str, place: str | None, part: str = "", bias: bool = False) -> None:
        """A layer with all parameters of the scheme; ``part`` of a stacked one."""
        for parameter in (*self.scheme, *(["bias"] if bias else [])):
            where = place and f"{place}.{parameter}{part}"
            self.add(f"{name}.{parameter}", where, SHAPES[parameter])

    def layer(self, number: int, place: str | None, experts: bool, scales: str = "") -> None:
        """A decoder layer; without a place it belongs to another model.

        Args:
            scales: the names of the cache's scales, with K for k and v; empty for none.
        """
        name, at = f"model.layers.{number}", Place(place)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            self.add(f"{name}.{norm}.weight", at(f"{norm}.weight"), (HIDDEN,))
        attention = f"{name}.self_attn"
        for part in "qkv":
            stacked = at("self_attn.qkv_proj")
            self.linear(f"{attention}.{part}_proj", stacked, f"[{part}]", bias=True)
        self.linear(f"{attention}.o_proj", at("self_attn.o_proj"))
        for part in "qk" if self.config["use_qk_norm"] else "":
            self.add(
                f"{attention}.{part}_norm.weight", at(f"self_attn.{part}_norm.weight"), (HEAD,)
            )
        if scales:
            for part in "kv":
                self.scale(
                    f"{attention}.{scales.replace('K', part)}",
                    at(f"self_attn.attn.{part}_scale"),
                    shape=() if number % 2 else (1,),
                )
        self.mixture(f"{name}.mlp", at) if experts else self.mlp(f"{name}.mlp", at("mlp"))

    def mlp(self, name: str, place: str | None) -> None:
        for part, projection in enumerate(("gate_proj", "up_proj")):
            self.linear(f"{name}.{projection}", place and f"{place}.gate_up_proj", f"[{part}]")
        self.linear(f"{name}.down_proj", place and f"{place}.down_proj")

    def mixture(self, name: str, at: Place) -> None:
        """Experts, the shared one, and the router, which is never quantized."""
        self.add(f"{name}.gate.weight", at("mlp.gate.weight"), shape=(EXPERTS, HIDDEN))
        bias = "gate.e_score_correction_bias"
        self.add(f"{name}.{bias}", at(f"mlp.{bias}"), shape=(EXPERTS,))
        for expert in range(EXPERTS):
            for part, projection, stacked in (
                ("w1", "gate_proj", "w13"),
                ("w2", "down_proj", "w2"),
                ("w3", "up_proj", "w13"),
            ):
                for parameter in self.scheme:
                    self.add(
                        f"{name}.experts.{expert}.{projection}.{parameter}",
                        at(f"mlp.experts.{stacked}_{parameter}[{expert}.{part}]"),
                        SHAPES[parameter],
                    )
        self.mlp(f"{name}.shared_experts", at("mlp.shared_experts"))

    def without(self, *endings: str) -> Checkpoint:
        """The same without the tensors whose names end so, wherever they belong."""
        self.tensors = [each for each in self.tensors if not each[0].endswith(endings)]
        return self

    def part(self, prefix: str, *places: str) -> Checkpoint:
        """What is below a part of the model alone, by the names that it has there.

        Args:
            places: how those that are held begin; all, where there are none.
        """
        below = [each for each in self.tensors if each[0].startswith(prefix)]
        self.tensors = [(name[len(prefix) :], shape, value) for name, shape, value in below]
        held = {name[len(prefix) :]: held for name, held in self.values.items()}
        self.values = {k: v for k, v in held.items() if not places or k.startswith(places)}
        return self

    def backwards(self) -> Checkpoint:
        """The same, read from its end: files are read in any order."""
        self.tensors.reverse()
        return self

    def asked(
        self, model: str, cache_scales: bool = False, stage: tuple[int, int] = (0, 1)
    ) -> dict[str, Any]:
        """What the asker ``weight_names`` is asked; ``stage`` of how many in the pipeline."""
        return {
            "class": model,
            "config": self.config,
            "scheme": list(self.scheme),
            "cache_scales": cache_scales,
            "stage": list(stage),
            "tensors": [[name, list(shape), value] for name, shape, value in self.tensors],
        }

    def right(self, empty: Iterable[str] = ()) -> Loaded:
        """The right answer; ``empty`` are the parameters that it has nothing for."""
        return Loaded(self.values, sorted(empty))


class Loaded:
    """Each tensor lies in its place, whole, and nothing else is empty or changed."""

    def __init__(self, values: dict[str, list[Any]], empty: list[str]) -> None:
        self.values, self.empty = values, empty

    def __call__(self, answer: Any) -> bool:
        right = {"values": self.values, "empty": self.empty, "changed": []}
        return bool(answer == right)

    def __str__(self) -> str:
        return f"{len(self.values)} values, each in its place, and {len(self.empty)} empty"


class Place:
    """Names below a module; None below none."""

    def __init__(self, prefix: str | None) -> None:
        self.prefix = prefix

    def __call__(self, name: str) -> str | None:
        return None if self.prefix is None else f"{self.prefix}.{name}"


def draft(checkpoint: Checkpoint, own: bool, place: str | None) -> None:
    """The parts that a draft layer has beside its decoder layer.

    ``own`` ones hold the embedding and the head, which it shares with the model, once more.
    """
    number = checkpoint.config["num_hidden_layers"]
    name, at = f"model.layers.{number}", Place(place)
    shared = {tensor: value for tensor, _, value in checkpoint.tensors}
    if own:
        checkpoint.add(f"{name}.embed_tokens.weight", value=shared["model.embed_tokens.weight"])
    checkpoint.add(f"{name}.eh_proj.weight", at("eh_proj.weight"), (HIDDEN, 2 * HIDDEN))
    for part in ("enorm", "hnorm", "shared_head.norm"):
        checkpoint.add(f"{name}.{part}.weight", at(f"{part}.weight"), (HIDDEN,))
    if own:
        checkpoint.add(f"{name}.shared_head.head.weight", value=shared["lm_head.weight"])
