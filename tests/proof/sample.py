"""The right file and 74 wrong ones, asked from many seeds and judged as a proof judges them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glmpatch.patch import Numbers
from glmpatch.patches.glm4_residual.patch import PATCH
from glmpatch.proof.driver import Candidate, Result
from glmpatch.proof.kinds import numbers
from glmpatch.proof.process import PROBE, environment
from tests.proof.faults import Fault
from tests.support.sources import repaired

ROUNDINGS = (
    "native",
    "flash",
    "eager",
    "cuda+flash",
    "fused+flash",
    "split",
    "cuda+flash+split",
    "fused+flash+split",
)
"""As the module way rounds, as kernels and compilers do, and as two GPUs would."""
FAULTY = "fused+flash"
"""The rounding that faults are tried in."""


@dataclass(frozen=True)
class Asked:
    """One question: from which seed, of which file, in which rounding, and the verdict."""

    seed: int
    rounding: str
    result: Result


def ask(
    root: Path,
    released: bytes,
    faults: Mapping[str, Fault],
    seeds: Sequence[int],
    folder: Path,
    precisions: Sequence[str] = ("bfloat16", "float32"),
    roundings: Sequence[str] = ROUNDINGS,
    fault_roundings: Sequence[str] = (FAULTY,),
) -> Iterator[Asked]:
    """Every question, asked in one process in the environment ``root``; ``folder`` is for it."""
    request = order(root, released, faults, seeds, folder)
    request.update(
        precisions=list(precisions),
        roundings=list(roundings),
        fault_roundings=list(fault_roundings),
    )
    path = folder / "request.json"
    path.write_text(json.dumps(request), "utf-8")
    done = subprocess.run(
        [
            *(str(root / "bin" / "python"), "-I", "-B"),
            *(str(Path(__file__).with_name("worker.py")), str(path)),
        ],
        env=environment(folder, "cpu"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    yield from read(Path(request["out"]))


def read(out: Path) -> Iterator[Asked]:
    """The verdicts on what a worker has written."""
    assert isinstance(PATCH.proof, Numbers)
    with out.open(encoding="utf-8") as stream:
        for line in stream:
            if not line.endswith("\n"):  # a worker was killed while it wrote, or writes now
                return
            measured = json.loads(line)
            result = numbers.judge(measured, PATCH.proof, None)
            yield Asked(measured["seed"], measured["rounding"], result)


def order(
    root: Path,
    released: bytes,
    faults: Mapping[str, Fault],
    seeds: Sequence[int],
    folder: Path,
) -> dict[str, Any]:
    """What the worker is told, but for what it is to be asked in."""
    assert isinstance(PATCH.proof, Numbers)
    (site,) = (root / "lib").glob("python3*/site-packages")
    candidate = Candidate(PATCH.id, "installed", PATCH.proof, str(PATCH.file))
    paths: dict[bytes, str] = {}

    def written(source: bytes) -> str:
        if source not in paths:
            path = folder / f"glm4_{len(paths)}.py"
            path.write_bytes(source)
            paths[source] = str(path)
        return paths[source]

    return {
        "probe": str(PROBE),
        "root": str(site),
        "proof": {
            **numbers.order(PATCH.proof),
            "module": candidate.module,
            "file": candidate.file,
        },
        "seeds": list(seeds),
        "right": written(repaired(released)),
        "faults": {
            name: {
                "path": written(fault.source),
                "attention": fault.attention,
                "weights": fault.weights,
                "logits": fault.logits,
            }
            for name, fault in faults.items()
        },
        "out": str(folder / "answers"),
    }
