"""The probe's process: what it says on its way, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glmpatch.errors import Exit, Failure
from glmpatch.proof import lines, process
from glmpatch.proof.driver import Candidate, verify
from glmpatch.proof.page import page
from tests.proof.made import SPECIFICATION, measured
from tests.support.processes import started_with

STEPS = ("importing torch and transformers", "importing vLLM", "asking vLLM (planned, float32)")
PROBE = """
import json, os, subprocess, sys, time
request = json.load(open(sys.argv[2]))
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
for step in {steps}:
    with open(request["steps"], "a") as stream:
        stream.write(json.dumps([0.0, step]) + "\\n")
if {asking}:
    json.dump({{"proof": "some-patch", "file": request["proofs"][0]["files"][0]["id"]}},
              open(request["asked"], "w"))
{end}
"""
CANDIDATE = Candidate("some-patch", "planned", SPECIFICATION, "vllm/some.py", b"")


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A variable by which all that a test starts can be told; none of it may be left."""
    monkeypatch.setenv("GLMPATCH_TEST", str(tmp_path))
    variable = f"GLMPATCH_TEST={tmp_path}"
    yield variable
    monkeypatch.delenv("GLMPATCH_TEST")
    until = time.monotonic() + 5
    while started_with(variable) and time.monotonic() < until:
        time.sleep(0.05)
    assert started_with(variable) == []


def probe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, steps: Any, end: str, asking: bool = False
) -> None:
    """Another probe, which says these steps and ends so, while it is ``asking`` a file."""
    path = tmp_path / "probe.py"
    path.write_text(PROBE.format(steps=list(steps), end=end, asking=asking))
    monkeypatch.setattr(process, "PROBE", path)


def ask(**options: Any) -> None:
    verify(Path(sys.executable), Path("/nowhere"), [], [CANDIDATE], **options)


@pytest.mark.parametrize("number", range(len(STEPS) + 1))
def test_an_interruption_in_any_step_leaves_nothing(
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    marked: str,
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    probe(monkeypatch, tmp_path, STEPS[:number], "time.sleep(60)")
    wanted = (process.STARTING, *STEPS)[number]

    def interrupt(step: str) -> None:
        if step == wanted and len(started_with(marked)) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        ask(on_step=interrupt)
    assert list(folder.iterdir()) == []


def test_every_step_is_told_once_as_it_begins_and_the_last_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, marked: str
) -> None:
    end = "time.sleep(1)\nopen(request['report'], 'w').write(json.dumps({'cannot': {}}))"
    probe(monkeypatch, tmp_path, STEPS, end)
    told: list[str] = []
    with pytest.raises(KeyError):
        ask(on_step=told.append)
    assert tuple(dict.fromkeys(told)) == (process.STARTING, *STEPS)
    assert told.count(STEPS[-1]) > 3
    assert told.count(STEPS[0]) == 1


@pytest.mark.parametrize(
    ("asking", "code", "message"),
    [
        (True, Exit.PROOF_FAILED, "planned file: signal SIGSEGV while asking vLLM"),
        (False, Exit.PROOF_NOT_RUN, "its process died .* while asking vLLM"),
    ],
)
def test_a_death_is_the_files_fault_only_while_the_file_runs(
    asking: bool,
    code: Exit,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    marked: str,
) -> None:
    probe(monkeypatch, tmp_path, STEPS, "os.kill(os.getpid(), 11)", asking)
    with pytest.raises(Failure, match=message) as caught:
        ask()
    assert caught.value.code is code
    assert "SIGSEGV" in caught.value.message


REPORT = {
    "way": "module",
    "device": "CPU",
    "versions": {},
    "seconds": 1.0,
    "unnarrowed": True,
    "results": [measured(file="installed")],
}


def test_the_others_are_asked_again_without_a_file_that_kills_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, marked: str
) -> None:
    end = (
        "if len(request['proofs'][0]['files']) == 2: os.kill(os.getpid(), 11)\n"
        f"open(request['report'], 'w').write({json.dumps(REPORT)!r})"
    )
    probe(monkeypatch, tmp_path, STEPS, end, asking=True)
    candidates = [CANDIDATE, replace(CANDIDATE, name="installed")]
    proof = verify(Path(sys.executable), Path("/nowhere"), [], candidates)
    assert proof.failed == ("some-patch",)
    assert proof.passed_file("some-patch", "installed")
    (dead,) = proof.of("some-patch", "planned")
    assert dead.crash is not None
    assert "signal SIGSEGV while asking vLLM" in dead.crash["message"]
    assert any("the process died" in line for line in lines.verdicts(proof))
    assert "the process died" in page(proof, "vLLM")


def test_what_was_found_before_a_proof_could_not_go_on_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, marked: str
) -> None:
    wrong = measured(distance=1.0, norms="in place")
    found = [wrong, measured(), measured(file="installed"), measured(file="installed", noise=1e-6)]
    report = {
        "way": "module",
        "results": found,
        "cannot": {"message": "the memory is full", "hint": "free some"},
    }
    end = f"open(request['report'], 'w').write({json.dumps(report)!r})"
    probe(monkeypatch, tmp_path, STEPS, end)
    with pytest.raises(Failure) as caught:
        ask()
    assert caught.value.code is Exit.PROOF_NOT_RUN
    assert caught.value.message.splitlines() == [
        "the proof could not run: the memory is full",
        "before that, some-patch (planned file): FAILED (float32 in place)",
        "before that, some-patch (installed file): passed "
        "(float32 out of place; float32 out of place)",
    ]
    assert caught.value.hint == "free some"


def test_what_was_found_is_left_out_where_it_measures_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, marked: str
) -> None:
    report = {
        "way": "module",
        "results": [measured(noise=1.0)],
        "cannot": {"message": "the memory is full", "hint": "free some"},
    }
    end = f"open(request['report'], 'w').write({json.dumps(report)!r})"
    probe(monkeypatch, tmp_path, STEPS, end)
    with pytest.raises(Failure) as caught:
        ask()
    assert caught.value.message == "the proof could not run: the memory is full"


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(python: Path, folder: Path, *_: Any) -> Any:
        raise OSError(28, "No space left on device", str(folder / "request.json"))

    monkeypatch.setattr(process, "run", full)
    with pytest.raises(Failure, match="No space left on device") as caught:
        ask()
    assert caught.value.code is Exit.PROOF_NOT_RUN
    assert "TMPDIR" in caught.value.hint


def test_a_temporary_folder_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(Failure, match="No usable temporary directory") as caught:
        ask()
    assert caught.value.code is Exit.PROOF_NOT_RUN
    assert "TMPDIR" in caught.value.hint


def test_an_interpreter_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="cannot start") as caught:
        verify(tmp_path / "python", tmp_path, [], [CANDIDATE])
    assert caught.value.code is Exit.PROOF_NOT_RUN


def site() -> Path:
    """Where the interpreter of the tests looks for packages, among which there is no torch."""
    (found,) = {path for path in sys.path if path.endswith("site-packages")}
    assert not Path(found, "torch").exists()
    return Path(found)


def test_torch_that_is_missing_is_named_and_python_blamed_only_where_it_is_wrong(
    tmp_path: Path,
) -> None:
    for root, hint in (
        (site(), "install torch in the environment of"),
        (tmp_path, "name the interpreter that runs vLLM with --python"),
    ):
        with pytest.raises(Failure, match="cannot import torch: there is none") as caught:
            verify(Path(sys.executable), root, [], [CANDIDATE])
        assert caught.value.code is Exit.PROOF_NOT_RUN
        assert hint in caught.value.hint


@pytest.mark.parametrize("error", ["OSError('libtorch.so: no such file')", "RuntimeError('x')"])
def test_torch_that_is_broken_is_said_to_be(tmp_path: Path, error: str) -> None:
    torch = tmp_path / "torch"
    torch.mkdir()
    (torch / "__init__.py").write_text(f"raise {error}\n")
    with pytest.raises(Failure, match=r"cannot import torch: (OSError|RuntimeError)") as caught:
        verify(Path(sys.executable), site(), [str(tmp_path)], [CANDIDATE])
    assert caught.value.code is Exit.PROOF_NOT_RUN
    assert "repair torch in the environment of" in caught.value.hint


def test_transformers_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("")
    with pytest.raises(Failure, match="cannot import transformers: there is none") as caught:
        verify(Path(sys.executable), site(), [str(tmp_path)], [CANDIDATE])
    assert "install transformers" in caught.value.hint


def test_a_transformers_that_is_too_old_is_named(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "transformers.py").write_text("__version__ = '4.51.1'\n")
    with pytest.raises(Failure, match=r"transformers 4\.51\.1 has no SomeConfig") as caught:
        verify(Path(sys.executable), site(), [str(tmp_path)], [CANDIDATE])
    assert "4.51.3 or newer" in caught.value.hint


def test_what_the_user_set_for_vllm_is_kept_from_the_proof(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("VLLM_TARGET_DEVICE", "VLLM_ATTENTION_BACKEND"):
        monkeypatch.setenv(name, "strange")
    monkeypatch.setenv("VLLM_PLUGINS", "one,two")
    environment = process.environment(tmp_path, "cpu")
    assert "strange" not in environment.values()
    assert environment["VLLM_PLUGINS"] == "one,two"
    monkeypatch.delenv("VLLM_PLUGINS")
    assert "VLLM_PLUGINS" not in process.environment(tmp_path, "cpu")


def test_a_child_of_the_tests_can_be_told_by_its_environment(marked: str) -> None:
    """The test of the tests: what they look for is there while it runs."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert started_with(marked) == [str(child.pid)]
    finally:
        child.kill()
        child.wait()
