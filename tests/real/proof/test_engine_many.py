"""One engine that is handed the weights of many seeds answers as an engine for each seed does.

The calibration of the engine (``docs/proof.md``) stands on it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from glmpatch.patch import Numbers
from glmpatch.patches.glm4_residual.patch import PATCH
from glmpatch.proof.driver import Candidate, Result, verify
from tests.proof import engine_sample
from tests.proof.engine_faults import engine_faults
from tests.proof.engine_sample import Question
from tests.proof.faults import Fault
from tests.proof.sample import read
from tests.support.environment import MODEL_FILE
from tests.support.sources import repaired

SEEDS = (7, 3)
"""Not in order, and after other weights, right and wrong."""
WRONG = "epsilon x2"
SCRAMBLED = "o_proj scrambled, layer 1"


WAYS = [("bfloat16", "eager")]
if os.environ.get("GLMPATCH_PROOF") == "all":  # an engine that compiles takes minutes
    WAYS += [("bfloat16", "compiled"), ("float32", "eager")]


@pytest.mark.parametrize(("precision", "mode"), WAYS)
def test_the_answers_are_those_of_verify(
    cpu_engine: Path, tmp_path: Path, precision: str, mode: str
) -> None:
    assert isinstance(PATCH.proof, Numbers)
    (site,) = (cpu_engine / "lib").glob("python3*/site-packages")
    released = (site / MODEL_FILE).read_bytes()
    files = {"right": Fault(repaired(released)), **engine_faults(released)}
    asked = ["right"] if mode == "compiled" else ["right", WRONG]

    alone = verify(
        cpu_engine / "bin" / "python",
        site,
        [],
        [
            Candidate(
                f"{name}, {seed}",
                name,
                replace(PATCH.proof, seed=seed),
                str(PATCH.file),
                files[name].source,
            )
            for name in asked
            for seed in SEEDS
        ],
        via="engine",
        precision=precision,
        mode=mode,
    )
    out = tmp_path / "answers.jsonl"
    before = [Question("right", precision, mode, 1), Question(SCRAMBLED, precision, mode, 2)]
    questions = [Question(name, precision, mode, seed) for name in asked for seed in SEEDS]
    engine_sample.ask(cpu_engine, files, [*before, *questions], tmp_path, out)
    found = {(each.result.file, each.seed): each.result for each in read(out)}

    assert len(found) == len(before) + len(questions)
    assert found["right", 1].passed
    assert not found[SCRAMBLED, 2].passed
    for expected in alone.results:
        name, seed = expected.patch.rsplit(", ", 1)
        assert figures(found[name, int(seed)]) == figures(expected)
        assert expected.passed is (name == "right")


def figures(result: Result) -> tuple[object, ...]:
    """All that is judged, to the last digit."""
    return (
        result.precision,
        result.mode,
        result.engine,
        result.statistics,
        result.equal,
        result.tokens,
        result.noise,
    )
