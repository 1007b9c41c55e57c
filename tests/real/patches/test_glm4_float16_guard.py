"""glm4-float16-guard on real releases: float16 is refused for GLM-4-0414, and for nobody else."""

from __future__ import annotations

import pytest

from glmpatch.patches.glm4_float16_guard.patch import PATCH
from tests.support.proving import mended, prove, released

pytestmark = pytest.mark.real

GUARD = b'config.model_type == "glm4" and torch_dtype'
WRONG = {
    "all but the older GLM-4": b'config.model_type != "glm" and torch_dtype',
    "Llama too": b'config.model_type in ("glm4", "llama") and torch_dtype',
    "Gemma 3 too": b'config.model_type in ("glm4", "gemma3_text") and torch_dtype',
    "every GLM": b'config.model_type.startswith("glm") and torch_dtype',
    "what was asked for alone": b'config.model_type == "glm4" and dtype != "auto" and torch_dtype',
}


@pytest.mark.parametrize("release", ["0.8.4", "0.9.0.1"])
def test_what_is_wrong_fails_and_what_is_mended_passes(release: str) -> None:
    """Releases between them do not import without triton, which the light environment lacks."""
    right = mended(PATCH, release)
    assert right.count(GUARD) == 1
    files = {"released": released(PATCH, release), "mended": right}
    files.update((name, right.replace(GUARD, text)) for name, text in WRONG.items())
    found = prove(PATCH, release, files)
    assert [name for name, result in found.items() if result.crash] == []
    assert [name for name, result in found.items() if result.passed] == ["mended"]


def test_upstreams_table_of_0_9_1_is_right_too() -> None:
    """It refuses float16 for Gemma 2 as well."""
    right = mended(PATCH, "0.9.0.1")
    table = right.replace(GUARD, b'config.model_type in ("glm4", "gemma2") and torch_dtype')
    assert prove(PATCH, "0.9.0.1", {"table": table})["table"].passed
