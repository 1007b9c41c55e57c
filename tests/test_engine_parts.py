"""The parts of the engine way that need no engine to be started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import click
import pytest

from patcher.errors import Failure
from patcher.verify import process, table
from patcher.verify.driver import Result, Throughput, Verification
from patcher.verify.probe import engine, run
from patcher.verify.probe.outcome import CannotRun, describe
from tests.support.environment import Environment

RESULT = Result(
    patch="some-patch",
    file="planned",
    passed=True,
    distance=2e-5,
    noise=2e-5,
    limit=2e-4,
    equal=7,
    tokens=7,
    crash=None,
    mode="eager",
    engine="V0",
    wrong=1e-3,
)
PROOF = Verification("engine", "CPU", "float32", {"vllm": "0.8.4"}, 30.0, (RESULT,))


def worker(root: Path, *parts: str) -> None:
    path = root.joinpath("vllm", *parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_every_mode_runs_in_each_engine_that_the_version_has(tmp_path: Path) -> None:
    root = str(tmp_path)
    worker(tmp_path, "worker", "worker.py")
    worker(tmp_path, "worker", "cpu_worker.py")
    older = [{"mode": "eager", "engine": "V0"}, {"mode": "compiled", "engine": "V0"}]
    assert engine.plan(root, "cuda", ["eager", "compiled"]) == older
    assert engine.plan(root, "cpu", ["eager", "compiled"]) == older
    worker(tmp_path, "v1", "worker", "gpu_worker.py")
    newer = [{"mode": "compiled", "engine": "V1"}, {"mode": "compiled", "engine": "V0"}]
    assert engine.plan(root, "cuda", ["compiled"]) == newer
    assert engine.plan(root, "cpu", ["eager"]) == older[:1]


def test_the_compiled_mode_of_a_gpu_needs_no_compiler_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker(tmp_path, "worker", "cpu_worker.py")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert engine.plan(str(tmp_path), "cuda", ["compiled"]) == []
    with pytest.raises(CannotRun, match="compiler"):
        engine.plan(str(tmp_path), "cpu", ["compiled"])
    monkeypatch.setenv("CXX", "clang++")
    assert len(engine.plan(str(tmp_path), "cpu", ["compiled"])) == 1


ARGUMENTS = """
import json, runpy, sys
serve = runpy.run_path(sys.argv[1])["load"]("serve")
import torch
from vllm.engine.arg_utils import EngineArgs
GIB = 2**30
torch.cuda.mem_get_info = lambda: (free * GIB, 80 * GIB)
order = {
    "mode": "compiled", "engine": "V1", "device": "cuda", "precision": "bfloat16",
    "block": 16, "chunk": 64, "parameters": 0, "parallel": {"tensor": 1, "pipeline": 1},
}
task = {"checkpoint": "/nowhere", "top": 128, "impl": "vllm"}
answers = {}
for free, engine in ((60, "V1"), (60, "V0"), (2, "V1")):
    try:
        arguments = serve.arguments({**order, "engine": engine}, task, 158, 2)
        EngineArgs(**arguments)
    except serve.CannotRun as error:
        arguments = error.reason
    answers[f"{free} {engine}"] = arguments
print(json.dumps(answers))
"""


def test_an_engine_on_a_gpu_asks_for_the_memory_of_a_small_model(released: Path) -> None:
    """On a pretended GPU of 80 GiB: nothing but the question for its memory needs one."""
    done = subprocess.run(
        [
            str(released / "bin" / "python"),
            *("-I", "-B", "-c", ARGUMENTS, str(Path(engine.__file__).with_name("__main__.py"))),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"},
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    newer, older = answers["60 V1"], answers["60 V0"]
    assert newer["gpu_memory_utilization"] == pytest.approx((20 + 3) / 80)
    assert older["gpu_memory_utilization"] == pytest.approx(3 / 80)
    for arguments in (newer, older):
        assert arguments["model_impl"] == "vllm"
        assert arguments["enforce_eager"] is False
        assert "compilation_config" not in arguments
        assert arguments["max_num_batched_tokens"] == 64
        assert arguments["num_gpu_blocks_override"] == 40
    assert "2.0 of 80.0 GiB free, and the engine needs 3.0" in answers["2 V1"]


def test_nothing_that_the_probe_started_survives_it(tmp_path: Path) -> None:
    """Not even what left its session."""
    started = tmp_path / "started"
    probe = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import os, subprocess, sys\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], "
            "start_new_session=True)\n"
            f"open({str(started)!r}, 'w').write(str(child.pid))\n"
            "os.wait()",
        ],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    while not started.exists() or not started.read_text():
        time.sleep(0.01)
    process._end(probe, tmp_path)
    status = Path("/proc", started.read_text(), "stat")
    assert not status.exists() or status.read_text().split()[2] == "Z"


def test_the_table_has_one_line_for_each_mode() -> None:
    crash = {"type": "TypeError", "message": "no", "place": "vllm/linear.py:1", "traceback": ""}
    failed = replace(RESULT, mode="compiled", passed=False, distance=8.9, equal=1)
    crashed = replace(RESULT, engine="V1", passed=False, distance=None, crash=crash)
    proof = replace(PROOF, results=(RESULT, failed, crashed))
    assert [click.unstyle(line) for line in table.verdicts(proof)] == [
        "some-patch: FAILED (planned file)",
        "  mode      engine  vLLM     noise    limit    wrong file  same token",
        "  eager     V0      2.0e-05  2.0e-05  2.0e-04  1.0e-03     7 of 7      passed",
        "  compiled  V0      8.9e+00  2.0e-05  2.0e-04  1.0e-03     1 of 7      FAILED",
        "  eager     V1      crashed  2.0e-05  2.0e-04  1.0e-03                 FAILED",
        "  eager, V1:",
        "  TypeError: no",
        "  at vllm/linear.py:1",
    ]


def test_the_heading_names_the_proofs_that_it_was_not() -> None:
    both = replace(PROOF, results=(RESULT, replace(RESULT, mode="compiled")))
    for proof, told in (
        (PROOF, "not the compiled mode, nor a GPU's kernels and graphs, nor more than one device"),
        (both, "not a GPU's kernels and graphs, nor more than one device"),
        (replace(both, device="Some GPU"), "not more than one device"),
        (replace(both, processes=2), "not a GPU's kernels and graphs"),
        (replace(PROOF, way="module"), "not the engine"),
    ):
        first, second = table.heading(proof)
        assert first.startswith("proof: vLLM's ")
        assert told in second


def test_the_environments_own_sitecustomize_is_still_taken_up(
    env: Environment, tmp_path: Path
) -> None:
    (env.site / "sitecustomize.py").write_text("import sys\nsys.taken_up = True\n")
    listing = tmp_path / "listing"
    model = tmp_path / "planned.py"
    model.write_text("planned = True\n")
    listing.write_text(
        json.dumps(
            {
                "root": str(env.site),
                "paths": [],
                "modules": {"vllm.model_executor.models.glm4": str(model)},
            }
        )
    )
    done = subprocess.run(
        [
            *(str(env.python), "-B", "-c"),
            "import importlib.util, sys\n"
            "assert sys.taken_up\n"
            "(finder,) = [f for f in sys.meta_path if type(f).__name__ == 'ListedFinder']\n"
            "print(finder.find_spec('vllm.model_executor.models.glm4').loader.path)\n"
            "assert finder.find_spec('vllm.model_executor.models.llama') is None\n",
        ],
        env={
            "GLMPATCH_LISTING": str(listing),
            "PYTHONPATH": str(Path(engine.__file__).parent / "hook"),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(model)


def test_what_the_compiler_wraps_is_told_as_what_it_is() -> None:
    class Unsupported(Exception):
        __module__ = "torch._dynamo.exc"

    def raised() -> Exception:
        try:
            try:
                try:
                    raise TypeError("the error of the model")
                except TypeError as error:
                    raise RuntimeError("failed while tracing") from error
            except RuntimeError:
                raise Unsupported("TypeError, and more") from None
        except Unsupported as error:
            return error

    told = describe(raised())
    assert (told["type"], told["message"]) == ("TypeError", "the error of the model")
    assert "Unsupported" in told["traceback"]
    assert describe(ValueError("plain"))["type"] == "ValueError"


@pytest.mark.parametrize(
    ("asked", "via", "there", "built_for_cpu", "chosen"),
    [
        ("auto", "auto", True, False, ("engine", "cuda")),
        ("auto", "auto", False, False, ("module", "cpu")),
        ("auto", "auto", True, True, ("module", "cpu")),
        ("auto", "module", True, False, ("module", "cuda")),
        ("cpu", "auto", True, False, ("module", "cpu")),
        ("cuda", "auto", True, False, ("engine", "cuda")),
        ("auto", "engine", True, False, ("engine", "cuda")),
        ("auto", "engine", True, True, ("engine", "cpu")),
        ("auto", "engine", False, False, "finds none to use"),
        ("cpu", "engine", True, False, "runs on nothing else"),
        ("cuda", "engine", True, True, "built for the CPU"),
        ("cuda", "auto", False, False, "finds no usable GPU"),
    ],
)
def test_the_engine_is_asked_where_there_is_a_gpu_for_it(
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    via: str,
    there: bool,
    built_for_cpu: bool,
    chosen: tuple[str, str] | str,
) -> None:
    """Only torch's word on the GPU is pretended."""
    torch = types.ModuleType("torch")
    torch.cuda = types.SimpleNamespace(is_available=lambda: there)  # type: ignore[attr-defined]
    torch.version = types.SimpleNamespace(cuda="12.4", hip=None)  # type: ignore[attr-defined]
    torch.__version__ = "2.6.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(engine, "built_for_cpu", lambda: built_for_cpu)
    if isinstance(chosen, tuple):
        assert run.choose(asked, via) == chosen
    else:
        with pytest.raises(CannotRun, match=chosen):
            run.choose(asked, via)


def test_witnesses_and_speeds_are_told_apart_by_their_patch() -> None:
    other = replace(RESULT, patch="another-patch", file="transformers backend")
    error = {"type": "ValueError", "message": "no\nmore", "place": None, "traceback": ""}
    proof = replace(
        PROOF,
        witnesses=(replace(RESULT, file="transformers backend"), other),
        throughput=(
            Throughput("some-patch", "native", "eager", "V0", 2817.4, 739.2, None),
            Throughput("another-patch", "native", "eager", "V0", None, None, error),
        ),
        load="16 prompts",
    )
    witnesses = [click.unstyle(line) for line in table.witnesses(proof)]
    assert [line for line in witnesses if not line.startswith(" ")] == [
        "some-patch: the same with Transformers' own model",
        "another-patch: the same with Transformers' own model",
    ]
    assert len(witnesses) == 2 * 3
    assert list(table.throughput(proof)) == [
        "tokens per second, 16 prompts:",
        "  patch               model         mode      engine    prefill   decode",
        "  some-patch          native        eager     V0          2,817      739",
        "  another-patch       native        eager     V0        ValueError: no",
    ]


def test_only_a_step_that_hangs_ends_the_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three steps together may take longer than the limit, none of them alone."""
    monkeypatch.setattr(process, "SECONDS", 5.0)
    steps = tmp_path / "steps"
    write = f"open({str(steps)!r}, 'a').write('0.0 a step\\n')"
    moving = f"import time\nfor _ in range(3):\n    {write}\n    time.sleep(2)\n"
    told: list[str] = []
    process._wait(subprocess.Popen([sys.executable, "-c", moving]), steps, told.append)
    assert told[-1].startswith("a step (")
    hanging = subprocess.Popen([sys.executable, "-c", f"import time\n{write}\ntime.sleep(60)"])
    with pytest.raises(Failure, match=r"no answer within 5.0 s \(last step: a step\)"):
        process._wait(hanging, steps, None)
    hanging.kill()
    hanging.wait()
