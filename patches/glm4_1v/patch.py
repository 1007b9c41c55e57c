"""GLM-4.1V, 4.5V, 4.6V and GLM-OCR: large pictures refused, no start, FP8 garbage.

https://github.com/vllm-project/vllm/issues/34040
"""

from __future__ import annotations

from glmpatch.language import N_
from glmpatch.patch import Answers, Patch, Rewrite

PATCH = Patch(
    id="glm4-1v",
    title=N_(
        "GLM-4.1V, 4.5V, 4.6V and GLM-OCR refuse large pictures, do not start, or answer garbage"
    ),
    symptoms=(
        "exceeds the pre-allocated encoder cache size 3721",
        "exceeds the pre-allocated encoder cache size 6084",
        "ValueError: t:1 must be larger than temporal_factor:2",
        N_("silent: garbage from GLM-4.5V in FP8, whose vision attention is quantised by mistake"),
    ),
    why=N_("""\
The cache of the encoder is measured by a dummy picture. Up to 0.16.0 its size is that of one frame
among 16, 3721 tokens; later that of a square, 6084. A picture of another shape becomes up to 6144
tokens under the same limit, and is refused with HTTP 400. Up to 0.12.0 a short context leaves one
frame for the dummy video, which Transformers refuses: vLLM does not start. Up to 0.10.1.1 the
fused projection of the vision attention goes by a name that FP8 checkpoints do not list as
unquantised."""),
    how=N_("""\
The dummy picture is the one with the most tokens under the processor's own limit, whatever its
shape, and pictures count as one frame. Videos keep the size that they had, since theirs is bounded
otherwise. The dummy video has at least 2 frames, and the projection's name ends in qkv_proj where
there is a quantisation, as upstream has both since 0.13.0 and 0.10.2."""),
    upstream="https://github.com/vllm-project/vllm/issues/34040",
    removal=N_(
        "Upstream's budget is still short in 0.33.0. Upgrading vLLM replaces the file and its "
        "receipt."
    ),
    versions=">=0.9.2,<0.34",
    file="vllm/model_executor/models/glm4_1v.py",
    rewrites=(
        Rewrite(
            "encoder-budget",
            N_(
                "measure the encoder cache by the picture with the most tokens, not by a square one"
            ),
        ),
        Rewrite(
            "two-dummy-frames",
            N_("give the dummy video at least 2 frames"),
            versions="<0.13",
        ),
        Rewrite(
            "fused-projection-name",
            N_("name the fused projection qkv_proj where there is a quantisation"),
            versions="<0.10.2",
        ),
    ),
    proof=Answers(
        asker="encoder_budget",
        about=N_("vLLM's processing code for pictures, beside Transformers' own"),
        questions="glm4_1v.questions",
        asks=(
            "Glm4vProcessingInfo._get_vision_info",
            "Glm4vProcessingInfo._get_image_max_pixels",
            "Glm4vProcessingInfo.get_image_size_with_most_features",
            "Glm4vProcessingInfo.get_num_image_tokens",
            "Glm4vProcessingInfo.get_max_image_tokens",
            "Glm4vProcessingInfo.get_video_size_with_most_features",
            "Glm4vDummyInputsBuilder._get_dummy_videos",
        ),
        config_class="Glm4vConfig",
        transformers="4.53.0",
    ),
)
