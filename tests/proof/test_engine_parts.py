"""The parts of the engine way that need no engine to be started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from glmpatch.errors import Failure
from glmpatch.proof import process
from glmpatch.proof.probe import engine, run, throughput
from glmpatch.proof.probe.outcome import CannotRun, describe
from tests.support.environment import Environment


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


@pytest.mark.real
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


def test_only_a_step_that_hangs_ends_the_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three steps together may take longer than the limit, none of them alone."""
    monkeypatch.setattr(process, "SECONDS", 5.0)
    steps = tmp_path / "steps"
    write = f"open({str(steps)!r}, 'a').write('[0.0, \"a step\"]\\n')"
    moving = f"import time\nfor _ in range(3):\n    {write}\n    time.sleep(2)\n"
    told: list[str] = []
    process._wait(subprocess.Popen([sys.executable, "-c", moving]), steps, told.append)
    assert told[-1] == "a step"
    hanging = subprocess.Popen([sys.executable, "-c", f"import time\n{write}\ntime.sleep(60)"])
    with pytest.raises(Failure, match=r"no answer within 5.0 s \(last step: a step\)"):
        process._wait(hanging, steps, None)
    hanging.kill()
    hanging.wait()


class Timed:
    """An engine whose calls take these seconds, by the clock that it moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
        self.left, self.now = list(seconds), 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        vllm = types.SimpleNamespace(SamplingParams=dict)
        monkeypatch.setitem(sys.modules, "vllm", vllm)

    def generate(self, prompts: Any, parameters: dict[str, Any], use_tqdm: bool) -> None:
        assert [len(prompt["prompt_token_ids"]) for prompt in prompts] == [5, 5]
        self.now += self.left.pop(0)


LOAD = {"batch": 2, "prefill": 5, "decode": 4}


def test_other_work_only_adds_to_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = Timed(monkeypatch, 9.0, *(1.5, 2.0), *(1.0, 7.0), *(8.0, 3.0))
    found = throughput.measure(llm, LOAD, vocabulary=10)
    assert found == {"prefill": 2 * 5 / 1.0, "decode": 2 * 4 / (2.0 - 1.0)}


def test_what_other_work_hides_is_asked_again_and_then_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hidden = (2.0, 2.0)
    llm = Timed(monkeypatch, 9.0, *hidden * 3, *(1.0, 2.0), *hidden)
    assert throughput.measure(llm, LOAD, vocabulary=10) == {"prefill": 10.0, "decode": 8.0}
    assert len(llm.left) == len(hidden)
    llm = Timed(monkeypatch, 9.0, *hidden * throughput.MOST, *(1.0, 2.0))
    with pytest.raises(RuntimeError, match="other work on this machine hides"):
        throughput.measure(llm, LOAD, vocabulary=10)
