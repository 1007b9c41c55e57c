"""GLM-4.5, 4.6 and 4.7 in vLLM 0.10.0 to 0.24.0: scales of the KV cache; 0.10.0's router.

https://github.com/vllm-project/vllm/pull/34293, https://github.com/vllm-project/vllm/pull/41755
and https://github.com/vllm-project/vllm/pull/22832
"""

from __future__ import annotations

from glmpatch.language import N_
from glmpatch.patch import Answers, Neighbour, Patch, Rewrite

PATCH = Patch(
    id="glm4-moe",
    title=N_(
        "GLM-4.5/4.6/4.7: scales of the KV cache stop the loading; 0.10.0 picks wrong experts"
    ),
    symptoms=(
        "KeyError: 'layers.0.self_attn.qkv_proj.k_scale'",
        "KeyError: 'layers.0.self_attn.qkv_proj.v_scale'",
        "KeyError: 'layers.0.self_attn.qkqkv_proj.k_scale'",
        "KVCacheScaleParameter.weight_loader() takes 2 positional arguments but 3 were given",
        "glm4_moe.py ... if weight_name not in name ... argument of type NoneType is not iterable",
        N_("silent: vLLM 0.10.0 computes the router in bfloat16 and sends tokens to wrong experts"),
    ),
    why=N_("""\
NVFP4 and FP8 checkpoints hold k_proj.k_scale and v_proj.v_scale, which belong to the attention.
vLLM 0.10.0 to 0.20.2 takes them for parts of the stacked qkv_proj and finds no such parameter.
0.21.0 to 0.24.0 remap them there, but go on with the wrong loop where the attention has no scale,
and from 0.23.0 on hand the parameter an argument that it does not take. Besides, 0.10.0 keeps the
router's gate, its logits and the correction of the experts' scores in the model's precision: the
corrections of real models lie closer to each other than bfloat16's numbers."""),
    how=N_("""\
Remaps a k or v scale before all renaming, loads it, and goes on with the next weight. Remapped and
no more, it would be remapped once again further down and dropped: the model would load, with its
scales unset. In 0.10.0 the router computes in float32, as 0.10.1's does."""),
    upstream="https://github.com/vllm-project/vllm/pull/41755",
    removal=N_("""\
Not needed from vLLM 0.25.0 on, which renames the scales before a model sees them. Upgrading vLLM
replaces the file and its receipt."""),
    versions=">=0.10.0,<0.25.0",
    file="vllm/model_executor/models/glm4_moe.py",
    neighbours=(Neighbour("vllm/model_executor/model_loader/weight_utils.py"),),
    rewrites=(
        Rewrite(
            "load-cache-scales",
            N_(
                "a k or v scale goes to the attention, before the stacked projections take its name"
            ),
        ),
        Rewrite(
            "exact-router-logits",
            N_("the router's gate and what it is given are float32"),
            places=2,
            versions="<0.10.1",
        ),
        Rewrite(
            "exact-router-bias",
            N_("the correction of the experts' scores is float32"),
            versions="<0.10.1",
        ),
    ),
    proof=Answers(
        asker="several",
        about=N_("vLLM's loader of weights and its router"),
        questions="glm4_moe.questions",
        asks=(
            "Glm4MoeModel.load_weights",
            "Glm4MoeModel.get_expert_mapping",
            "Glm4MoeForCausalLM.load_weights",
            "Glm4MoeForCausalLM.get_expert_mapping",
        ),
    ),
)
