"""A small model file with the shape of GLM-4's, in words of our own, in replaceable parts."""

from __future__ import annotations

import textwrap

from glmpatch.patches.glm4_residual.patch import PATCH
from glmpatch.source.plan import make_plan

NORM = """\
if residual is None:
    residual = hidden_states
    hidden_states = self.input_layernorm(hidden_states)
else:
    hidden_states, residual = self.input_layernorm(hidden_states, residual)
hidden_states = self.self_attn(positions=positions, hidden_states=hidden_states)
hidden_states = self.post_self_attn_layernorm(hidden_states)
"""
"""The layer up to the places that the patch is about."""
FUSED = "hidden_states, residual = self.post_attention_layernorm(hidden_states, residual)\n"
PAIR = "hidden_states = self.post_attention_layernorm(hidden_states, residual)\n"
MLP = """\
hidden_states = self.mlp(hidden_states)
hidden_states = self.post_mlp_layernorm(hidden_states)
"""
ADD = "hidden_states = residual + hidden_states\n"
RETURN = "return hidden_states, residual\n"
RIGHT = NORM + FUSED + MLP + RETURN
RELEASED = NORM + ADD + PAIR + MLP + ADD + RETURN

FACTOR = "factor = getattr(config, 'partial_rotary_factor', 0.5)\n"
TWICE = FACTOR + "self.rotary_dim = int(factor * self.head_dim)\n"
ONCE = FACTOR + "self.rotary_dim = self.head_dim\n"
ROPE = """\
self.rotary_emb = get_rope(
    self.head_dim,
    rotary_dim=self.rotary_dim,
    max_position=max_position,
    base=10000,
    partial_rotary_factor=factor,
    is_neox_style=False,
)
"""
NEOX = ROPE.replace("    is_neox_style=False,\n", "")

IMPORTS = """\
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.rotary_embedding import get_rope
"""
ATTENTION = """\
q, k, v = self.qkv_proj(hidden_states)
q, k = self.rotary_emb(positions, q, k)
return self.attn(q, k, v)
"""
LAYER = """\
self.self_attn = Glm4Attention(config, 4)
self.mlp = Glm4MLP(config.hidden_size)
self.input_layernorm = RMSNorm(config.hidden_size)
self.post_attention_layernorm = RMSNorm(config.hidden_size)
self.post_self_attn_layernorm = RMSNorm(config.hidden_size)
self.post_mlp_layernorm = RMSNorm(config.hidden_size)
"""

TEMPLATE = """\
import logging

import torch
from torch import nn

from vllm.attention import Attention
{imports}
from .llama import LlamaMLP as Glm4MLP
from .llama import LlamaModel

logger = logging.getLogger(__name__)


class Glm4Attention(nn.Module):
    def __init__(self, config, num_heads, head_dim=None, max_position=64):
        super().__init__()
        self.head_dim = head_dim or config.hidden_size // num_heads
{rope}
        self.attn = Attention(num_heads, self.head_dim, self.head_dim**-0.5)

    def forward(self, positions, hidden_states):
{attention}

class Glm4DecoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
{layer}

    def forward(self, positions, hidden_states, residual):
{body}

class Glm4Model(LlamaModel):
    def __init__(self, *, vllm_config, prefix=""):
        super().__init__(vllm_config=vllm_config, prefix=prefix, layer_type=Glm4DecoderLayer)

{extra}
"""


def model(
    body: str = RIGHT,
    rope: str = ONCE + ROPE,
    *,
    imports: str = IMPORTS,
    attention: str = ATTENTION,
    layer: str = LAYER,
    extra: str = "",
) -> str:
    """The file with these parts, right where they are not given."""
    inner = {
        name: textwrap.indent(part, " " * 8).rstrip("\n") + "\n" if part else ""
        for name, part in (
            ("rope", rope),
            ("attention", attention),
            ("layer", layer),
            ("body", body),
        )
    }
    return TEMPLATE.format(imports=imports, extra=extra, **inner)


def states(source: str | bytes) -> dict[str, str]:
    """What each rewrite says of a source; a rewrite with a broken and a fixed place is broken."""
    plan = make_plan(PATCH, source.encode() if isinstance(source, str) else source)
    found: dict[str, str] = {}
    for finding in plan.findings:
        if found.get(finding.rewrite) != "broken":
            found[finding.rewrite] = finding.state.value
    return found


def mended(source: str) -> str:
    """The source as the patch leaves it; equal to it where nothing may be done."""
    return make_plan(PATCH, source.encode()).after.decode()
