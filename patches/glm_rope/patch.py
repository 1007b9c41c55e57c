"""GLM-4-9B-chat-hf in vLLM 0.7.3 to 0.8.4: every layer halves the one rope that all layers share.

https://github.com/vllm-project/vllm/pull/16912
"""

from __future__ import annotations

from glmpatch.language import N_
from glmpatch.patch import Neighbour, Numbers, Patch, Rewrite

PATCH = Patch(
    id="glm-rope",
    title=N_("GLM-4-9B-chat-hf (GlmForCausalLM) fails wherever the rope runs in plain PyTorch"),
    symptoms=(
        "RuntimeError: shape '[1, 128]' is invalid for input of size 184",
        "The size of tensor a (0) must match the size of tensor b (4) at non-singleton dimension 2",
    ),
    why=N_("""\
All layers share one rope object, and vLLM 0.7.3 to 0.8.4 halves its rotary_dim once for each of
them: 64, 32, ..., 0. The CUDA kernel takes the width from its cache and is right by luck; plain
PyTorch takes rotary_dim, and stops because the shapes do not fit."""),
    how=N_("""\
Drops the halving: llama, which GlmForCausalLM is built on, takes the width from the
configuration's partial_rotary_factor (0.5 for these models). Upstream also sets that factor to
0.5, which changes nothing for them and would override another value. Upstream lifted the
restriction to the V0 engine at the same time; this patch leaves it."""),
    upstream="https://github.com/vllm-project/vllm/pull/16912",
    removal=N_("Not needed from vLLM 0.8.5 on. Upgrading vLLM replaces the file and its receipt."),
    versions=">=0.7.3,<0.8.5",
    file="vllm/model_executor/models/glm.py",
    neighbours=(Neighbour("vllm/model_executor/models/llama.py"),),
    rewrites=(
        Rewrite(
            "keep-rope-width",
            N_("do not halve rotary_dim: the rope is shared and has the right width already"),
        ),
    ),
    proof=Numbers(
        architecture="GlmForCausalLM",
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
            "max_position_embeddings": 158,
            "rms_norm_eps": 0.02,
            "rope_theta": 500.0,
            "attention_bias": True,
            "tie_word_embeddings": False,
            "pad_token_id": 0,
            "eos_token_id": [1],
        },
    ),
)
