"""glm4-moe-mtp on real releases: as released, with half of the repair, or repaired wrongly."""

from __future__ import annotations

import re

import pytest

from glmpatch.patches.glm4_moe_mtp.patch import PATCH
from glmpatch.source.plan import make_plan
from tests.support.proving import mended, prove, released

pytestmark = pytest.mark.real

STACKED = re.compile(rb"( +)for .* in stacked_params_mapping:\n")
EARLY = rb"""\1if name.endswith(".weight_scale") and name not in params_dict:
\1    continue
"""
"""As upstream's 31757 had it at first: before all renaming, when no scale of an expert is known."""
NOT_INITIALIZED = "ValueError: Following weights were not initialized from checkpoint: "
NO_SCALE = "KeyError: 'model.layers.2.shared_head.head.weight_scale'"

EACH = b"        for name, loaded_weight in weights:\n"
ROLLED = (
    EACH
    + b"""\
            if name.endswith("eh_proj.weight"):
                half = loaded_weight.shape[-1] // 2
                loaded_weight = loaded_weight.roll(half, -1)
"""
)
DONE = b"            loaded_params.add(name)\n        return loaded_params\n"
FACTOR = DONE.replace(
    b"        return",
    b"""\
        for layer in self.model.layers.values():
            layer.mtp_block.self_attn.scaling = 1.0
        return""",
)
MISLOADED = {
    "halves of eh_proj exchanged": (EACH, ROLLED),
    "in float16": (EACH, EACH + b"            loaded_weight = loaded_weight.half()\n"),
    "the attention's factor is another": (DONE, FACTOR),
}
"""What a loader does wrong although each name goes where it belongs: what is written instead."""


def skipped_early(source: bytes) -> bytes:
    wrong, count = STACKED.subn(EARLY + rb"\g<0>", source)
    assert count == 1
    return wrong


@pytest.mark.parametrize("release", ["0.10.0", "0.11.1", "0.13.0"])
def test_what_is_wrong_fails_and_what_is_mended_passes(release: str) -> None:
    source = released(PATCH, release)
    both = release == "0.10.0"
    halves = {r.id: mended(PATCH, release, r.id) for r in PATCH.rewrites} if both else {}
    mapped = halves.get("map-shared-weights", source)
    files = {
        "released": source,
        "mended": mended(PATCH, release),
        "scales skipped early": skipped_early(mapped),
        **halves,
    }
    found = prove(PATCH, release, files)
    assert {name for name, result in found.items() if result.passed} == {"mended"}
    told = {name: [a.answer for a in result.wrong_answers] for name, result in found.items()}
    assert any(NO_SCALE in answer for answer in told["released"])
    assert any(NOT_INITIALIZED in answer for answer in told["released"]) is both
    # It loads, without an error, and the scales of the experts hold nothing.
    assert not any("raised" in answer for answer in told["scales skipped early"])
    assert any("mlp.experts.w13_weight_scale" in each for each in told["scales skipped early"])


@pytest.mark.parametrize("release", ["0.10.0", "0.11.1", "0.13.0"])
def test_upstreams_first_try_is_mended_too(release: str) -> None:
    wrong = skipped_early(mended(PATCH, release, "map-shared-weights"))
    assert make_plan(PATCH, wrong, release).after == mended(PATCH, release)


@pytest.mark.parametrize("release", ["0.10.0", "0.13.0"])
def test_weights_that_come_to_their_places_as_others_fail(release: str) -> None:
    right = mended(PATCH, release)
    assert all(right.count(old) == 1 for old, _new in MISLOADED.values())
    files = {words: right.replace(old, new) for words, (old, new) in MISLOADED.items()}
    found = prove(PATCH, release, {"right": right, **files})
    assert {name for name, result in found.items() if result.passed} == {"right"}
