"""``verify`` on the CPU, against what no proof can do without: importing both models.

And where its time goes: its own steps, and, of the imports, the packages that they are spent in.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from glmpatch.proof.driver import Candidate, verify
from glmpatch.site.target import find_target
from tests.bench.data import Group, spread
from tests.bench.importing import imported
from tests.bench.machine import about
from tests.bench.measure import GLMPATCH, Entrant, Event, Runner
from tests.support import cache, fake
from tests.support.environment import Environment, copy

MODELS = "transformers.models.glm4.modeling_glm4, vllm.model_executor.models.glm4"
SHOWN = 8
"""Packages that are shown by name; the others are one sum."""


def measure(runner: Runner, runs: int) -> Group:
    with tempfile.TemporaryDirectory() as folder:
        env = copy(cache.released(), Path(folder) / "env")
        subprocess.run([*GLMPATCH, "apply", "--path", str(env.site)], check=True)
        # As glmpatch starts its probe, but for -B: from here on there is bytecode of all of it.
        imports = [str(env.python), "-I", "-c", f"import {MODELS}"]
        runner.run(imports)
        command = [*GLMPATCH, "verify", "--device", "cpu", "--python", str(env.root)]
        baseline = "import of both GLM-4 modules"
        event = Event(
            "verify, CPU, model file alone",
            [Entrant("glmpatch", command), Entrant(baseline, [*imports[:2], "-B", *imports[2:]])],
            {baseline: 1.15},
        )
        contest = runner.contest(event, runs)
        runner.run([*imports[:2], "-B", "-X", "importtime", *imports[2:]])
        spent = packages(runner.output())
        timed = [steps(env) for _ in range(min(runs, 3))]
        figures = {
            "packages": spent,
            # One that takes less than the tenth may be seen in one run and missed in another.
            "steps": {
                name: round(spread([each.get(name, 0.0) for each in timed]).median, 1)
                for name in dict.fromkeys(name for each in timed for name in each)
            },
            "versions": versions(env),
        }
    return Group(about(runs), [contest], figures=figures)


def packages(output: str) -> dict[str, float]:
    """Share of the import time by the package whose modules it is spent in, largest first."""
    spent = imported(output)
    whole = sum(spent.values())
    shares = {name: round(took / whole, 4) for name, took in [*spent.items()][:SHOWN]}
    others = round(1 - sum(shares.values()), 4)
    return {**shares, f"{len(spent) - SHOWN} others": others}


def steps(env: Environment) -> dict[str, float]:
    """Seconds in each step of one proof, to a tenth: so often it is asked what it does."""
    begun: dict[str, float] = {}
    started = time.monotonic()

    def on_step(text: str) -> None:
        begun.setdefault(re.sub(r" \(\d+ s\)$", "", text), time.monotonic())

    target = find_target(str(env.root))
    assert target.python is not None
    candidates = [
        Candidate(p.id, "installed", p.proof, p.path("0.8.4")) for p in fake.patches() if p.advised
    ]
    verification = verify(
        target.python, target.root, target.paths, candidates, device="cpu", on_step=on_step
    )
    assert verification.passed
    ends = [*list(begun.values())[1:], time.monotonic()]
    took = {name: end - at for (name, at), end in zip(begun.items(), ends, strict=True)}
    assert sum(took.values()) <= time.monotonic() - started
    return {name: round(seconds, 1) for name, seconds in took.items()}


def versions(env: Environment) -> Mapping[str, str]:
    """Of the environment that is proven, as its metadata says."""
    names = ("vllm", "torch", "transformers")
    found = {path.name.split("-")[0]: path.name for path in env.site.glob("*.dist-info")}
    return {name: found[name].split("-")[1].removesuffix(".dist") for name in names}
