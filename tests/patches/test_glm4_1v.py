"""glm4-1v: what its rewrites make of processing code in our own words, and what it asks."""

from __future__ import annotations

import pytest

from glmpatch.patch import PatchState, RewriteState
from glmpatch.patches.glm4_1v.patch import PATCH
from glmpatch.patches.glm4_1v.questions import (
    COUNTED,
    FITS,
    LIMIT,
    SMALL,
    TAKEN,
    UNHEEDED,
    Right,
    keeps,
    most,
    within,
)
from glmpatch.source.plan import make_plan

OLD = """\
class Glm4vVisionAttention:
    def __init__(self, prefix, quant_config):
        self.qkv = QKVParallelLinear(quant_config=quant_config, prefix=f"{prefix}.qkv")


class Glm4vProcessingInfo:
    def get_image_size_with_most_features(self):
        size, _ = self._get_vision_info(image_width=9999999, image_height=9999999)
        return size  # of a square

    def get_num_image_tokens(self, *, image_width, image_height):
        return self._get_vision_info(
            image_width=image_width,
            image_height=image_height,
            max_image_pixels=28 * 28 * 2 * 6144,
        )[1]

    def _get_max_video_frames(self, max_tokens):
        width, height = self.get_image_size_with_most_features()
        return self.frames(width, height, max_tokens)


class Glm4vDummyInputsBuilder:
    def get_dummy_mm_data(self, seq_len, mm_counts):
        target_width, target_height = self.info.get_image_size_with_most_features()
        return {
            "image": self._get_dummy_images(width=target_width, height=target_height),
            "video": self._get_dummy_videos(width=target_width, height=target_height),
        }

    def _get_dummy_videos(self, *, width, height, num_frames):
        # white
        video = np.full((num_frames, width, height, 3), 255, dtype=np.uint8)
        return [video]
"""
NEW = OLD.replace(
    "    def get_num_image",
    """\
    def _get_image_max_pixels(self):
        return 1

    def get_num_image""",
).replace("image_height=9999999)", "image_height=9999999, num_frames=1)")
"""As upstream has it from 0.17.0 on."""


def mended(source: str, *only: str, version: str | None = None) -> str:
    plan = make_plan(PATCH, source.encode(), version, only or None)
    assert plan.state is PatchState.NEEDED, plan.findings
    return plan.after.decode()


def test_each_rewrite_finds_its_place_and_is_found_again() -> None:
    plan = make_plan(PATCH, OLD.encode())
    assert [(f.rewrite, f.state, f.line) for f in plan.findings] == [
        ("encoder-budget", RewriteState.BROKEN, 8),
        ("two-dummy-frames", RewriteState.BROKEN, 33),
        ("fused-projection-name", RewriteState.BROKEN, 3),
    ]
    again = make_plan(PATCH, plan.after)
    assert again.state is PatchState.FIXED
    assert again.after == plan.after


def test_pictures_get_a_size_of_their_own_and_videos_keep_theirs() -> None:
    found = mended(OLD, "encoder-budget")
    video = "    def get_video_size_with_most_features(self):\n        size, _ = self._get_vision"
    assert video in found
    assert "return size  # of a square\n" in found
    assert found.count("self.get_video_size_with_most_features()") == 1
    assert "video_width, video_height = self.info.get_video_size_with_most_features()\n" in found
    assert "_get_dummy_images(width=target_width, height=target_height)" in found
    assert "_get_dummy_videos(width=video_width, height=video_height)" in found


def test_a_picture_is_counted_as_one_frame_under_the_processors_limit() -> None:
    limit = "self._get_image_max_pixels()"
    found = mended(OLD, "encoder-budget")
    assert f"            max_image_pixels={limit},\n            num_frames=1,\n" in found
    assert f"        max_pixels = {limit}\n" in found
    assert found.count("def _get_image_max_pixels(self) -> int:") == 1


def test_the_later_form_keeps_its_count_and_its_way_to_the_limit() -> None:
    found = mended(NEW, "encoder-budget")
    assert "max_image_pixels=28 * 28 * 2 * 6144" in found
    assert "        max_pixels = self._get_image_max_pixels()\n" in found
    assert found.count("def _get_image_max_pixels(self)") == 1


def test_the_dummy_video_has_two_frames() -> None:
    found = mended(OLD, "two-dummy-frames")
    lines = "        # white\n        num_frames = max(num_frames, 2)\n        video = np.full("
    assert lines in found
    assert make_plan(PATCH, found.encode()).findings[1].state is RewriteState.FIXED


def test_a_dummy_video_of_another_colour_is_found_too() -> None:
    black = OLD.replace("np.full((num_frames, width, height, 3), 255,", "np.zeros((num_frames, 1),")
    found = mended(black, "two-dummy-frames")
    assert "num_frames = max(num_frames, 2)\n        video = np.zeros(" in found


def test_the_projection_is_named_as_checkpoints_name_it() -> None:
    found = mended(OLD, "fused-projection-name")
    assert 'prefix=f"{prefix}.qkv_proj" if quant_config else f"{prefix}.qkv")' in found
    always = OLD.replace('f"{prefix}.qkv"', 'f"{prefix}.qkv_proj"')
    plan = make_plan(PATCH, always.encode())
    assert plan.findings[2].state is RewriteState.FIXED


@pytest.mark.parametrize(
    ("version", "rewrites"),
    [("0.9.2", 3), ("0.10.1.1", 3), ("0.10.2", 2), ("0.12.0", 2), ("0.13.0", 1), ("0.33.0", 1)],
)
def test_a_release_has_the_rewrites_of_its_defects(version: str, rewrites: int) -> None:
    assert len(make_plan(PATCH, OLD.encode(), version).findings) == rewrites


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Glm4vProcessingInfo", "Another"),
        ("get_image_size_with_most_features(self)", "size(self)"),
        ("class Glm4vDummyInputsBuilder", "class Builder"),
        ("_get_dummy_videos(width=target_width", "_get_dummy_videos(edge=target_width"),
        ("target_width, target_height = self.info", "target = self.info"),
        ("            max_image_pixels=28 * 28 * 2 * 6144,\n", ""),
        ("self.qkv = QKVParallelLinear(", "self.qkv = make("),
        ("video = np.full(", "video = white("),
    ],
)
def test_code_of_another_kind_is_not_recognised(old: str, new: str) -> None:
    assert old in OLD
    assert make_plan(PATCH, OLD.replace(old, new).encode()).state is PatchState.DRIFTED


def test_what_right_is_follows_from_the_limit() -> None:
    assert most(LIMIT) == 6144 == 64 * 96
    assert most(28 * 28 * 15000) == 7500
    assert most(28 * 28 * 2 * 6143) == 6142  # 6143 is a prime number
    assert most(28 * 28 * 2 * 3) == 3
    assert keeps(LIMIT)({"kept": 6144, "counted": 6144})
    for kept, counted in ((6084, 6084), (6144, 6084), (3721, 6144), (9999, 9999)):
        assert not keeps(LIMIT)({"kept": kept, "counted": counted})


def test_a_limit_that_transformers_does_not_heed_is_no_fault_of_the_file() -> None:
    for judge in (keeps(SMALL), within(SMALL)):
        assert judge(UNHEEDED)
    for judge in (keeps(LIMIT), within(), FITS, TAKEN, COUNTED):
        assert not judge(UNHEEDED)


@pytest.mark.parametrize(
    "judge", [keeps(LIMIT), within(), within(SMALL), FITS, TAKEN, COUNTED], ids=str
)
def test_what_is_not_what_was_asked_for_is_no_right_answer(judge: Right) -> None:
    wrong: tuple[object, ...] = ({"raised": "KeyError: 'kept'"}, "refused: too hot", None, [], {})
    assert not any(judge(each) for each in wrong)


def test_a_picture_that_transformers_refuses_needs_no_room() -> None:
    refused = "refused: height:0 or width:0 must be larger than factor:28"
    assert FITS({"made": refused, "counted": refused, "kept": 6144})
    assert not FITS({"made": refused, "counted": refused, "kept": refused})
    assert not FITS({"made": 6132, "counted": refused, "kept": 6144})
    assert not FITS({"made": 6132, "counted": 6132, "kept": 6084})
    assert not FITS({"made": 12, "counted": 16, "kept": 6144})
    assert not within()({"most": 0, "kept": 6144})
    assert not within()({"most": 6144, "kept": 6084})


def test_a_dummy_video_has_all_its_frames_and_says_so() -> None:
    made = {"asked": 16, "frames": 16, "size": "yes", "taken": "yes", "told": "yes"}
    assert TAKEN(made)
    assert TAKEN({**made, "asked": 1, "frames": 2})
    assert not TAKEN({**made, "frames": 2})
    assert not TAKEN({**made, "asked": 1, "frames": 1})
    for name in ("size", "taken", "told"):
        assert not TAKEN({**made, name: "refused: t:1 must be larger than temporal_factor:2"})
    assert COUNTED({"made": 12, "counted": 12})
    assert not COUNTED({"made": 12, "counted": 6})
    assert not COUNTED({"made": 0, "counted": 0})
