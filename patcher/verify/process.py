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

from patcher.errors import Exit, Failure

PROBE = Path(__file__).with_name("probe") / "__main__.py"
SECONDS = 900
"""A step of the probe that takes longer than this hangs."""
ASKING = "asking vLLM"


def run(
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
                f"the proof could not run: cannot start {python}: {error.strerror}",
                "name the python that starts vLLM with --python",
            ) from error
    try:
        _wait(probe, Path(request["steps"]), on_step)
    finally:
        _end(probe, folder)
    report = Path(request["report"])
    if report.is_file():
        answer = json.loads(report.read_bytes())
        assert isinstance(answer, dict)
        return answer
    return _without_report(probe.returncode, Path(request["steps"]), log)


def environment(folder: Path, device: str) -> dict[str, str]:
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


def _wait(
    probe: subprocess.Popen[bytes], steps: Path, on_step: Callable[[str], None] | None
) -> None:
    started = time.time()
    while True:
        try:
            probe.wait(timeout=0.1 if on_step is not None else min(1, SECONDS))
            return
        except subprocess.TimeoutExpired:
            now = time.time()
            if now - max(started, _touched(steps)) > SECONDS:
                raise Failure(
                    Exit.PROOF_NOT_RUN,
                    f"the proof could not run: no answer within {SECONDS} s "
                    f"(last step: {_last_step(steps)})",
                    "run it again on a machine that is less busy",
                ) from None
            if on_step is not None:
                on_step(f"{_last_step(steps)} ({now - started:.0f} s)")


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
            "the file is not to be trusted",
        )
    raise Failure(
        Exit.PROOF_NOT_RUN,
        f"the proof could not run: its process died ({how}) while {step}: {last[0]}",
        "look at the environment of vLLM: python -c 'import vllm'",
    )
