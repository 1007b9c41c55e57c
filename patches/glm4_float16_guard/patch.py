"""GLM-4-0414 in vLLM 0.8.4 to 0.9.0.1: float16 is accepted, overflows, and answers ``!!!!``.

https://github.com/vllm-project/vllm/issues/17154
"""

from __future__ import annotations

from glmpatch.language import N_
from glmpatch.patch import Answers, Patch, Rewrite

PATCH = Patch(
    id="glm4-float16-guard",
    title=N_("GLM-4-0414 in float16 answers !!!! and nothing says why"),
    symptoms=(N_("silent: every answer of GLM-4-0414 is !!!!, with --dtype float16 or half"),),
    why=N_("""\
GLM-4-0414 overflows in float16: every answer is "!!!!". vLLM refuses float16 for it from 0.9.1 on.
Before, it takes --dtype float16 without a word, and dtype auto, the default, makes float16 of a
checkpoint in float16 and of one in float32."""),
    how=N_("""\
Where the precision is settled, float16 for the model type glm4 is refused with upstream's message
if it was asked for; if auto chose it, the first precision that the device has takes its place,
bfloat16 as a rule, as in 0.9.1. Other precisions and other models are untouched."""),
    upstream="https://github.com/vllm-project/vllm/issues/17154",
    removal=N_("Not needed from vLLM 0.9.1 on. Upgrading vLLM replaces the file and its receipt."),
    versions=">=0.8.4,<0.9.1",
    file="vllm/config.py",
    within=("_FLOAT16_NOT_SUPPORTED_MODELS", "_get_and_verify_dtype"),
    rewrites=(
        Rewrite(
            "refuse-float16",
            N_("refuse float16 for glm4; let auto choose bfloat16, or float32 where there is none"),
        ),
    ),
    advised=False,
    caution=N_("""\
It stops whoever runs GLM-4-0414 in float16 and is content: quantised checkpoints whose kernels take
float16 alone (AWQ and GPTQ without marlin), and some 9B models that do not overflow."""),
    proof=Answers(
        asker="precision",
        about=N_("vLLM's configuration"),
        questions="glm4_float16_guard.questions",
        asks=(
            "_FLOAT16_NOT_SUPPORTED_MODELS",
            "_get_and_verify_dtype",
            "_resolve_auto_dtype",
            "_check_valid_dtype",
            "_is_valid_dtype",
        ),
        config_class="Glm4Config",
        transformers="4.51.3",
    ),
)
