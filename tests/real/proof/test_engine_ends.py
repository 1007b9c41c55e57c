"""An engine's proof that is broken off, and one that cannot be had at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glmpatch.errors import Exit, Failure
from glmpatch.patches.glm4_residual.patch import PATCH
from glmpatch.proof.driver import Candidate, verify
from tests.support.environment import MODEL_FILE, copy
from tests.support.processes import started_with

pytestmark = pytest.mark.real


def steps(folder: Path) -> list[str]:
    """What the probe says that it does, as far as it was started in ``folder``."""
    return [line for f in folder.glob("glmpatch-*/steps") for line in f.read_text().splitlines()]


def test_ctrl_c_leaves_no_process_behind(cpu_engine: Path, tmp_path: Path) -> None:
    """In the step that has most of them: an engine in a fork of a process of the probe's."""
    env = copy(cpu_engine, tmp_path / "env")
    before = env.model.read_bytes()
    mark = f"GLMPATCH_TEST={tmp_path}"
    command = subprocess.Popen(
        [
            *(sys.executable, "-m", "glmpatch", "apply", PATCH.id, "--verify"),
            *("--via", "engine", "--python", str(env.root)),
        ],
        env={**os.environ, "GLMPATCH_TEST": str(tmp_path), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 600
    while not any("running vLLM's engine" in each for each in steps(tmp_path)):
        assert command.poll() is None, command.communicate()[0]
        assert time.monotonic() < until, steps(tmp_path)
        time.sleep(0.1)
    assert len(started_with(mark)) >= 4, "the command, the probe, the engine's process, its fork"
    os.kill(command.pid, signal.SIGINT)
    printed, _ = command.communicate(timeout=60)
    assert command.returncode == Exit.INTERRUPTED, printed
    assert started_with(mark) == []
    assert env.model.read_bytes() == before
    assert not list(tmp_path.glob("glmpatch-*"))


def test_a_pipeline_is_refused_in_words(cpu_engine: Path) -> None:
    (site,) = (cpu_engine / "lib").glob("python3*/site-packages")
    installed = Candidate(PATCH.id, "installed", PATCH.proof, MODEL_FILE)
    with pytest.raises(Failure, match="--pp 2: ") as caught:
        verify(cpu_engine / "bin" / "python", site, [], [installed], via="engine", pp=2)
    assert caught.value.code is Exit.PROOF_NOT_RUN
    assert "leave out --pp" in caught.value.hint
