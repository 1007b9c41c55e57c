"""glm4-1v on real releases: as released, with half of the repair, and as upstream repaired it."""

from __future__ import annotations

import itertools
import re

import pytest

from glmpatch.patches.glm4_1v.patch import PATCH
from tests.support.proving import mended, prove, released

pytestmark = pytest.mark.real

SIDES = re.compile(rb"(image_width=9999999,\s+image_height=9999999),?")
USUAL = b"max_image_pixels=28 * 28 * 2 * 6144,"


def square_under_the_limit(source: bytes) -> bytes:
    """As upstream has it from 0.17.0 on: the picture is one frame, and a square."""
    source, sides = SIDES.subn(rb"\1, num_frames=1, " + USUAL, source)
    head, _, tail = source.rpartition(USUAL)
    assert sides == 1
    assert head.count(USUAL) == 1
    return head + b"num_frames=1, " + USUAL + tail


def videos_as_pictures(source: bytes) -> bytes:
    """The dummy video has the size of the dummy picture too."""
    assert source.count(b"get_video_size_with_most_features()") == 2
    return source.replace(b".get_video_size_with", b".get_image_size_with")


@pytest.mark.parametrize(("release", "kept"), [("0.9.2", 3721), ("0.19.1", 6084), ("0.33.0", 6084)])
def test_what_is_wrong_fails_and_what_is_mended_passes(release: str, kept: int) -> None:
    right = mended(PATCH, release)
    files = {"released": released(PATCH, release), "mended": right}
    # From 0.26.0 on an odd number of frames makes up for the shape.
    by_length = release != "0.33.0"
    if by_length:
        files["videos as pictures"] = videos_as_pictures(right)
    found = prove(PATCH, release, files)
    assert {name for name, result in found.items() if result.passed} == {"mended"}
    told = {a.question: a.answer for a in found["released"].wrong_answers}
    # The very numbers of "exceeds the pre-allocated encoder cache size".
    assert f'"kept": {kept}' in told["a picture of 867 x 6771"]
    assert '"made": 6132' in told["a picture of 867 x 6771"]
    if by_length:
        wrong = found["videos as pictures"].wrong_answers
        assert [each.question for each in wrong] == ["videos of all shapes"]


def test_every_proper_subset_of_the_rewrites_fails_and_so_does_upstreams_budget() -> None:
    release = "0.10.1.1"
    names = [rewrite.id for rewrite in PATCH.rewrites]
    some = [each for n in (1, 2) for each in itertools.combinations(names, n)]
    files = {", ".join(s): mended(PATCH, release, *s) for s in some}
    others = mended(PATCH, release, "two-dummy-frames", "fused-projection-name")
    files["upstream's"] = square_under_the_limit(others)
    found = prove(PATCH, release, files)
    assert [name for name, result in found.items() if result.passed] == []
    told = {
        name: {a.question: a.answer for a in result.wrong_answers} for name, result in found.items()
    }
    for name, answers in told.items():
        named = "fused" in name or name == "upstream's"
        assert ("the name of the fused projection" in answers) is not named, name
        short = [answers[q] for q in answers if q.startswith("dummy video")]
        assert bool(short) is ("frames" not in name and name != "upstream's"), name
        assert all("t:1 must be larger than temporal_factor:2" in answer for answer in short)
    assert '"kept": 6084' in told["upstream's"]["a picture of 867 x 6771"]


NEAREST = {
    "no metadata": (
        b"video_item = (video.copy(), video_metadata)",
        b"video_item = video.copy()",
    ),
    "metadata of another video": (
        b'"total_num_frames": num_frames',
        b'"total_num_frames": 2 * num_frames',
    ),
    "two frames, never more": (b"num_frames = max(num_frames, 2)", b"num_frames = 2"),
    "a small one": (
        b"np.full((num_frames, width, height, 3)",
        b"np.full((num_frames, width // 2, height // 2, 3)",
    ),
    "an odd frame is dropped": (
        b"padded_num_frames = num_frames + num_frames",
        b"padded_num_frames = num_frames - num_frames",
    ),
    "always resized": (b"if do_resize:", b"if True:"),
}
"""Edits of the mended file, after which a start would crash or the profile be too small."""


def test_the_nearest_wrong_files_fail() -> None:
    right = mended(PATCH, "0.10.1")
    assert all(right.count(old) == 1 for old, _ in NEAREST.values())
    files = {name: right.replace(*edit) for name, edit in NEAREST.items()}
    found = prove(PATCH, "0.10.1", {"mended": right, **files})
    assert [name for name, result in found.items() if result.crash] == []
    assert [name for name, result in found.items() if result.passed] == ["mended"]
    # By few questions each, or they would fail for another reason.
    wrong = {name: {a.question for a in found[name].wrong_answers} for name in NEAREST}
    assert "videos of all shapes" in wrong["two frames, never more"]
    for name in ("an odd frame is dropped", "always resized"):
        assert all(each.startswith("a video of ") for each in wrong[name]), name
