"""The probe's process: started, watched, and gone afterwards with all that it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from glmpatch.errors import Exit, Failure
from glmpatch.language import N_, _, unpacked

STARTING = N_("starting the interpreter")
PROBE = Path(__file__).with_name("probe") / "__main__.py"
SECONDS = 900
"""A step of the probe that takes longer than this hangs."""
TAKEN_OUT = (
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TORCHDYNAMO_DISABLE",
    "TORCH_COMPILE_DISABLE",
    "VLLM_ATTENTION_BACKEND",
    "VLLM_FLASH_ATTN_VERSION",
    "VLLM_LOGGING_CONFIG_PATH",
    "VLLM_PP_LAYER_PARTITION",
    "VLLM_TARGET_DEVICE",
    "VLLM_TEST_FORCE_FP8_MARLIN",
    "VLLM_TORCH_COMPILE_LEVEL",
    "VLLM_WORKER_MULTIPROC_METHOD",
)
"""Of the user's environment: what would make an engine compute otherwise than it is asked to."""


def run(
    python: Path,
    folder: Path,
    request: Mapping[str, Any],
    on_step: Callable[[str], None] | None,
) -> dict[str, Any]:
    """The probe's report. Its process and all that it started are gone afterwards.

    Where the process died while it asked a file, the report says ``died``: which file of which
    patch, and how. ``on_step`` hears in the language of the user.
    """
    request_file = folder / "request.json"
    request_file.write_text(json.dumps(request), encoding="utf-8")
    log = folder / "log"
    with log.open("wb") as output:
        try:
            probe = subprocess.Popen(
                [str(python), "-I", "-B", str(PROBE), "run", str(request_file)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(folder, request["device"]),
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            raise Failure(
                Exit.PROOF_NOT_RUN,
                _(
                    "the proof could not run: cannot start {python}: {error}",
                    python=python,
                    error=error.strerror,
                ),
                _("name the python that starts vLLM with --python"),
            ) from error
    try:
        _wait(probe, Path(request["steps"]), on_step)
    finally:
        _end(probe, folder)
    report = Path(request["report"])
    if report.is_file():
        answer = unpacked(json.loads(report.read_bytes()))
        assert isinstance(answer, dict)
        return answer
    return _without_report(probe.returncode, request, log)


def environment(folder: Path, device: str) -> dict[str, str]:
    """The user's environment, without telemetry, without a hub, and writing nowhere else."""
    environment = dict(
        os.environ,
        DO_NOT_TRACK="1",
        GLOO_SOCKET_IFNAME="lo",
        HF_HUB_OFFLINE="1",
        TMPDIR=str(folder),
        # Neither the reference nor an engine may round float32 to tf32.
        NVIDIA_TF32_OVERRIDE="0",
        TORCHINDUCTOR_CACHE_DIR=str(folder / "inductor"),
        TRANSFORMERS_OFFLINE="1",
        TRANSFORMERS_VERBOSITY="error",
        TRITON_CACHE_DIR=str(folder / "triton"),
        TRITON_F32_DEFAULT="ieee",
        VLLM_CACHE_ROOT=str(folder / "vllm-cache"),
        VLLM_CONFIG_ROOT=str(folder / "vllm-config"),
        VLLM_LOGGING_LEVEL="ERROR",
        VLLM_NO_USAGE_STATS="1",
        VLLM_USE_MODELSCOPE="0",
    )
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    for name in TAKEN_OUT:
        environment.pop(name, None)
    return environment


def _wait(
    probe: subprocess.Popen[bytes], steps: Path, on_step: Callable[[str], None] | None
) -> None:
    """Wait for the probe's end. ``on_step`` hears of every step as it begins, and of the last one
    again and again, so that a clock beside it can go on."""
    started = time.time()
    told = 0
    while True:
        ended = False
        with contextlib.suppress(subprocess.TimeoutExpired):
            probe.wait(timeout=0.1 if on_step is not None else min(1, SECONDS))
            ended = True
        if on_step is not None:
            steps_so_far = _steps(steps)
            for step in steps_so_far[told:] or steps_so_far[-1:]:
                on_step(_(step))
            told = len(steps_so_far)
        if ended:
            return
        if time.time() - max(started, _touched(steps)) > SECONDS:
            raise Failure(
                Exit.PROOF_NOT_RUN,
                _(
                    "the proof could not run: no answer within {seconds} s (last step: {step})",
                    seconds=SECONDS,
                    step=_last_step(steps),
                ),
                _("run it again on a machine that is less busy"),
            )


def _touched(steps: Path) -> float:
    """When the last step began."""
    with contextlib.suppress(OSError):
        return steps.stat().st_mtime
    return 0.0


def _end(probe: subprocess.Popen[bytes], folder: Path) -> None:
    """Kill the probe and every process below it, those in sessions of their own too."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(probe.pid, signal.SIGKILL)
    probe.wait()
    until = time.monotonic() + 10
    while _kill(f"TMPDIR={folder}") and time.monotonic() < until:
        time.sleep(0.01)


def _kill(variable: str) -> bool:
    """Kill the processes that run with ``variable`` in their environment; whether any did."""
    found = False
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if variable.encode() in environ.read_bytes().split(b"\0"):
                found = True
                os.kill(int(environ.parent.name), signal.SIGKILL)
    return found


def _last_step(steps: Path) -> str:
    return _steps(steps)[-1]


def _steps(steps: Path) -> list[str]:
    """The steps so far, the oldest first."""
    with contextlib.suppress(OSError):
        *lines, _unended = steps.read_text("utf-8").split("\n")
        return [STARTING, *(unpacked(json.loads(line)[1]) for line in lines)]
    return [STARTING]


def _without_report(status: int, request: Mapping[str, Any], log: Path) -> dict[str, Any]:
    """The probe's process died; a death while a file runs in it is a crash of the file."""
    step = _last_step(Path(request["steps"]))
    last = log.read_text("utf-8", errors="replace").strip().splitlines()[-1:] or [""]
    how = N_("exit status {status}", status=status)
    if status < 0:
        how = N_("signal {name}", name=signal.Signals(-status).name)
    asked = Path(request["asked"])
    if asked.is_file():
        died = json.loads(asked.read_bytes())
        return {"died": {**died, "how": how, "last": last[0], "step": step}}
    raise Failure(
        Exit.PROOF_NOT_RUN,
        _(
            "the proof could not run: its process died ({how}) while {step}: {last}",
            how=how,
            step=step,
            last=last[0],
        ),
        _("look at the environment of vLLM: {command}", command="python -c 'import vllm'"),
    )
