"""What a proof finds: one type of result for every kind, and all of one run together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from glmpatch.language import N_, _


@dataclass(frozen=True)
class Statistic:
    """One figure that a file is judged by; None where a number was not finite.

    ``distance`` is an absolute difference of log-probabilities (natural logarithm), all others are
    ratios; docs/proof.md tells what each is.
    """

    name: str
    value: float | None
    limit: float

    @property
    def share(self) -> float:
        """How many times its limit the figure is; above 1 the file is wrong."""
        return float("inf") if self.value is None else self.value / self.limit

    @property
    def passed(self) -> bool:
        return self.value is not None and self.value <= self.limit


@dataclass(frozen=True)
class Answer:
    """What vLLM's code answered to one question, and whether that is right."""

    question: str
    answer: str
    right: bool
    expected: str


@dataclass(frozen=True)
class Result:
    """What a proof says of one file, in one of the ways in which it was asked.

    ``kind`` is numbers or answers. ``crash`` is the error in which the file ended. Of numbers:
    ``norms`` says how fused operators left their results in the module way, ``mode`` and
    ``engine`` (V0, V1) which engine it was; ``noise`` is the worst difference of Transformers from
    itself one precision above, ``wrong`` how many times its limit the nearest of the wrong files
    of the tests is away. The series hold a number for each position, for each prompt, in the unit
    of ``line``, the limit for them.
    """

    patch: str
    file: str
    kind: str
    passed: bool
    crash: Mapping[str, Any] | None = None
    precision: str | None = None
    norms: str | None = None
    mode: str | None = None
    engine: str | None = None
    statistics: tuple[Statistic, ...] = ()
    equal: int | None = None
    tokens: int | None = None
    noise: float | None = None
    wrong: float | None = None
    answers: tuple[Answer, ...] = ()
    line: float | None = None
    series: tuple[Sequence[float], ...] = field(default=(), repr=False)
    noise_series: tuple[Sequence[float], ...] = field(default=(), repr=False)

    @property
    def way(self) -> str:
        """In which way the file was asked, in words; empty where there is but one."""
        return ", ".join(_(part) for part in (self.norms, self.mode, self.engine) if part)

    @property
    def nearest(self) -> Statistic | None:
        """The figure that comes nearest to its limit, or is furthest beyond it."""
        return max(self.statistics, key=lambda each: each.share, default=None)

    @property
    def wrong_answers(self) -> tuple[Answer, ...]:
        return tuple(answer for answer in self.answers if not answer.right)

    def to_dict(self) -> dict[str, Any]:
        """Without the series, which are long and for pictures."""
        every = asdict(self)
        return {each.name: every[each.name] for each in fields(self) if "series" not in each.name}


def died(measured: Mapping[str, Any], kind: str) -> Result:
    """The result of a file that took the whole process with it."""
    return Result(measured["proof"], measured["file"], kind, False, measured["crash"])


@dataclass(frozen=True)
class Throughput:
    """Tokens per second of one implementation; None where it could not be timed."""

    patch: str
    implementation: str
    mode: str
    engine: str
    prefill: float | None
    decode: float | None
    error: Mapping[str, Any] | None


@dataclass(frozen=True)
class Verification:
    """One run of the probe. What it says in words are messages (``language.py``): English as it is
    stored, and said in the language of the user.

    ``way`` is module, engine, or answers where there was nothing but questions. ``full`` is True
    only where everything was run that a proof runs by default: a receipt may be written of it.
    ``left_out`` says in words what else an option kept from being proven. ``weights`` says whose
    they were, ``processes`` among how many they were split. ``witnesses`` are what the same engine
    computes with Transformers' own model; they are compared with the same reference, and are no
    part of the verdict on a file. ``load`` says in words what was timed.
    """

    way: str
    device: str
    versions: Mapping[str, str]
    seconds: float
    results: tuple[Result, ...]
    full: bool = False
    left_out: tuple[str, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)
    """Patch -> who answered its questions, in words."""
    witnesses: tuple[Result, ...] = ()
    throughput: tuple[Throughput, ...] = ()
    load: str = ""
    weights: str = N_("the same random weights")
    processes: int = 1

    @property
    def failed(self) -> tuple[str, ...]:
        """Ids of the patches of which any file failed."""
        return tuple(dict.fromkeys(each.patch for each in self.results if not each.passed))

    @property
    def passed(self) -> bool:
        return bool(self.results) and not self.failed

    def of(self, patch: str, name: str) -> tuple[Result, ...]:
        """The results of one file, in every way in which it was asked."""
        return tuple(r for r in self.results if (r.patch, r.file) == (patch, name))

    def passed_file(self, patch: str, name: str) -> bool:
        """Whether that file was asked, and was right in every way."""
        results = self.of(patch, name)
        return bool(results) and all(each.passed for each in results)

    @property
    def precisions(self) -> tuple[str, ...]:
        """In which numbers were compared, in order."""
        return tuple(dict.fromkeys(r.precision for r in self.results if r.precision))

    def to_dict(self) -> dict[str, Any]:
        return {
            "outcome": "passed" if self.passed else "failed",
            "full": self.full,
            "way": self.way,
            "device": self.device,
            "precisions": list(self.precisions),
            "left_out": list(self.left_out),
            "weights": self.weights,
            "processes": self.processes,
            "versions": dict(self.versions),
            "seconds": self.seconds,
            "results": [result.to_dict() for result in self.results],
            "witnesses": [result.to_dict() for result in self.witnesses],
            "throughput": [asdict(each) for each in self.throughput],
            "load": self.load,
        }
