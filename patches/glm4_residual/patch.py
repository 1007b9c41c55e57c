"""GLM-4-0414 in vLLM 0.8.4: four defects of ``glm4.py``, fixed upstream in 0.8.5.

https://github.com/vllm-project/vllm/pull/16618
"""

from __future__ import annotations

from glmpatch.language import N_
from glmpatch.patch import Neighbour, Numbers, Patch, Rewrite

PATCH = Patch(
    id="glm4-residual",
    title=N_("GLM-4-0414 (GLM-4-9B/32B-0414, GLM-Z1) crashes, or answers garbage once it does not"),
    symptoms=(
        "TypeError: linear(): argument 'input' (position 1) must be Tensor, not tuple",
        "RuntimeError: Worker failed with error 'linear(): argument 'input' (position 1) must be "
        "Tensor, not tuple'",
        N_(
            "silent: garbage, repetition or !!!! from GLM-4-0414 or GLM-Z1 after the crash was "
            "patched"
        ),
    ),
    why=N_("""\
vLLM 0.8.4 stops on every GLM-4-0414 model with "linear(): argument 'input' (position 1) must be
Tensor, not tuple": RMSNorm given a residual returns a pair, and the decoder layer hands the pair
on. Behind the crash three silent defects wait: the residual is added by hand although the next
fused norm adds it, a quarter of each head is rotated instead of half, and in the wrong style.
A file in which any one of the four is left runs, at best, and computes wrong numbers."""),
    how=N_("""\
Binds both values of the fused norm, drops the two additions, hands the whole head size to
get_rope (which multiplies by partial_rotary_factor itself), and passes is_neox_style=False.
sample() and the sampler stay, since the runners of 0.8.4 call them."""),
    upstream="https://github.com/vllm-project/vllm/pull/16618",
    removal=N_("Not needed from vLLM 0.8.5 on. Upgrading vLLM replaces the file and its receipt."),
    versions="==0.8.4",
    file="vllm/model_executor/models/glm4.py",
    rewrites=(
        Rewrite(
            "unpack-fused-norm",
            N_("bind both values of the fused norm (normed hidden states, new residual)"),
            1,
        ),
        Rewrite(
            "drop-double-residual",
            N_("do not add the residual by hand: the next fused norm adds it"),
            2,
        ),
        Rewrite(
            "rotary-dim-once",
            N_("hand get_rope the whole head size: it multiplies by the factor itself"),
            1,
        ),
        Rewrite(
            "interleaved-rope",
            N_("rotate interleaved pairs: is_neox_style=False"),
            1,
        ),
    ),
    neighbours=(Neighbour("vllm/model_executor/models/llama.py"),),
    afterwards=(N_("drop --model-impl transformers where it was used as a workaround"),),
    proof=Numbers(
        architecture="Glm4ForCausalLM",
        config_class="Glm4Config",
        transformers="4.51.3",
        precisions=("float32", "bfloat16"),
        wrong={"module float32": 224, "module bfloat16": 1.08},
        refused={
            "float16": N_(
                "GLM-4-0414 overflows in float16, patched or not: a server answers '!!!!'"
            )
        },
        # Nothing at its default and no two sizes alike, so that each part shows in the numbers:
        # grouped heads, a head size that is not hidden size over heads, biases, an epsilon that
        # is large enough against the values for a wrong one to be seen. No more positions than
        # the longest prompt has tokens, so that one that is shifted falls off the end.
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
