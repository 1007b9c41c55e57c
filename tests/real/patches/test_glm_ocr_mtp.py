"""glm-ocr-mtp on real releases: the released file drops the draft layer, the mended loads it."""

from __future__ import annotations

import pytest

from glmpatch.patches.glm_ocr_mtp.patch import PATCH
from tests.support.proving import mended, prove, released
from tests.support.sources import replace

pytestmark = pytest.mark.real

SYMPTOM = "ValueError: Following weights were not initialized from checkpoint: "
FIRST = '            name = name.replace("model.language_model.", "model.", 1)\n'
RENAMED = "            name = self._rewrite_spec_layer_name(spec_layer, name)\n"

EACH = "        for name, loaded_weight in weights:\n"
LOADED = "                weight_loader(param, loaded_weight, shard_id)\n"
MISLOADED = {
    "rows of q and k turned round": (
        LOADED,
        LOADED.replace("loaded_weight", "loaded_weight.flip(0)"),
    ),
    "halves of eh_proj exchanged": (
        EACH,
        EACH
        + """\
            if name.endswith("eh_proj.weight"):
                half = loaded_weight.shape[-1] // 2
                loaded_weight = loaded_weight.roll(half, -1)
""",
    ),
    "in float16": (EACH, EACH + "            loaded_weight = loaded_weight.half()\n"),
}
"""What a loader does wrong although each name goes where it belongs: what is written instead."""


@pytest.mark.parametrize("release", ["0.26.0", "0.28.0", "0.29.0"])
def test_what_is_wrong_fails_and_what_is_mended_passes(release: str) -> None:
    right = mended(PATCH, release)
    late = replace(replace(right, FIRST, ""), RENAMED, FIRST + RENAMED)
    files = {"released": released(PATCH, release), "mended": right, "too late": late}
    found = prove(PATCH, release, files)
    assert {name for name, result in found.items() if result.passed} == {"mended"}
    wrong = found["released"].wrong_answers
    assert any(SYMPTOM in each.answer and "eh_proj" in each.answer for each in wrong)
    # A checkpoint without the wrapper was never a problem.
    assert all("below model.language_model" in each.question for each in wrong)


@pytest.mark.parametrize("release", ["0.26.0", "0.29.0"])
def test_weights_that_come_to_their_places_as_others_fail(release: str) -> None:
    right = mended(PATCH, release)
    files = {words: replace(right, old, new) for words, (old, new) in MISLOADED.items()}
    found = prove(PATCH, release, {"right": right, **files})
    assert {name for name, result in found.items() if result.passed} == {"right"}
