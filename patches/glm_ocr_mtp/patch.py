"""GLM-OCR in vLLM 0.26.0 to 0.29.0: the draft layer's weights are taken for others and dropped.

https://github.com/vllm-project/vllm/pull/49869
"""

from __future__ import annotations

from glmpatch.language import N_
from glmpatch.patch import Answers, Patch, Rewrite

PATCH = Patch(
    id="glm-ocr-mtp",
    title=N_("GLM-OCR: speculative decoding with the model's own draft layer does not load"),
    symptoms=(
        "Following weights were not initialized from checkpoint: ... model.layers.16.mtp_block.",
        "model.layers.16.mtp_block.post_self_attn_layernorm.weight",
    ),
    why=N_("""\
GLM-OCR's checkpoint keeps the draft layer under model.language_model.layers.16. vLLM 0.26.0 to
0.29.0 asks which layer a name belongs to before it takes that wrapper away, the question knows only
names that begin with model.layers, and so every weight of the draft layer is dropped."""),
    how=N_("""\
Takes the wrapper away first. Upstream taught the question the longer name, in another file."""),
    upstream="https://github.com/vllm-project/vllm/pull/49869",
    removal=N_("Not needed from vLLM 0.30.0 on. Upgrading vLLM replaces the file and its receipt."),
    versions=">=0.26.0,<0.30.0",
    file="vllm/model_executor/models/glm_ocr_mtp.py",
    rewrites=(
        Rewrite(
            "strip-wrapper",
            N_("model.language_model. is taken from a weight's name before its layer is asked for"),
        ),
    ),
    proof=Answers(
        asker="weight_names",
        about=N_("vLLM's loader of the draft layer"),
        questions="glm_ocr_mtp.questions",
        asks=(
            "GlmOcrMTP.load_weights",
            "GlmOcrMTP._rewrite_spec_layer_name",
        ),
    ),
)
