"""Asks GLM-4.1V's processing code how many tokens it keeps ready for a picture or a video.

What pictures and videos become is asked of Transformers' own processors. A question has ``ask``,
and for all but ``prefix`` a ``limit``: ``size["longest_edge"]`` of the image processor, an area.

``budget``: ``kept``, the tokens of the dummy picture, and ``counted``, what the code says itself.
``picture`` (``width``, ``height``): ``made`` of it, ``counted`` and ``kept``.
``pictures``: the ``most`` tokens that any of some thousand shapes becomes, and ``kept``.
``dummy video`` (``length`` of the context, ``frames`` that a user asks for): its ``frames`` beside
those that were ``asked`` for, whether it has the ``size`` asked for, whether Transformers' video
processor takes them, and whether its metadata have ``told`` of it what is so.
``video`` (``width``, ``height``, ``frames``, ``resize``): ``made`` of it, and ``counted``.
``videos`` (``length``): the ``most`` tokens that a video becomes, and ``kept``, by the dummy one.
``prefix`` (``prefix`` of the attention): the name under which the fused projection asks how it is
quantised.

A number may be ``refused: …`` where the code or Transformers refuses.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import tempfile
import types
from typing import Any

from .. import dummies
from . import attempt, candidate, refusal

USUAL, SHORTEST, VIDEO = 28 * 28 * 2 * 6144, 112 * 112, 28 * 28 * 2 * 30000
"""The limits of the checkpoints: the most and the least of a picture, the most of a video."""
VISION = {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
"""Of the checkpoints; Transformers' own defaults have changed."""
UNHEEDED = "this Transformers knows one limit"
"""The answer where the image processor ignores the limit that it is given (before 4.56)."""
SIDES = (28, 29, 40, 56, 61, 99, 140, 141, 200, 300, 427, 600, 867, 1000, 1250, 1708, 2184, 3000)
FILMS = (1, 1.25, 4 / 3, 1.5, 16 / 9, 2, 2.4, 3, 5, 10, 33)
RATIOS = (1, 1.3, 1.5, 2, 3, 5, 7.81, 12, 20, 33, 50, 80, 120, 170, 199, 200)


def answer(module: str, path: str | None, questions: list[Any]) -> list[Any]:
    with candidate(module, path) as loaded:
        budgets = functools.lru_cache(maxsize=None)(lambda limit: Budget(loaded, limit))
        heeded = functools.lru_cache(maxsize=None)(
            lambda: budgets(28 * 28 * 200).made(600, 600) < 200
        )

        def ask(question: Any) -> Any:
            if question["ask"] == "prefix":
                return _prefix(loaded, question["prefix"])
            if question["limit"] != USUAL and not heeded():
                return UNHEEDED
            budget = budgets(question["limit"])
            named = question["ask"].replace(" ", "_")
            given = {key: value for key, value in question.items() if key not in ("ask", "limit")}
            return getattr(budget, named)(**given)

        return [attempt(ask, question) for question in questions]


class Budget:
    """The processing code of a release under one limit, beside Transformers' processors."""

    def __init__(self, module: Any, limit: int) -> None:
        from transformers.models.glm4v import (
            configuration_glm4v,
            image_processing_glm4v,
            video_processing_glm4v,
        )

        self.limit = limit
        size = {"shortest_edge": SHORTEST, "longest_edge": limit}
        self.images = image_processing_glm4v.Glm4vImageProcessor(size=size)
        self.videos_of = video_processing_glm4v
        processor = types.SimpleNamespace(
            image_processor=self.images,
            video_processor=video_processing_glm4v.Glm4vVideoProcessor(),
            image_token="<|image|>",
            video_token="<|video|>",
        )
        self.info = module.Glm4vProcessingInfo(
            _context(configuration_glm4v.Glm4vConfig(vision_config=VISION), processor, size)
        )
        self.given: dict[str, Any] = {}

        class Builder(module.Glm4vDummyInputsBuilder):  # type: ignore[misc]
            def _get_dummy_videos(inner, **given: Any) -> Any:  # noqa: N805
                """Keeps what is asked for: the dummy video itself may have gigabytes."""
                self.given = given
                return []

        self.builder = Builder(self.info)
        self.own_builder = module.Glm4vDummyInputsBuilder(self.info)

    def made(self, width: int, height: int) -> Any:
        """The tokens that Transformers makes of a picture."""
        from PIL import Image

        try:
            picture = Image.new("RGB", (width, height))
            # Its colours do not matter, and take half of the time.
            made = self.images(
                images=[picture], do_rescale=False, do_normalize=False, return_tensors="pt"
            )
            grid = made["image_grid_thw"]
            return int(grid.prod()) // self.images.merge_size**2
        except (ValueError, ZeroDivisionError, RuntimeError) as error:
            return refusal(error)

    def counted(self, width: int, height: int) -> Any:
        """The tokens that the code itself counts for a picture."""
        try:
            return int(self.info.get_num_image_tokens(image_width=width, image_height=height))
        except (ValueError, ZeroDivisionError) as error:
            return refusal(error)

    @functools.lru_cache(maxsize=None)  # noqa: B019 - lives as long as its module is asked
    def kept(self) -> Any:
        """What is kept ready for a picture: the tokens of the dummy one."""
        (dummy,) = self._dummy(4096, {"image": 1})["image"]
        return self.made(*dummy.size)

    def budget(self) -> Any:
        return {"kept": self.kept(), "counted": int(self.info.get_max_image_tokens())}

    def picture(self, width: int, height: int) -> Any:
        return {
            "made": self.made(width, height),
            "counted": self.counted(width, height),
            "kept": self.kept(),
        }

    def pictures(self) -> Any:
        resize = self.videos_of.smart_resize
        most = 0
        for short in SIDES:
            for ratio in RATIOS:
                for long in (int(short * ratio) - 1, int(short * ratio)):
                    if not short <= long <= 200 * short:
                        continue
                    high, wide = resize(
                        num_frames=2,
                        height=long,
                        width=short,
                        temporal_factor=2,
                        factor=28,
                        min_pixels=SHORTEST,
                        max_pixels=self.limit,
                    )
                    most = max(most, high * wide // 784)
        return {"most": most, "kept": self.kept()}

    def dummy_video(self, length: int, frames: int = 0) -> Any:
        given = {**self._dummy_video(length), **dummies.SMALL}
        asked = given["num_frames"]
        takes = inspect.signature(self.own_builder._get_dummy_videos).parameters
        if frames and "overrides" in takes:
            from vllm.config.multimodal import VideoDummyOptions

            given["overrides"] = VideoDummyOptions(count=1, num_frames=frames)
            asked = min(asked, frames)
        made = dummies.make(self.own_builder, given)
        count, *sides = dummies.measures(made)
        try:
            self._video_tokens(count, *sides)
            taken = "yes"
        except ValueError as error:
            taken = refusal(error)
        return {
            "asked": asked,
            "frames": count,
            "size": "yes" if sides == sorted(dummies.SMALL.values()) else str(sides),
            "taken": taken,
            "told": dummies.told(made),
        }

    def video(self, width: int, height: int, frames: int, resize: bool = True) -> Any:
        """What the code counts for a film as it is, and what Transformers makes of it."""
        sides = {"image_width": width, "image_height": height, "num_frames": frames}
        if resize and hasattr(self.info, "get_num_video_tokens"):  # up to 0.25
            counted = self.info.get_num_video_tokens(**sides)
        else:
            _, counted = self.info._get_vision_info(
                **sides, do_resize=resize, max_image_pixels=VIDEO
            )
        return {"made": self._film(width, height, frames, resize), "counted": int(counted)}

    def _film(self, width: int, height: int, frames: int, resize: bool) -> int:
        """The tokens that Transformers' video processor makes; every version takes its frames with
        metadata of which it takes all."""
        import torch
        from transformers.video_utils import VideoMetadata

        told = VideoMetadata(
            total_num_frames=frames, fps=2.0, duration=frames / 2, video_backend="opencv"
        )
        processor = self.videos_of.Glm4vVideoProcessor()
        made = processor(
            videos=[[torch.zeros((frames, height, width, 3)).numpy()]],
            video_metadata=[[told]],
            do_resize=resize,
            do_rescale=False,
            do_normalize=False,
            return_tensors="pt",
        )
        return int(made["video_grid_thw"].prod() // processor.merge_size**2)

    def videos(self, length: int) -> Any:
        given = self._dummy_video(length)
        most = 0
        for frames in (2, 4, 6, 8, 10, 16, 30, 60, 100, 128, 200, 256, 300, 400, 500, 600):
            for ratio in FILMS:
                side = int((VIDEO / frames / ratio) ** 0.5)
                for short in (side, side + 14, 3 * side):
                    most = max(most, self._video_tokens(frames, short, int(short * ratio)))
        return {"most": most, "kept": self._video_tokens(*dummies.whole(self.own_builder, given))}

    def _video_tokens(self, frames: int, width: int, height: int) -> int:
        """The tokens that Transformers makes of a video, without making its pixels."""
        if max(width, height) > 200 * min(width, height) or min(width, height) < 28:
            return 0
        high, wide = self.videos_of.smart_resize(
            num_frames=frames,
            height=height,
            width=width,
            temporal_factor=2,
            factor=28,
            max_pixels=VIDEO,
        )
        return int(-(-frames // 2) * (high // 28) * (wide // 28))

    @functools.lru_cache(maxsize=None)  # noqa: B019
    def _dummy_video(self, length: int) -> Any:
        """How the dummy video is made beside a picture, for a context of this length."""
        self._dummy(length, {"image": 1, "video": 1})
        return self.given

    def _dummy(self, length: int, counts: dict[str, int]) -> Any:
        asked = {"seq_len": length, "mm_counts": {"video": 0, **counts}, "mm_options": {}}
        takes = inspect.signature(self.builder.get_dummy_mm_data).parameters
        return self.builder.get_dummy_mm_data(**{k: v for k, v in asked.items() if k in takes})


def _context(config: Any, processor: Any, size: dict[str, int]) -> Any:
    """What a release's processing code may ask of an engine's configuration."""
    folder = tempfile.mkdtemp(prefix="checkpoint-")
    for name, limits in (
        ("preprocessor_config.json", size),
        ("video_preprocessor_config.json", {"shortest_edge": SHORTEST, "longest_edge": VIDEO}),
    ):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as stream:
            json.dump({"size": limits}, stream)
    return types.SimpleNamespace(
        model_config=types.SimpleNamespace(model=folder, revision=None, hf_config=config),
        tokenizer=None,
        get_tokenizer=lambda: None,
        get_hf_config=lambda *_: config,
        get_hf_processor=lambda *_, **__: processor,
        get_hf_image_processor_config=lambda: {"size": dict(size)},
        get_merged_mm_kwargs=lambda kwargs: dict(kwargs),
    )


class _Seen(Exception):
    """Ends the making of a layer once its name is known."""


def _prefix(module: Any, prefix: str) -> Any:
    """The first name that the attention's layers ask a quantisation about, as FP8's is read."""
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.distributed import parallel_state
    from vllm.model_executor.layers.quantization.compressed_tensors import compressed_tensors

    seen: list[str] = []

    class Recording(compressed_tensors.CompressedTensorsConfig):  # type: ignore[misc]
        def __init__(self) -> None:
            """Nothing of it is asked but the method below."""

        def get_quant_method(self, layer: Any, prefix: str) -> Any:
            seen.append(prefix)
            raise _Seen

    kept = parallel_state._TP
    parallel_state._TP = types.SimpleNamespace(world_size=1, rank_in_group=0)
    try:
        with set_current_vllm_config(VllmConfig()), contextlib.suppress(_Seen):
            module.Glm4vVisionAttention(
                embed_dim=64,
                num_heads=4,
                projection_size=64,
                quant_config=Recording(),
                prefix=prefix,
            )
    finally:
        parallel_state._TP = kept
    return seen[0] if seen else "none"
