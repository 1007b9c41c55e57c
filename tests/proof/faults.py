"""74 ways in which a GLM-4 can be wrong: in its file, in its weights, in the attention under it.

Each is an edit of the right file, a change of the weights as they are loaded, or a fault of the
attention that ``worker.py`` knows by name: the last two stand for a loader or a kernel that is
wrong, and show what the judgement can see. No source of vLLM is kept here but the words that an
edit replaces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.sources import REWRITES, hand_patches, proper_subsets, repaired, replace

EPSILON = "eps=config.rms_norm_eps"
SCALE = "self.head_dim**-0.5"
THETA = "self.rope_theta = rope_theta"
ROTATE = "q, k = self.rotary_emb(positions, q, k)"
AFTER_ATTENTION = "        hidden_states = self.post_self_attn_layernorm(hidden_states)\n"
AFTER_MLP = "        hidden_states = self.post_mlp_layernorm(hidden_states)\n"
ADD = "        hidden_states = residual + hidden_states\n"
LAYERS = 3


@dataclass(frozen=True)
class Fault:
    """``source`` is the whole file; ``attention`` a fault's name and argument; ``weights`` a list
    of changes, each an operation and its arguments; ``logits`` what they are multiplied by."""

    source: bytes
    attention: tuple[str, Any] | None = None
    weights: tuple[tuple[Any, ...], ...] = ()
    logits: float = 1.0


def faults(released: bytes) -> Mapping[str, Fault]:
    """Name -> fault, from the released file."""
    right = repaired(released)
    found = {name: Fault(source) for name, source in _sources(released, right).items()}
    found |= {name: Fault(right, weights=(change,)) for name, change in _weights().items()}
    found |= {name: Fault(right, attention=fault) for name, fault in ATTENTION.items()}
    found |= {f"logits x{factor}": Fault(right, logits=factor) for factor in (1.01, 1.05)}
    assert len(found) == 74, len(found)
    assert all(fault != Fault(right) for fault in found.values())
    return found


def _sources(released: bytes, right: bytes) -> dict[str, bytes]:
    first = REWRITES[0]
    assert first == "unpack-fused-norm"
    files = {
        f"repaired in part: {', '.join(subset)}": repaired(released, subset)
        for subset in proper_subsets()
        if first in subset
    }
    files |= hand_patches(right)
    files["one addition kept (after attention)"] = replace(
        right, AFTER_ATTENTION, AFTER_ATTENTION + ADD
    )
    files["one addition kept (after MLP)"] = replace(right, AFTER_MLP, AFTER_MLP + ADD)
    for factor in (1.003, 1.01, 1.02, 1.05, 1.10):
        files[f"attention scale x{factor}"] = replace(right, SCALE, f"{SCALE} * {factor}")
    files["attention scale 1 / head size"] = replace(right, SCALE, "self.head_dim**-1.0")
    files["attention scale by hidden size / heads"] = replace(
        right, SCALE, "(hidden_size // num_heads)**-0.5"
    )
    for factor in (1.1, 10):
        files[f"epsilon x{factor}, one norm"] = re.sub(
            rf"(self\.post_mlp_layernorm = RMSNorm\(config\.hidden_size,\s*{EPSILON})".encode(),
            rf"\1 * {factor}".encode(),
            right,
        )
    for factor in (1.1, 2, 10, 300):
        files[f"epsilon x{factor}"] = replace(right, EPSILON, f"{EPSILON} * {factor}", 4)
    files["epsilon fixed at 1e-5"] = replace(right, EPSILON, "eps=1e-5", 4)
    files["norms after attention and MLP swapped"] = (
        right.replace(b"self.post_self_attn_layernorm(", b"self.SWAP(")
        .replace(b"self.post_mlp_layernorm(", b"self.post_self_attn_layernorm(")
        .replace(b"self.SWAP(", b"self.post_mlp_layernorm(")
    )
    files["norm after attention used twice"] = replace(right, AFTER_MLP, AFTER_ATTENTION)
    begin = "        super().__init__()\n        self.hidden_size = config.hidden_size\n"
    files["no norm after MLP in the last layer"] = replace(
        replace(right, begin, f"{begin}        self.last = prefix.endswith('.{LAYERS - 1}')\n"),
        AFTER_MLP,
        f"        if not self.last:\n    {AFTER_MLP}",
    )
    for theta in ("10000", "rope_theta * 1.1", "rope_theta * 1.01"):
        files[f"theta: {theta}"] = replace(right, THETA, f"self.rope_theta = {theta}")
    rotary = "        self.rotary_dim = self.head_dim\n"
    files["14 of 16 numbers rotated"] = replace(right, rotary, "        self.rotary_dim = 28\n")
    files["keys not rotated"] = replace(
        right, ROTATE, "q, _ = self.rotary_emb(positions, q, k.clone())"
    )
    files["keys rotated by the next position"] = replace(
        right,
        ROTATE,
        "q, k = (self.rotary_emb(positions, q.clone(), k.clone())[0], "
        "self.rotary_emb(positions + 1, q.clone(), k.clone())[1])",
    )
    files["positions begin anew at 64"] = replace(
        right, ROTATE, "q, k = self.rotary_emb(positions % 64, q, k)"
    )
    return files


def _weights() -> dict[str, tuple[Any, ...]]:
    one = "layers.1."
    found: dict[str, tuple[Any, ...]] = {
        "norms after attention and MLP swapped, one layer": (
            *("exchange", f"{one}post_self_attn_layernorm", f"{one}post_mlp_layernorm"),
        ),
        "norms before attention and MLP swapped, one layer": (
            *("exchange", f"{one}input_layernorm", f"{one}post_attention_layernorm"),
        ),
        "all biases dropped": ("zero", ".bias"),
        "one number of one bias dropped": ("zero_at", f"{one}self_attn.q_proj.bias", 0, 5),
        "gate and up swapped, one layer": ("roll_half", f"{one}mlp.gate_up"),
        "one row of down_proj zero": ("zero_at", f"{one}mlp.down_proj.weight", 0, 5),
        "one column of down_proj zero": ("zero_at", f"{one}mlp.down_proj.weight", 1, 5),
        "one row of the embedding wrong": ("copy_row", "embed_tokens", 8, 7),
        "k_proj and v_proj swapped, one layer": (
            *("exchange", f"{one}self_attn.k_proj", f"{one}self_attn.v_proj"),
        ),
    }
    for layer in (0, LAYERS - 1):
        for part in "qkv":
            name = f"layers.{layer}.self_attn.{part}_proj.bias"
            found[f"bias of {part} dropped, layer {layer}"] = ("zero", name)
    for layer in range(LAYERS):
        o_proj, down = f"layers.{layer}.self_attn.o_proj.weight", f"layers.{layer}.mlp.down_proj"
        found[f"o_proj scrambled, layer {layer}"] = ("scramble", o_proj)
        found[f"down_proj zero, layer {layer}"] = ("zero", down)
    return found


ATTENTION: Mapping[str, tuple[str, Any]] = {
    "heads share keys wrongly": ("shared", None),
    "heads share keys wrongly, one layer": ("shared", 1),
    "one query sees one token ahead": ("peek_one", None),
    "one query sees one token ahead, one layer": ("peek_one", 1),
    "every query sees one token ahead, one layer": ("peek_all", 1),
    "every query sees everything": ("no_mask", None),
    "a window of 128": ("window", 128),
    "a window of 64": ("window", 64),
    "decoding misses the newest token but one": ("lost_newest", None),
    "the first token is never seen": ("lost_first", None),
    "the last token of a chunk of 64 is lost": ("lost_key", 63),
    "the last token of the first block is lost": ("lost_key", 15),
    "one block of the cache is another's": ("wrong_block", None),
    "decoding reads another first block": ("wrong_first_block", None),
    "one value of the cache is its neighbour's": ("wrong_value", None),
}
