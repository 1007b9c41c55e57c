"""The released model file and what partial repairs make of it, all derived when a test runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from glmpatch.patches.glm4_residual.patch import PATCH
from glmpatch.source.plan import make_plan

REWRITES = tuple(rewrite.id for rewrite in PATCH.rewrites)


def repaired(released: bytes, only: tuple[str, ...] | None = None) -> bytes:
    """The released file with these rewrites made; with all of them by default."""
    return make_plan(PATCH, released, only=only).after


def proper_subsets() -> Iterator[tuple[str, ...]]:
    """The 15 proper subsets of the four rewrites, the empty one first."""
    for size in range(len(REWRITES)):
        yield from itertools.combinations(REWRITES, size)


FUSED = """\
        hidden_states, residual = self.post_attention_layernorm(
            hidden_states, residual)
"""
MLP = "        hidden_states = self.mlp(hidden_states)\n"


def hand_patches(right: bytes) -> dict[str, bytes]:
    """Repairs met in the wild that stop the crash and lose the new residual."""
    bound = FUSED.replace("hidden_states, residual =", "hidden_states =")
    return {
        "all, but with `[0]` of the norm's result": replace(
            right, FUSED, bound.replace("residual)", "residual)[0]")
        ),
        "all, but with `mlp(hidden_states[0])`": replace(
            replace(right, FUSED, bound), MLP, MLP.replace("(hidden_states)", "(hidden_states[0])")
        ),
        "all, but with the second value thrown away": replace(
            right, FUSED, FUSED.replace("hidden_states, residual =", "hidden_states, _ =")
        ),
    }


def replace(source: bytes, old: str, new: str, count: int = 1) -> bytes:
    """``source`` with ``old`` replaced; fails unless ``old`` stands there ``count`` times."""
    assert source.count(old.encode()) == count, (old, source.count(old.encode()))
    return source.replace(old.encode(), new.encode())


SUM = "        hidden_states = residual + hidden_states\n"
UPSTREAM: dict[str, tuple[tuple[str, str, int], ...]] = {
    "unpack-fused-norm": (
        (
            "hidden_states = self.post_attention_layernorm(hidden_states, residual)\n",
            "hidden_states, residual = self.post_attention_layernorm(\n"
            "            hidden_states, residual)\n",
            1,
        ),
    ),
    "drop-double-residual": ((SUM, "", 2),),
    "rotary-dim-once": (
        (
            "self.rotary_dim = int(partial_rotary_factor * self.head_dim)",
            "self.rotary_dim = self.head_dim",
            1,
        ),
    ),
    "interleaved-rope": (
        (
            "            partial_rotary_factor=partial_rotary_factor,\n        )\n",
            "            partial_rotary_factor=partial_rotary_factor,\n"
            "            is_neox_style=False,\n        )\n",
            1,
        ),
    ),
}
"""Each rewrite's change to the released file as plain text: old, new, how often it stands there."""


def expected(released: bytes, only: tuple[str, ...] = REWRITES) -> bytes:
    """The released file with these changes made by hand, without any of our machinery."""
    for rewrite in only:
        for old, new, count in UPSTREAM[rewrite]:
            released = replace(released, old, new, count)
    return released
