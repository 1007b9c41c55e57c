"""The repaired model: it must cost nothing against upstream's own repair of it.

And what it gains against ``--model-impl transformers``, the workaround that people pass around.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glmpatch.patch import Numbers
from glmpatch.patches.glm4_residual.patch import PATCH
from glmpatch.proof.driver import Candidate
from glmpatch.proof.kinds import numbers
from glmpatch.proof.probe.throughput import SIZES
from glmpatch.proof.process import PROBE
from tests.bench.data import Contest, Group
from tests.bench.machine import about
from tests.bench.measure import GLMPATCH, Runner
from tests.support import cache
from tests.support.cpu_engine import cpu_engine
from tests.support.environment import MODEL_FILE, Environment, copy

FORWARD = Path(__file__).with_name("forward.py")
TOKENS = {"256 tokens": 256, "1 token": 1}
PASSES = {"256 tokens": 2, "1 token": 20}
"""Forward passes that are timed together, so that the clock's own noise does not count."""
REPAIRED, UPSTREAM = "glm4.py of 0.8.4, repaired", "glm4.py of 0.8.5"
NATIVE, BACKEND = "native, repaired", "model_impl=transformers"


def measure(runner: Runner, runs: int) -> Group:
    with tempfile.TemporaryDirectory() as folder:
        same, figures = side_by_side(Path(folder), runs)
        env = copy(cpu_engine(), Path(folder) / "cpu")
        subprocess.run([*GLMPATCH, "apply", "--path", str(env.site)], check=True)
        reports = [engine(runner, env) for _ in range(runs)]
    versions = reports[0]["versions"]
    return Group(
        about(runs),
        [*same, *(contest(reports, kind) for kind in ("prefill", "decode"))],
        figures={**figures, "load": reports[0]["load"], "versions": versions},
    )


def side_by_side(folder: Path, runs: int) -> tuple[list[Contest], Mapping[str, Any]]:
    """Both files in one process, in turn, each forward pass alone, in plain PyTorch."""
    env = copy(cache.released(), folder / "env")
    subprocess.run([*GLMPATCH, "apply", "glm4-residual", "--path", str(env.site)], check=True)
    proof = PATCH.proof
    assert isinstance(proof, Numbers)
    request = {
        "probe": str(PROBE),
        "root": str(env.site),
        "proof": {
            **numbers.order(proof),
            "module": Candidate(PATCH.id, "installed", proof, MODEL_FILE).module,
            "config": {**proof.config, **SIZES["cpu"], "max_position_embeddings": 256},
        },
        "files": {
            REPAIRED: str(env.model),
            UPSTREAM: str(cache.distribution("vllm", "0.8.5") / MODEL_FILE),
        },
        "tokens": TOKENS,
        "passes": PASSES,
        "runs": max(5 * runs, 7),
        # More threads would wait for each other wherever another process takes a core.
        "threads": 1,
    }
    path = folder / "request.json"
    path.write_text(json.dumps(request), "utf-8")
    done = subprocess.run(
        [str(env.python), "-I", "-B", str(FORWARD), str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_PLUGINS": ""},
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    contests = [
        Contest(
            f"forward pass, {kind}",
            {name: [round(took, 6) for took in runs] for name, runs in seconds.items()},
            {},
        )
        for kind, seconds in answer["seconds"].items()
    ]
    return contests, {"away": answer["away"]}


def engine(runner: Runner, env: Environment) -> dict[str, Any]:
    """What ``verify`` reports of the engine's speed with both implementations."""
    runner.run(
        [
            *(*GLMPATCH, "verify", "--json", "--via", "engine", "--mode", "eager"),
            *("--against", "transformers-backend", "--python", str(env.root)),
        ]
    )
    # Messages stand in the same log; what is sought is the one JSON object.
    text = runner.output()
    answer, _ = json.JSONDecoder().raw_decode(text[text.index("{\n") :])
    report: dict[str, Any] = answer["verify"]
    assert report["outcome"] == "passed"
    return report


def contest(reports: list[dict[str, Any]], kind: str) -> Contest:
    """Seconds a token, so that less is better here too."""
    timed: dict[str, list[float]] = {NATIVE: [], BACKEND: []}
    for report in reports:
        for each in report["throughput"]:
            if each["patch"] == PATCH.id:
                name = NATIVE if each["implementation"] == "native" else BACKEND
                timed[name].append(round(1 / each[kind], 8))
    return Contest(f"engine, {kind}", timed, {})
