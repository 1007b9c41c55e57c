"""Commands run in turn, each in a process of its own: wall time and peak memory.

No pyperf and no hyperfine: both finish one command before they start the next, so that a machine
that gets busy meanwhile changes the ratio, and a ratio is all that this is about.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.data import Contest

ROOT = Path(__file__).parents[2]
SPAWNER = Path(__file__).with_name("spawner.py")
GLMPATCH = (sys.executable, "-c", "from glmpatch.command.cli import main; main()")
"""As the script that an installation makes."""


@dataclass(frozen=True)
class Entrant:
    """One command of a contest.

    ``prepare`` makes the state that it starts from and ``check`` looks at what it left; neither is
    timed.
    """

    name: str
    command: Sequence[str]
    prepare: Callable[[], None] = lambda: None
    check: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Event:
    """Entrants to be run in turn, glmpatch's first; budgets are ratios to the others by name."""

    name: str
    entrants: Sequence[Entrant]
    budgets: Mapping[str, float] = field(default_factory=dict)


class Runner:
    """Runs commands and says what they took."""

    def __init__(self, spawner: subprocess.Popen[str], folder: Path) -> None:
        self.spawner, self.folder = spawner, folder

    def run(self, command: Sequence[str], cold: bool = False) -> tuple[float, int]:
        """Wall time in seconds and peak memory in KiB; an exit code other than 0 is an error.

        With ``cold`` no bytecode is there: of glmpatch, of its dependencies, of Python itself.
        """
        # Without bytecode, which an installed package has, everything but the work gets slower.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        with tempfile.TemporaryDirectory(dir=self.folder) as fresh:
            if cold:
                environment["PYTHONPYCACHEPREFIX"] = fresh
            log = self.folder / "log"
            assert self.spawner.stdin is not None
            assert self.spawner.stdout is not None
            self.spawner.stdin.write(json.dumps([list(command), environment, str(log)]) + "\n")
            self.spawner.stdin.flush()
            seconds, peak, code = json.loads(self.spawner.stdout.readline())
        assert code == 0, f"{command} ended with {code}:\n{log.read_text('utf-8')}"
        return seconds, peak

    def output(self) -> str:
        """What the last command printed, stdout and stderr as they came."""
        return (self.folder / "log").read_text("utf-8")

    def contest(self, event: Event, runs: int, cold: bool = False, warm_up: bool = True) -> Contest:
        """Run the entrants A, B, C, A, B, C, ...; a round to warm up fills the caches."""
        seconds: dict[str, list[float]] = {each.name: [] for each in event.entrants}
        peaks: dict[str, list[int]] = {each.name: [] for each in event.entrants}
        for number in range(0 if warm_up else 1, runs + 1):
            for each in event.entrants:
                each.prepare()
                took, peak = self.run(each.command, cold)
                each.check()
                if number:
                    seconds[each.name].append(round(took, 5))
                    peaks[each.name].append(peak)
        return Contest(event.name, seconds, peaks, dict(event.budgets))


@contextlib.contextmanager
def runner() -> Iterator[Runner]:
    with tempfile.TemporaryDirectory() as folder:
        bare = [sys.executable, "-I", "-S", str(SPAWNER)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(bare, cwd=ROOT, **pipes) as spawner:  # type: ignore[call-overload]
            yield Runner(spawner, Path(folder))
