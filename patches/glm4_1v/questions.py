"""What must be kept ready for pictures and videos, by the definition of Transformers' limits.

A picture's area, doubled since a still picture counts as two frames, is at most the limit, and its
sides, in units of 28 pixels, are whole numbers of which one is at most 200 times the other. A token
is one square unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from glmpatch.language import N_
from glmpatch.proof.questions import REFUSED, Question

UNIT = 28
LIMIT = UNIT**2 * 2 * 6144
"""Of the checkpoints of GLM-4.1V, 4.5V and 4.6V."""
OTHERS = {
    N_("Transformers' own limit"): UNIT**2 * 15000,
    N_("a prime number of tokens"): UNIT**2 * 2 * 6143,
    N_("a twentieth of it"): UNIT**2 * 2 * 307,
}
SMALL = UNIT**2 * 2 * 100
"""So small that a picture of 1 to 200 becomes more tokens than the limit means to allow."""
UNHEEDED = "this Transformers knows one limit"
SHAPES = (
    (867, 6771),
    (2688, 1792),
    (28, 5600),
    (28000, 140),
    (1, 28000),
    (28000, 1),
    (28, 28),
    (30, 47),
    (1, 1),
    (0, 0),
    (0, 28),
)
FILMS = ((56, 84, 2), (84, 56, 3), (100, 150, 5), (150, 100, 16), (56, 84, 17))
"""Width, height and frames; an odd frame counts as a pair."""
UNRESIZED = ((56, 84, 2), (28, 56, 3))
"""Below the least that a video is resized to."""


def most(limit: int) -> int:
    """The most tokens that a picture can have under a limit."""
    area = limit // (2 * UNIT**2)
    rows = range(1, math.isqrt(area) + 1)
    return max(row * min(area // row, 200 * row) for row in rows)


class Right:
    """Tells a right answer by its values; one that lacks them is wrong."""

    def __init__(self, words: str, tell: Callable[[Any], bool]) -> None:
        self.words, self.tell = words, tell

    def __call__(self, answer: Any) -> bool:
        try:
            return bool(self.tell(answer))
        except (KeyError, TypeError):
            return False

    def __str__(self) -> str:
        return self.words


def keeps(limit: int) -> Right:
    """Exactly the most tokens are kept ready, and counted."""
    tokens = most(limit)
    right = {"kept": tokens, "counted": tokens}
    words = N_("{tokens} kept and counted", tokens=tokens)
    return Right(words, lambda a: a == right or _unheeded(a, limit))


def within(limit: int = LIMIT) -> Right:
    """Nothing becomes more tokens than are kept ready."""
    return Right(
        N_("most is at most what is kept"),
        lambda a: _unheeded(a, limit) or 0 < a["most"] <= a["kept"],
    )


def _unheeded(answer: Any, limit: int) -> bool:
    return limit != LIMIT and bool(answer == UNHEEDED)


def _fits(answer: Any) -> bool:
    made, counted, kept = (answer[each] for each in ("made", "counted", "kept"))
    if isinstance(made, str):
        return made.startswith(REFUSED) and isinstance(kept, int)
    return bool(made == counted and made <= kept)


FITS = Right(N_("made as counted, and at most what is kept; or refused by Transformers"), _fits)
TAKEN = Right(
    N_("the frames asked for, at least 2, which Transformers takes and the metadata tell of"),
    lambda a: (
        a["frames"] == max(a["asked"], 2) and all(a[n] == "yes" for n in ("size", "taken", "told"))
    ),
)
COUNTED = Right(N_("made as counted"), lambda a: a["made"] == a["counted"] > 0)


def limited(ask: str, limit: int = LIMIT, **given: int) -> dict[str, Any]:
    return {"ask": ask, "limit": limit, **given}


QUESTIONS = (
    Question(N_("the largest budget"), limited("budget"), keeps(LIMIT)),
    *(
        Question(N_("budget, {limit}", limit=words), limited("budget", n), keeps(n))
        for words, n in OTHERS.items()
    ),
    *(
        Question(
            N_("a picture of {width} x {height}", width=w, height=h),
            limited("picture", width=w, height=h),
            FITS,
        )
        for w, h in SHAPES
    ),
    Question(N_("pictures of all shapes"), limited("pictures"), within()),
    *(
        Question(N_("pictures, {limit}", limit=words), limited("pictures", n), within(n))
        for words, n in OTHERS.items()
    ),
    Question(N_("pictures, a limit below 200 tokens"), limited("pictures", SMALL), within(SMALL)),
    *(
        Question(
            N_("dummy video of a context of {length}", length=n),
            limited("dummy video", length=n),
            TAKEN,
        )
        for n in (1024, 4096, 8192, 12288, 16384, 40000)
    ),
    Question(
        N_("dummy video, one frame asked for"),
        limited("dummy video", length=40000, frames=1),
        TAKEN,
    ),
    *(
        Question(
            N_("a video of {width} x {height}, frames: {frames}", width=w, height=h, frames=frames),
            limited("video", width=w, height=h, frames=frames),
            COUNTED,
        )
        for w, h, frames in FILMS
    ),
    *(
        Question(
            N_(
                "a video of {width} x {height} that is not resized, frames: {frames}",
                width=w,
                height=h,
                frames=frames,
            ),
            limited("video", width=w, height=h, frames=frames, resize=False),
            COUNTED,
        )
        for w, h, frames in UNRESIZED
    ),
    Question(N_("videos of all shapes"), limited("videos", length=40000), within()),
    Question(
        N_("the name of the fused projection"),
        {"ask": "prefix", "prefix": "visual.blocks.0.attn"},
        "visual.blocks.0.attn.qkv_proj",
    ),
)
