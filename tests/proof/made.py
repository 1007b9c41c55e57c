"""Results as proofs give them, made up: for tests of what is judged, said and drawn."""

from __future__ import annotations

import math
from typing import Any

from glmpatch.patch import Numbers
from glmpatch.proof.driver import Answer, Result, Statistic, Verification

SPECIFICATION = Numbers(
    architecture="SomeForCausalLM",
    config_class="SomeConfig",
    transformers="4.51.3",
    precisions=("float32", "bfloat16"),
    config={},
    wrong={"module float32": 300.0},
)
CRASH = {
    "type": "TypeError",
    "message": "<b>not</b> a & tuple",
    "place": "vllm/linear.py:1",
    "traceback": "",
}


def measured(**changed: Any) -> dict[str, Any]:
    """What the probe reports of a right file in float32."""
    return {
        "proof": "some-patch",
        "file": "planned",
        "kind": "numbers",
        "precision": "float32",
        "norms": "out of place",
        "noise": 2e-6,
        "noise_series": [[1e-6, 2e-6]],
        "peak": 8.0,
        "distance": 4e-6,
        "series": [[1e-6, 4e-6]],
        "equal": 2,
        "tokens": 2,
        "crash": None,
        **changed,
    }


def measured_low(rms: float = 1.0, position: float = 2.0, **faults: float) -> dict[str, Any]:
    """The same in bfloat16."""
    statistics = {"rms": rms, "position": position, "faults": {"epsilon x2": 0.1, **faults}}
    return measured(precision="bfloat16", noise=0.05, sigma=0.01, statistics=statistics)


def series(scale: float) -> tuple[list[float], ...]:
    """Differences of three prompts, some of them nothing at all."""
    return tuple(
        [scale * (1 + math.sin(position)) for position in range(length)] for length in (8, 24, 71)
    )


GOOD = Result(
    patch="some-patch",
    file="planned",
    kind="numbers",
    passed=True,
    precision="float32",
    mode="eager",
    engine="V0",
    statistics=(Statistic("worst difference", 2e-5, 2e-4),),
    equal=103,
    tokens=103,
    noise=2e-5,
    wrong=4.5,
    line=2e-4,
    series=series(1e-5),
    noise_series=series(8e-6),
)
ANSWERED = Result(
    patch="another-patch",
    file="planned",
    kind="answers",
    passed=False,
    answers=(
        Answer("dtype float16", "float16", False, "refused: does not support"),
        Answer("dtype auto", "bfloat16", True, "bfloat16 or float32"),
    ),
)
PROOF = Verification("engine", "CPU", {"vllm": "0.8.4"}, 61.2, (GOOD,))
