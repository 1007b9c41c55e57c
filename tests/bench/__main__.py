"""Prints how long glmpatch takes against what it cannot do without, as ratios.

Each pair is measured in turn, run by run, so that a busy machine slows both; the ratio is that of
the medians. ``python -m tests.bench [RUNS]``
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from patcher.patch import load_patches
from tests.support import cache
from tests.support.environment import MODEL_FILE, Environment, copy

GLMPATCH = (sys.executable, "-c", "from patcher.cli import main; main()")
CLICK = (sys.executable, "-c", "import click")


@dataclass(frozen=True)
class Budget:
    """A command, what it is measured against, and how many times as long it may take."""

    name: str
    command: Sequence[str]
    baseline: Sequence[str]
    limit: float
    runs: int
    prepare: Callable[[], object] = lambda: None


def seconds(command: Sequence[str]) -> float:
    started = time.perf_counter()
    # Without bytecode, which an installed package has, everything but the work gets slower.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - started


def measure(budget: Budget) -> tuple[float, float]:
    """Medians in seconds: the command, the baseline."""
    taken: list[float] = []
    against: list[float] = []
    for run in range(budget.runs + 1):
        budget.prepare()
        both = seconds(budget.command), seconds(budget.baseline)
        if run:  # the first one fills the caches
            taken.append(both[0])
            against.append(both[1])
    return statistics.median(taken), statistics.median(against)


def parse(files: Sequence[str]) -> Sequence[str]:
    """What no repair can do without: to import Click and LibCST and parse the files."""
    code = (
        f"import click, libcst\nfor f in {list(files)!r}: libcst.parse_module(open(f, 'rb').read())"
    )
    return (sys.executable, "-c", code)


def budgets(env: Environment, pristine: bytes, runs: int) -> list[Budget]:
    where = ("--python", str(env.root))
    every = [str(env.site / patch.file) for patch in load_patches()]
    models = "transformers.models.glm4.modeling_glm4, vllm.model_executor.models.glm4"
    by_path = ("--path", str(env.site))

    def unpatched() -> None:
        subprocess.run([*GLMPATCH, "revert", *by_path], check=True, capture_output=True)
        assert env.model.read_bytes() == pristine

    def patched() -> None:
        subprocess.run([*GLMPATCH, "apply", *by_path], check=True, capture_output=True)
        assert env.model.read_bytes() != pristine

    imports = [str(env.python), "-I", "-B", "-c", f"import {models}"]
    return [
        Budget("--help / import click", [*GLMPATCH, "--help"], CLICK, 1.3, runs),
        Budget(
            "apply, nothing to do / import click",
            [*GLMPATCH, "apply", *by_path],
            CLICK,
            2.2,
            runs,
            patched,
        ),
        Budget(
            "apply of one patch / import click, libcst and parse",
            [*GLMPATCH, "apply", "glm4-residual", *by_path],
            parse([str(env.model)]),
            1.3,
            runs,
            unpatched,
        ),
        Budget(
            "apply of all / import click, libcst and parse all",
            [*GLMPATCH, "apply", *by_path],
            parse(every),
            1.3,
            runs,
            unpatched,
        ),
        Budget(
            "verify on the CPU / import of both GLM-4 modules",
            [*GLMPATCH, "verify", "--device", "cpu", *where],
            imports,
            1.15,
            max(3, runs // 3),
            patched,
        ),
    ]


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    with tempfile.TemporaryDirectory() as folder:
        env = copy(cache.released(), Path(folder) / "env")
        pristine = (env.site / MODEL_FILE).read_bytes()
        print(f"{'':<52} {'ratio':>6} {'budget':>6}  {'seconds':>15}")
        for budget in budgets(env, pristine, runs):
            taken, against = measure(budget)
            ratio = taken / against
            verdict = "" if ratio <= budget.limit else "  over"
            print(
                f"{budget.name:<52} {ratio:>6.2f} {budget.limit:>6.2f}  "
                f"{taken:>6.2f} / {against:<6.2f}{verdict}",
                flush=True,
            )


if __name__ == "__main__":
    main()
