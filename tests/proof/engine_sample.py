"""The right file and wrong ones in vLLM's whole engine, from many seeds, judged as by a proof."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glmpatch.patch import Numbers
from glmpatch.patches.glm4_residual.patch import PATCH
from glmpatch.proof.driver import Candidate
from glmpatch.proof.kinds import numbers
from glmpatch.proof.process import PROBE, environment
from tests.proof.faults import Fault

WORKER = Path(__file__).with_name("engine_worker.py")


@dataclass(frozen=True)
class Question:
    """What one answer is about."""

    name: str
    precision: str
    mode: str
    seed: int


def ask(
    root: Path,
    files: Mapping[str, Fault],
    questions: Sequence[Question],
    folder: Path,
    out: Path,
    inductor: Path | None = None,
) -> None:
    """Ask all of ``questions`` in one process; every answer is appended to ``out`` as it comes.

    Those with the same file, mode and precision are put to one engine, one after another.

    Args:
        root: the environment that has vLLM, built for the CPU.
        files: name -> what a question of that name is about.
        questions: in the order in which engines are started for them.
        folder: for what the process writes.
        out: see ``tests.proof.sample.read``.
        inductor: compiled code, for other processes to use too; in ``folder`` if None.
    """
    request = order(root, files, questions, folder, out)
    path = folder / "request.json"
    path.write_text(json.dumps(request), "utf-8")
    surroundings = environment(folder, "cpu")
    if inductor:
        surroundings["TORCHINDUCTOR_CACHE_DIR"] = str(inductor)
    done = subprocess.run(
        [str(root / "bin" / "python"), "-I", "-B", str(WORKER), "run", str(path)],
        env=surroundings,
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def order(
    root: Path,
    files: Mapping[str, Fault],
    questions: Sequence[Question],
    folder: Path,
    out: Path,
) -> dict[str, Any]:
    """What the worker is told."""
    assert isinstance(PATCH.proof, Numbers)
    (site,) = (root / "lib").glob("python3*/site-packages")
    candidate = Candidate(PATCH.id, "planned", PATCH.proof, str(PATCH.file))
    paths: dict[bytes, Path] = {}
    tasks: dict[tuple[bytes, str, str], list[Question]] = {}
    for each in questions:
        source = files[each.name].source
        tasks.setdefault((source, each.precision, each.mode), []).append(each)
        if source not in paths:
            path = folder / str(len(paths)) / candidate.file
            path.parent.mkdir(parents=True)
            path.write_bytes(source)
            paths[source] = path
    return {
        "probe": str(PROBE),
        "proof": {
            **numbers.order(PATCH.proof),
            "module": candidate.module,
            "file": candidate.file,
        },
        "asked": {
            "root": str(site),
            "paths": [],
            "steps": str(folder / "steps"),
            "since": time.time(),
            "parallel": {"tensor": 1, "pipeline": 1},
            "parameters": 0,
            "model": None,
        },
        "tasks": [
            {
                "file": {"id": str(list(paths).index(source)), "path": str(paths[source])},
                "precision": precision,
                "mode": mode,
                "questions": [
                    {"seed": q.seed, "name": q.name, "weights": files[q.name].weights}
                    for q in asked
                ],
            }
            for (source, precision, mode), asked in tasks.items()
        ],
        "out": str(out),
    }
