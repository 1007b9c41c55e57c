"""Starts the probe in the interpreter that owns vLLM, and judges its numbers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from patcher.errors import Exit, Failure
from patcher.patch import Behaviour, Case, Patch
from patcher.target import Target

PROBE = Path(__file__).with_name("probe.py")
FACTOR = 10.0
"""How many times the reference's own noise vLLM may be away from it."""
ROUNDING = 2.0**-23
"""Relative spacing of float32 numbers: noise below it is luck, and no measure of anything."""
CEILING = {"float32": 1e-3, "bfloat16": 0.75}
"""A reference noisier than this cannot tell right from wrong. Measured: 2.4e-05 in float32, where
the smallest fault of the tests is 1.0e-03 away; 0.56 in bfloat16, where only the four defects of
GLM-4 show."""
SECONDS = 900
"""After this long the probe hangs."""
ASKING = "asking vLLM"
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
    the model crashed or gave a number that is not finite.
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
    """One run of the probe."""

    way: str
    device: str
    precision: str
    versions: Mapping[str, str]
    seconds: float
    results: tuple[Result, ...]
    behaviours: tuple[Behaved, ...] = ()

    @property
    def failed(self) -> tuple[str, ...]:
        """Ids of the patches whose proof failed."""
        every: tuple[Result | Behaved, ...] = (*self.results, *self.behaviours)
        return tuple(dict.fromkeys(each.patch for each in every if not each.passed))

    @property
    def passed(self) -> bool:
        return bool(self.results or self.behaviours) and not self.failed

    def to_dict(self) -> dict[str, Any]:
        return {"outcome": "passed" if self.passed else "failed", **asdict(self)}


def verify(
    target: Target,
    candidates: Sequence[Candidate],
    device: str = "auto",
    precision: str = "float32",
    on_step: Callable[[str], None] | None = None,
) -> Verification:
    """Measure model files and judge them by their numbers alone.

    Args:
        target: the vLLM whose model files (or others in their place) are asked.
        candidates: what to measure; files of one patch share checkpoint and reference.
        device: auto, cpu or cuda.
        precision: the tested one; the reference is one above.
        on_step: called with each step of the probe, a few words.

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
    with _folder() as folder:
        request = _request(folder, target, candidates, device, precision)
        report = _run(target.python, folder, request, on_step)
    if "cannot" in report:
        raise Failure(
            Exit.PROOF_NOT_RUN,
            f"the proof could not run: {report['cannot']['message']}",
            report["cannot"]["hint"],
        )
    return Verification(
        way="module",
        device=report["device"],
        precision=precision,
        versions={k: report[k] for k in ("vllm", "torch", "transformers", "python")},
        seconds=report["seconds"],
        results=tuple(_judge(each, precision) for each in report["results"]),
        behaviours=tuple(_judge_behaviour(each, candidates) for each in report["behaviours"]),
    )


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="glmpatch-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _request(
    folder: Path, target: Target, candidates: Sequence[Candidate], device: str, precision: str
) -> dict[str, Any]:
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
        "device": device,
        "precision": precision,
        "proofs": list(proofs.values()),
        "behaviours": list(behaviours.values()),
        "report": str(folder / "report.json"),
        "steps": str(folder / "steps"),
    }


def _environment(folder: Path, device: str) -> dict[str, str]:
    """The user's environment, without telemetry, without a hub, and writing nowhere else."""
    environment = dict(
        os.environ,
        DO_NOT_TRACK="1",
        GLOO_SOCKET_IFNAME="lo",
        HF_HUB_OFFLINE="1",
        TMPDIR=str(folder),
        TORCHINDUCTOR_CACHE_DIR=str(folder / "inductor"),
        TRANSFORMERS_OFFLINE="1",
        TRANSFORMERS_VERBOSITY="error",
        TRITON_CACHE_DIR=str(folder / "triton"),
        VLLM_CACHE_ROOT=str(folder / "vllm-cache"),
        VLLM_CONFIG_ROOT=str(folder / "vllm-config"),
        VLLM_LOGGING_LEVEL="ERROR",
        VLLM_NO_USAGE_STATS="1",
        VLLM_PLUGINS="",
        VLLM_USE_MODELSCOPE="0",
    )
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    for name in ("VLLM_LOGGING_CONFIG_PATH", "VLLM_TARGET_DEVICE", "VLLM_ATTENTION_BACKEND"):
        environment.pop(name, None)
    return environment


def _run(
    python: Path,
    folder: Path,
    request: Mapping[str, Any],
    on_step: Callable[[str], None] | None,
) -> dict[str, Any]:
    """The probe's report. Its process and all that it started are gone afterwards."""
    request_file = folder / "request.json"
    request_file.write_text(json.dumps(request), encoding="utf-8")
    log = folder / "log"
    with log.open("wb") as output:
        try:
            probe = subprocess.Popen(
                [str(python), "-I", "-B", str(PROBE), str(request_file)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(folder, request["device"]),
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            raise Failure(
                Exit.PROOF_NOT_RUN,
                f"the proof could not run: cannot start {python}: {error.strerror}",
                "name the python that starts vLLM with --python",
            ) from error
    try:
        _wait(probe, Path(request["steps"]), on_step)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(probe.pid, signal.SIGKILL)
        probe.wait()
    report = Path(request["report"])
    if report.is_file():
        answer = json.loads(report.read_bytes())
        assert isinstance(answer, dict)
        return answer
    return _without_report(probe.returncode, Path(request["steps"]), log)


def _wait(
    probe: subprocess.Popen[bytes], steps: Path, on_step: Callable[[str], None] | None
) -> None:
    until = time.monotonic() + SECONDS
    while True:
        try:
            probe.wait(timeout=0.1 if on_step is not None else SECONDS)
            return
        except subprocess.TimeoutExpired:
            if time.monotonic() > until:
                raise Failure(
                    Exit.PROOF_NOT_RUN,
                    f"the proof could not run: no answer within {SECONDS} s "
                    f"(last step: {_last_step(steps)})",
                    "run it again on a machine that is less busy",
                ) from None
            if on_step is not None:
                on_step(_last_step(steps))


def _last_step(steps: Path) -> str:
    with contextlib.suppress(OSError, IndexError):
        return steps.read_text("utf-8").splitlines()[-1].partition(" ")[2]
    return "starting the interpreter"


def _without_report(status: int, steps: Path, log: Path) -> dict[str, Any]:
    """The probe's process died; a death while the model ran is a crash of the model."""
    step = _last_step(steps)
    last = log.read_text("utf-8", errors="replace").strip().splitlines()[-1:] or [""]
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    if step.startswith(ASKING):
        raise Failure(
            Exit.PROOF_FAILED,
            f"the proof failed: the process of the model died ({how}) while {step}: {last[0]}",
            "the file is not to be trusted; see glmpatch diff for what is wrong with it",
        )
    raise Failure(
        Exit.PROOF_NOT_RUN,
        f"the proof could not run: its process died ({how}) while {step}: {last[0]}",
        "look at the environment of vLLM: python -c 'import vllm'",
    )


def _judge(measured: Mapping[str, Any], precision: str) -> Result:
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
