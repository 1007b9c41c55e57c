"""The dummy video that a release makes, by what comes out of it, and not by what was asked for.

A whole one may have gigabytes, so it is made twice: small with all its frames, and short in its
size.
"""

from __future__ import annotations

from typing import Any

SMALL = {"width": 56, "height": 84}
"""Sides that are not the same: some releases make them the other way round, and are taken so."""
RIGHT = "yes"


def make(builder: Any, given: dict[str, Any]) -> Any:
    """The one dummy video that ``_get_dummy_videos`` of a builder makes of this."""
    (item,) = type(builder)._get_dummy_videos(builder, **{**given, "num_videos": 1})
    return item


def measures(item: Any) -> tuple[int, int, int]:
    """Frames, shorter side and longer side."""
    frames, *sides, colours = pixels(item).shape
    short, long = sorted(sides)
    if colours != 3:
        raise ValueError(f"{colours} colours")
    return frames, short, long


def pixels(item: Any) -> Any:
    return item[0] if isinstance(item, tuple) else item


def whole(builder: Any, given: dict[str, Any]) -> tuple[int, int, int]:
    """Frames and sides that the dummy video has, without its gigabytes."""
    frames, _, _ = measures(make(builder, {**given, **SMALL}))
    _, short, long = measures(make(builder, {**given, "num_frames": 2}))
    return frames, short, long


def told(item: Any) -> str:
    """Whether the metadata that the processing code unpacks are there, and are of this video."""
    if not (isinstance(item, tuple) and len(item) == 2):
        return "no pair of a video and its metadata"
    video, metadata = item
    frames = len(video)
    if metadata["total_num_frames"] != frames:
        return f"{metadata['total_num_frames']} frames"
    if abs(metadata["duration"] * metadata["fps"] - frames) >= 1:
        return f"{metadata['duration']} s at {metadata['fps']} frames a second"
    if list(metadata.get("frames_indices", range(frames))) != list(range(frames)):
        return "not the frames from first to last"
    return RIGHT
