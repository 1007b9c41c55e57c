"""Starts the probe in the interpreter that owns vLLM, and judges its numbers."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from patcher.errors import Exit, Failure
from patcher.patch import Behaviour, Case, Patch, Proof
from patcher.target import Target
from patcher.verify import process, weights

FACTOR = 10.0
"""How many times the reference's own noise vLLM may be away from it."""
ROUNDING = 2.0**-23
"""Relative spacing of float32 numbers: noise below it is luck, and no measure of anything."""
CEILING = {"float32": 1e-3, "bfloat16": 0.75}
"""A reference noisier than this cannot tell right from wrong. Measured: 2.4e-05 in float32, where
the smallest fault of the tests is 1.0e-03 away; 0.66 in bfloat16, where only the four defects of
GLM-4 show."""
MODES = ("eager", "compiled")
"""The modes of the engine; a server runs compiled unless told otherwise."""
ANSWER = 200
"""Characters of an answer that are shown."""


@dataclass(frozen=True)
class Candidate:
    """A model file to prove: the installed one, or, where ``source`` is given, those bytes."""

    patch: Patch
    id: str = "installed"
    source: bytes | None = None


@dataclass(frozen=True)
class Result:
    """What the numbers say of one file.

    ``distance``, ``noise`` and ``limit`` are absolute differences of log-probabilities (natural
    logarithm), the worst over all positions and the whole vocabulary. ``distance`` is None where
    the model crashed or gave a number that is not finite. ``mode`` and ``engine`` (V0, V1) are
    None for the module way. ``wrong`` is the distance at which the nearest of the wrong files of
    the tests was found, so that the margin shows. The series hold the worst difference at each
    position, for each prompt.
    """

    patch: str
    file: str
    passed: bool
    distance: float | None
    noise: float
    limit: float
    equal: int | None
    tokens: int | None
    crash: Mapping[str, Any] | None
    mode: str | None = None
    engine: str | None = None
    wrong: float | None = None
    series: tuple[Sequence[float], ...] = field(default=(), repr=False)
    noise_series: tuple[Sequence[float], ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Without the series, which are long and for pictures."""
        kept = (each.name for each in fields(self) if not each.name.endswith("series"))
        return {name: getattr(self, name) for name in kept}


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
class Answer:
    """What vLLM's configuration answered to one question, and whether that is right."""

    question: str
    answer: str
    right: bool


@dataclass(frozen=True)
class Behaved:
    """How vLLM's configuration behaved with one file."""

    patch: str
    file: str
    passed: bool
    answers: tuple[Answer, ...]
    crash: Mapping[str, Any] | None


@dataclass(frozen=True)
class Verification:
    """One run of the probe.

    ``weights`` says in words whose they were, ``processes`` among how many they were split.
    ``witnesses`` are what the same engine computes with Transformers' own model; they are compared
    with the same reference, and are no part of the verdict on a file. ``load`` says in words what
    was timed.
    """

    way: str
    device: str
    precision: str
    versions: Mapping[str, str]
    seconds: float
    results: tuple[Result, ...]
    behaviours: tuple[Behaved, ...] = ()
    witnesses: tuple[Result, ...] = ()
    throughput: tuple[Throughput, ...] = ()
    load: str = ""
    weights: str = "the same random weights"
    processes: int = 1

    @property
    def failed(self) -> tuple[str, ...]:
        """Ids of the patches whose proof failed."""
        every: tuple[Result | Behaved, ...] = (*self.results, *self.behaviours)
        return tuple(dict.fromkeys(each.patch for each in every if not each.passed))

    @property
    def passed(self) -> bool:
        return bool(self.results or self.behaviours) and not self.failed

    def to_dict(self) -> dict[str, Any]:
        return {
            "outcome": "passed" if self.passed else "failed",
            "way": self.way,
            "device": self.device,
            "precision": self.precision,
            "weights": self.weights,
            "processes": self.processes,
            "versions": dict(self.versions),
            "seconds": self.seconds,
            "results": [result.to_dict() for result in self.results],
            "witnesses": [result.to_dict() for result in self.witnesses],
            "throughput": [asdict(each) for each in self.throughput],
            "load": self.load,
            "behaviours": [asdict(each) for each in self.behaviours],
        }


def verify(
    target: Target,
    candidates: Sequence[Candidate],
    device: str = "auto",
    precision: str | None = None,
    on_step: Callable[[str], None] | None = None,
    via: str = "auto",
    mode: str = "all",
    against: bool = False,
    model: Path | None = None,
    layers: int | None = None,
    tp: int = 1,
    pp: int = 1,
) -> Verification:
    """Measure model files and judge them by their numbers alone.

    Args:
        target: the vLLM whose model files (or others in their place) are asked.
        candidates: what to measure; files of one patch share checkpoint and reference.
        device: auto, cpu or cuda.
        precision: the tested one, the reference being one above; by default what suits the way:
            bfloat16 for an engine on a GPU, float32 for everything else.
        on_step: called with each step of the probe, a few words.
        via: module (vLLM's model file alone), engine (the whole of vLLM) or auto: the engine
            where there is a GPU, else the module.
        mode: eager, compiled or all; of the engine alone.
        against: ask the engine for Transformers' own model too, and time both.
        model: folder of a checkpoint, in place of random weights.
        layers: only so many of its layers, the first ones.
        tp: tensor parallel size; of the engine alone, as is ``pp``, the pipeline parallel size.

    Raises:
        Failure: the measurement could not be made (exit 7). That a model crashes or is wrong is
            no failure but a result.
    """
    if target.python is None:
        raise Failure(
            Exit.PROOF_NOT_RUN,
            f"no interpreter is known for the vLLM in {target.root}",
            "name it with --python: the python that starts this vLLM",
        )
    proofs = [(c, c.patch.proof) for c in candidates if isinstance(c.patch.proof, Proof)]
    given = (
        weights.open_weights(model, [proof.architecture for _, proof in proofs]) if model else None
    )
    if given:
        proofs = [(c, proof) for c, proof in proofs if proof.architecture == given.architecture]
        candidates = [candidate for candidate, _ in proofs]
    for _, proof in proofs:
        why = proof.refused.get(precision or "")
        if why:
            raise Failure(
                Exit.PROOF_NOT_RUN,
                f"the proof could not run: {why}",
                f"--precision {' or '.join(proof.precisions)}",
            )
    with _folder() as folder:
        if given and layers:
            (folder / "weights").mkdir()
            given = weights.cut(given, layers, folder / "weights")
        request = {
            **_request(folder, target, candidates),
            "device": device,
            "against": against,
            "modes": MODES if mode == "all" else (mode,),
            "model": str(given.folder) if given else None,
            "parallel": {"tensor": tp, "pipeline": pp},
            "parameters": given.parameters if given else 0,
            "precision": precision,
            "via": via,
        }
        report = process.run(target.python, folder, request, on_step)
    if "cannot" in report:
        raise Failure(
            Exit.PROOF_NOT_RUN,
            f"the proof could not run: {report['cannot']['message']}",
            report["cannot"]["hint"],
        )
    way, precision = report["way"], report["precision"]
    kinds = {candidate.patch.id: proof for candidate, proof in proofs}
    results: dict[bool, list[Result]] = {True: [], False: []}
    for each in report["results"]:
        native = each.get("impl", "vllm") == "vllm"
        wrong = None if given else kinds[each["proof"]].wrong.get(f"{way} {precision}")
        results[native].append(_judge(each, precision, wrong))
    return Verification(
        way=way,
        device=report["device"],
        precision=precision,
        weights=_whose(model, layers),
        processes=tp * pp,
        versions={k: report[k] for k in ("vllm", "torch", "transformers", "python")},
        seconds=report["seconds"],
        results=tuple(results[True]),
        witnesses=tuple(results[False]),
        throughput=tuple(
            Throughput(
                patch=each["proof"],
                implementation="native" if each["impl"] == "vllm" else each["impl"],
                mode=each["mode"],
                engine=each["engine"],
                prefill=each.get("prefill"),
                decode=each.get("decode"),
                error=each.get("error"),
            )
            for each in report.get("throughput", ())
        ),
        load=report.get("load", ""),
        behaviours=tuple(_judge_behaviour(each, candidates) for each in report["behaviours"]),
    )


def _whose(model: Path | None, layers: int | None) -> str:
    if model is None:
        return "the same random weights"
    return f"the weights of {model}" + (f", the first {layers} layers" if layers else "")


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="glmpatch-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _request(folder: Path, target: Target, candidates: Sequence[Candidate]) -> dict[str, Any]:
    proofs: dict[str, dict[str, Any]] = {}
    behaviours: dict[str, dict[str, Any]] = {}
    for number, candidate in enumerate(candidates):
        path = None
        if candidate.source is not None:
            path = folder / str(number) / Path(candidate.patch.file).name
            path.parent.mkdir()
            path.write_bytes(candidate.source)
        name, kind = candidate.patch.id, candidate.patch.proof
        kept = behaviours if isinstance(kind, Behaviour) else proofs
        proof = kept.setdefault(name, {"id": name, **asdict(kind)})
        proof.setdefault("files", []).append({"id": candidate.id, "path": path and str(path)})
    return {
        "root": str(target.root),
        "paths": list(target.paths),
        "proofs": list(proofs.values()),
        "behaviours": list(behaviours.values()),
        "report": str(folder / "report.json"),
        "steps": str(folder / "steps"),
    }


def _judge(measured: Mapping[str, Any], precision: str, wrong: float | None) -> Result:
    noise = measured["noise"]
    if noise is None or not noise <= CEILING[precision]:
        raise Failure(
            Exit.PROOF_NOT_RUN,
            f"the proof could not run: Transformers in {precision} is {noise} away from itself in "
            f"a higher precision, more than {CEILING[precision]}; so noisy a reference proves "
            "nothing",
            "run it on the CPU: --device cpu",
        )
    limit = FACTOR * max(noise, ROUNDING * measured["peak"])
    distance = measured.get("distance")
    return Result(
        patch=measured["proof"],
        file=measured["file"],
        passed=measured["crash"] is None and distance is not None and distance <= limit,
        distance=distance,
        noise=noise,
        limit=limit,
        equal=measured.get("equal"),
        tokens=measured.get("tokens"),
        crash=measured["crash"],
        mode=measured.get("mode"),
        engine=measured.get("engine"),
        wrong=wrong,
        series=tuple(measured.get("series", ())),
        noise_series=tuple(measured["noise_series"]),
    )


def _judge_behaviour(measured: Mapping[str, Any], candidates: Sequence[Candidate]) -> Behaved:
    proof = next(each.patch.proof for each in candidates if each.patch.id == measured["proof"])
    assert isinstance(proof, Behaviour)
    crash = measured["crash"]
    answers = tuple(
        Answer(
            f"dtype {case.dtype} for {case.architecture} in {case.checkpoint}",
            " ".join(answer.split())[:ANSWER],
            _is_right(case, answer),
        )
        for case, answer in zip(proof.cases, measured["answers"], strict=crash is None)
    )
    passed = crash is None and all(answer.right for answer in answers)
    return Behaved(measured["proof"], measured["file"], passed, answers, crash)


def _is_right(case: Case, answer: str) -> bool:
    """A precision must be among the right ones; a refusal must say what it is about."""
    kind, _, message = answer.partition(": ")
    for right in case.answers:
        expected, _, word = right.partition(": ")
        if kind == expected and word in message:
            return True
    return False
