"""GLM-4.5, 4.6 and 4.7 in vLLM 0.10.0 to 0.13.0: the draft layer does not find its weights.

https://github.com/vllm-project/vllm/pull/27597 and https://github.com/vllm-project/vllm/pull/32101
"""

from __future__ import annotations

from glmpatch.language import N_
from glmpatch.patch import Answers, Patch, Rewrite

PATCH = Patch(
    id="glm4-moe-mtp",
    title=N_(
        "GLM-4.5/4.6/4.7: speculative decoding with the model's own draft layer does not load"
    ),
    symptoms=(
        "Following weights were not initialized from checkpoint: ... shared_head.head.weight",
        "KeyError: 'model.layers.92.shared_head.head.weight_scale'",
    ),
    why=N_("""\
The draft layer shares its embedding and its head with the whole model. GLM-4.5's checkpoints hold
them twice, GLM-4.6's and later ones only under the whole model's names, which vLLM 0.10.0 to 0.11.0
drops. FP8 checkpoints may also hold a scale of the head, for which vLLM up to 0.13.0 has no
parameter, and it stops there."""),
    how=N_("""\
Loads lm_head and embed_tokens of the whole model into the draft layer, as 0.11.1 does, and skips a
scale without a parameter in the last branch, after all renaming, as 0.14.0 does. Skipped earlier,
as in upstream's first try, the scales of the experts are lost: the model loads, and next to no
draft is accepted."""),
    upstream="https://github.com/vllm-project/vllm/pull/27597",
    removal=N_("Not needed from vLLM 0.14.0 on. Upgrading vLLM replaces the file and its receipt."),
    versions=">=0.10.0,<0.14.0",
    file="vllm/model_executor/models/glm4_moe_mtp.py",
    rewrites=(
        Rewrite(
            "map-shared-weights",
            N_("lm_head and embed_tokens of the whole model are the draft layer's too"),
            versions="<0.11.1",
        ),
        Rewrite(
            "skip-unknown-scales",
            N_("a scale that has no parameter is skipped in the last branch, after all renaming"),
        ),
    ),
    proof=Answers(
        asker="weight_names",
        about=N_("vLLM's loader of the draft layer"),
        questions="glm4_moe_mtp.questions",
        asks=(
            "Glm4MoeMTP.load_weights",
            "Glm4MoeMTP._rewrite_spec_layer_name",
        ),
    ),
)
