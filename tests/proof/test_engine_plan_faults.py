"""Errors of the environment are told from those of a file."""

from __future__ import annotations

from typing import Any

import pytest

from glmpatch.proof.probe import engine, faults
from glmpatch.proof.probe.outcome import CannotRun

FILE = "/site/vllm/model_executor/models/glm4.py"
THROUGH = f'Traceback:\n  File "{FILE}", line 3, in forward\n'


def crash(kind: str, message: str, traceback: str = THROUGH) -> dict[str, Any]:
    return {"type": kind, "message": message, "place": None, "traceback": traceback}


@pytest.mark.parametrize(
    ("kind", "message", "what", "hint"),
    [
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB.", "memory", "CUDA_V"),
        ("OutOfMemoryError", "HIP out of memory. Tried to allocate", "memory", "CUDA_VIS"),
        ("ValueError", "No available memory for the cache blocks. Try", "memory", "CUDA_VIS"),
        (
            "ValueError",
            "To serve at least one request with the models's max seq len (158), (0.01 GiB KV "
            "cache is needed, which is larger than the available KV cache memory (0.00 GiB).",
            "memory",
            "CUDA_VISIBLE_DEVICES",
        ),
        ("RuntimeError", "Failed to find C compiler. Please specify via CC", "compiler", "gcc"),
        ("InvalidCxxCompiler", "No working C++ compiler found in", "C++ compiler", "gcc"),
        (
            "RuntimeError",
            "CUDA error: no kernel image is available for execution on the device",
            "no kernels for this GPU",
            "built for this GPU",
        ),
        ("DistBackendError", "NCCL error in: ProcessGroupNCCL.cpp:3", "GPUs", "NCCL_DEBUG"),
        (
            "ValueError",
            "Bfloat16 is only supported on GPUs with compute capability of at least 8.0.",
            "no bfloat16",
            "--via module",
        ),
        ("ModuleNotFoundError", "No module named 'setuptools'", "setuptools", "pip install"),
        (
            "NotImplementedError",
            "VLLM_USE_V1=1 is not supported with --dtype torch.float32.",
            "V1 refuses",
            "--via module",
        ),
    ],
)
def test_a_fault_of_the_environment_is_no_wrong_file(
    kind: str, message: str, what: str, hint: str
) -> None:
    found = faults.fault(crash(kind, message))
    assert found is not None
    assert what in found[0]
    assert message.splitlines()[0][:40] in found[0]
    assert hint in found[1]


def test_a_fault_is_found_in_the_log_of_a_process_that_died() -> None:
    log = "INFO starting\nfatal error: Python.h: No such file or directory\nexit\n"
    found = faults.fault(crash("the engine's process ended", "exit status 1: exit", log))
    assert found is not None
    assert "Python.h" in found[0]


@pytest.mark.parametrize(
    ("kind", "message", "traceback", "doubt"),
    [
        ("TypeError", "linear(): argument 'input' must be Tensor, not tuple", THROUGH, False),
        ("NameError", "name 'logger' is not defined", THROUGH, False),
        ("TypeError", "unhashable type", "Traceback:\n  File 'xformers.py'\n", True),
        ("RuntimeError", "CUDA error: an illegal memory access was encountered", THROUGH, True),
        ("the engine's process ended", "signal 11: ", "", True),
        ("ValueError", "Model architectures ['X'] failed to be inspected.", "", True),
    ],
)
def test_an_error_that_does_not_tell_is_in_doubt(
    kind: str, message: str, traceback: str, doubt: bool
) -> None:
    told = crash(kind, message, traceback)
    assert faults.fault(told) is None
    assert faults.doubtful(told, FILE) is doubt


TASK = {
    "file": {"id": "planned", "path": FILE},
    "module": "vllm.model_executor.models.glm4",
    "engine": "V0",
    "precision": "float32",
    "mode": "eager",
    "impl": "vllm",
}


@pytest.mark.parametrize(
    ("died_of", "control", "told"),
    [
        # The file's own error needs no second opinion: asking for one is an error here.
        (crash("TypeError", "not tuple"), None, None),
        # Transformers' own model runs, so that the file is what the engine died of.
        (crash("RuntimeError", "shapes"), {"crash": None}, None),
        (crash("RuntimeError", "CUDA out of memory"), None, "too little free memory.*V0, float32"),
        (
            crash("RuntimeError", "one\ntwo"),
            {"crash": crash("AssertionError", "three")},
            "neither the file nor Transformers' own model.*RuntimeError: one; and Assert.*: three",
        ),
    ],
)
def test_in_doubt_the_same_engine_is_asked_with_transformers_own_model(
    monkeypatch: pytest.MonkeyPatch,
    died_of: dict[str, Any],
    control: dict[str, Any] | None,
    told: str | None,
) -> None:
    def ask(request: Any, device: str, tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        assert control is not None, "nobody is in doubt"
        (task,) = tasks
        assert task["impl"] == "transformers"
        assert task["file"]["path"] is None
        assert {k: task[k] for k in ("engine", "precision", "mode")} == {
            k: TASK[k] for k in ("engine", "precision", "mode")
        }
        return [control]

    monkeypatch.setattr(engine, "ask", ask)
    if told is None:
        engine.second_opinion({"root": "/site"}, "cuda", TASK, died_of)
    else:
        with pytest.raises(CannotRun, match=told):
            engine.second_opinion({"root": "/site"}, "cuda", TASK, died_of)
