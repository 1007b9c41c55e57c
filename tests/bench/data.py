"""The figures, and the file that keeps them: ``docs/benchmarks.json``."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

DOCS = Path(__file__).parents[2] / "docs"
NAME = "benchmarks"


class Spread(NamedTuple):
    """The median of some numbers, and the quartiles around it."""

    median: float
    low: float
    high: float


def spread(numbers: Sequence[float]) -> Spread:
    if len(numbers) == 1:
        return Spread(numbers[0], numbers[0], numbers[0])
    low, median, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return Spread(median, low, high)


@dataclass(frozen=True)
class Contest:
    """What the entrants of one contest took in each run, glmpatch's own the first of them.

    Wall time in seconds, peak memory in KiB. ``budgets``: entrant -> largest ratio to it.
    """

    name: str
    seconds: Mapping[str, Sequence[float]]
    peaks: Mapping[str, Sequence[int]]
    budgets: Mapping[str, float] = field(default_factory=dict)

    @property
    def entrants(self) -> tuple[str, ...]:
        return tuple(self.seconds)

    @property
    def others(self) -> tuple[str, ...]:
        return self.entrants[1:]

    def times(self, other: str) -> Spread:
        """How many times as long glmpatch's entrant takes, compared run by run."""
        return self._against(self.seconds, other)

    def memory(self, other: str) -> Spread:
        """The same of the peak memory."""
        return self._against(self.peaks, other)

    def met(self, other: str) -> bool:
        """Whether the budget holds, to the two digits in which it is given."""
        return round(self.times(other).median, 2) <= self.budgets[other]

    def _against(self, figures: Mapping[str, Sequence[float]], other: str) -> Spread:
        pairs = zip(figures[self.entrants[0]], figures[other], strict=True)
        return spread([ours / theirs for ours, theirs in pairs])


@dataclass(frozen=True)
class Growth:
    """The same work on more and more: a contest for each count of ``unit``."""

    name: str
    unit: str
    contests: Mapping[int, Contest]


@dataclass(frozen=True)
class Group:
    """What one group of the benchmark measured. ``about`` says when, where and with what."""

    about: Mapping[str, Any]
    contests: Sequence[Contest] = ()
    growths: Sequence[Growth] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)


def load(folder: Path = DOCS) -> dict[str, Group]:
    """Group by name; none where there is no file yet."""
    path = folder / f"{NAME}.json"
    if not path.exists():
        return {}
    return {name: _group(data) for name, data in json.loads(path.read_text("utf-8")).items()}


def save(groups: Mapping[str, Group], folder: Path = DOCS) -> None:
    text = json.dumps(
        {name: asdict(group) for name, group in groups.items()}, separators=(",", ":")
    )
    # A line each contest: a diff then shows what was measured anew.
    text = text.replace('{"name":', '\n{"name":').replace('{"about":', '\n{"about":')
    (folder / f"{NAME}.json").write_text(text + "\n", "utf-8")


def _group(data: Mapping[str, Any]) -> Group:
    growths = [
        Growth(
            each["name"],
            each["unit"],
            {int(count): Contest(**contest) for count, contest in each["contests"].items()},
        )
        for each in data["growths"]
    ]
    contests = [Contest(**each) for each in data["contests"]]
    return Group(data["about"], contests, growths, data["figures"])
