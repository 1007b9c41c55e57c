"""The proof through the whole engine, for real: vLLM 0.8.4 for the CPU, eager and compiled."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from patcher.cli import cli
from patcher.errors import Exit, Failure
from patcher.patch import Proof
from patcher.target import find_target
from patcher.verify import process
from patcher.verify.driver import Candidate, Result, verify
from patches.glm4_residual import PATCH
from tests.support import cache
from tests.support.environment import MODEL_FILE, Environment, copy, glmpatch
from tests.support.sources import REWRITES, hand_patches, repaired
from tests.test_verify import faults

CRASH = "linear(): argument 'input' (position 1) must be Tensor, not tuple"
DEADLY = b"import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
MODES = ("eager", "compiled")
NEAREST = "epsilon of post_mlp_layernorm 10 % off"
"""Of all files of the tests that are wrong, the one with the smallest difference."""
LACKING = tuple(f"lacks {rewrite}" for rewrite in REWRITES)


def keep_compiled_code(patch: pytest.MonkeyPatch) -> None:
    """Compiled code of an earlier run serves again; glmpatch itself compiles anew each time."""
    as_a_user = process.environment
    inductor = str(cache.cache() / "inductor")
    patch.setattr(
        process,
        "environment",
        lambda *given: {**as_a_user(*given), "TORCHINDUCTOR_CACHE_DIR": inductor},
    )


@pytest.fixture(scope="module")
def results(cpu_engine: Path) -> Mapping[tuple[str, str], Result]:
    """What the engine says of each file in each mode: (file, mode) -> result.

    The right file first and last among those that run, so that none is judged by what an earlier
    one left behind; the one that kills the engine's process at the end.
    """
    (site,) = (cpu_engine / "lib").glob("python3*/site-packages")
    released = (site / MODEL_FILE).read_bytes()
    right = repaired(released)
    files = {"right": right, "released": released}
    for name, rewrite in zip(LACKING, REWRITES, strict=True):
        files[name] = repaired(released, tuple(each for each in REWRITES if each != rewrite))
    files |= hand_patches(right)
    files[NEAREST] = faults(right)[NEAREST]
    files |= {"right again": right, "deadly": DEADLY + right}
    with pytest.MonkeyPatch.context() as patch:
        keep_compiled_code(patch)
        verification = verify(
            find_target(str(cpu_engine)),
            [Candidate(PATCH, name, source) for name, source in files.items()],
            via="engine",
        )
    assert (verification.way, verification.device) == ("engine", "CPU")
    assert not verification.passed
    found = {(each.file, each.mode or ""): each for each in verification.results}
    assert list(found) == [(file, mode) for mode in MODES for file in files]
    return found


@pytest.mark.parametrize("mode", MODES)
def test_the_right_file_agrees(results: Mapping[tuple[str, str], Result], mode: str) -> None:
    first, last = results["right", mode], results["right again", mode]
    for result in (first, last):
        assert result.passed
        assert result.engine == "V0"
        assert result.equal == result.tokens == sum((1, 16, 17, 33, 64)) + 5 * 8 - 5
        assert result.distance is not None
        assert 0 < result.distance <= result.limit == 10 * result.noise
        assert [len(each) for each in result.series] == [8, 23, 24, 40, 71]
        assert max(map(max, result.series)) == result.distance
        assert max(map(max, result.noise_series)) == result.noise
    assert first.distance == last.distance


@pytest.mark.parametrize("mode", MODES)
def test_the_released_file_ends_in_the_reported_error(
    results: Mapping[tuple[str, str], Result], mode: str
) -> None:
    result = results["released", mode]
    assert not result.passed
    assert result.crash is not None
    assert (result.crash["type"], result.crash["message"]) == ("TypeError", CRASH)


@pytest.mark.parametrize("mode", MODES)
def test_every_file_that_lacks_one_rewrite_fails(
    results: Mapping[tuple[str, str], Result], mode: str
) -> None:
    assert [name for name in LACKING if results[name, mode].passed] == []
    crashed = [name for name in LACKING if results[name, mode].crash]
    assert crashed == ["lacks unpack-fused-norm"]
    assert all((results[n, mode].distance or 0) > 1 for n in LACKING if n not in crashed)


@pytest.mark.parametrize("mode", MODES)
def test_the_nearest_wrong_file_is_as_far_away_as_the_report_says(
    results: Mapping[tuple[str, str], Result], mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(PATCH.proof, Proof)
    told = PATCH.proof.wrong["engine float32"]
    nearest, right = results[NEAREST, mode], results["right", mode]
    with capsys.disabled():
        print(
            f"\nengine, {mode}: right {right.distance:.1e}, limit {right.limit:.1e}, "
            f"nearest wrong file {nearest.distance:.1e}"
        )
    assert not nearest.passed
    assert nearest.distance == pytest.approx(told, rel=0.05)
    assert right.wrong == told


def test_hand_patches_pass_in_place_and_fail_compiled(
    results: Mapping[tuple[str, str], Result], cpu_engine: Path
) -> None:
    """Eager, the fused norm updates the residual in place, and the value that was thrown away is
    there all the same. Only all modes together are a verdict."""
    for name in hand_patches(repaired(_released(cpu_engine))):
        assert results[name, "eager"].passed
        assert not results[name, "compiled"].passed
        assert (results[name, "compiled"].distance or 0) > 1


@pytest.mark.parametrize("mode", MODES)
def test_a_file_that_kills_the_engine_has_failed(
    results: Mapping[tuple[str, str], Result], mode: str
) -> None:
    result = results["deadly", mode]
    assert not result.passed
    assert result.crash is not None
    assert result.crash["type"] == "the engine's process ended"
    assert "signal 11" in result.crash["message"]


def test_planned_bytes_are_loaded_by_every_process_of_the_engine(
    cpu_engine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The file tells where it is loaded from; the rewrites keep that statement."""
    env = copy(cpu_engine, tmp_path / "env")
    seen = tmp_path / "seen"
    tell = (
        f"with open({str(seen)!r}, 'a') as stream:\n"
        "    import os, sys\n"
        "    stream.write(f'{os.getpid()} {__file__}\\n')\n"
    )
    env.model.write_bytes(tell.encode() + env.model.read_bytes())
    monkeypatch.setenv("GLMPATCH_TEST", str(tmp_path))
    keep_compiled_code(monkeypatch)
    with pytest.raises(SystemExit) as ended:
        cli(["apply", PATCH.id, "--verify", "--via", "engine", "--python", str(env.root), "--json"])
    monkeypatch.delenv("GLMPATCH_TEST")
    printed = capsys.readouterr().out
    assert ended.value.code == 0, printed
    assert _started_with(f"GLMPATCH_TEST={tmp_path}") == []
    loads = [line.split(" ", 1) for line in seen.read_text().splitlines()]
    assert len({pid for pid, _ in loads}) == 4, "engine and inspection, eager and compiled"
    assert str(env.model) not in {file for _, file in loads}
    assert len({file for _, file in loads}) == 1
    proof = json.loads(printed)["verify"]
    assert proof["way"] == "engine"
    assert [each["mode"] for each in proof["results"]] == list(MODES)
    assert json.loads(env.receipt.read_bytes())["verification"] == proof


def test_the_workaround_is_a_witness_and_both_are_timed(cpu_engine: Path) -> None:
    planned = Candidate(PATCH, "planned", repaired(_released(cpu_engine)))
    verification = verify(
        find_target(str(cpu_engine)), [planned], via="engine", mode="eager", against=True
    )
    assert verification.passed
    (witness,) = verification.witnesses
    assert witness.passed
    assert witness.equal == witness.tokens == 166
    assert "16 prompts of 128 tokens, 32 tokens after each" in verification.load
    native, other = verification.throughput
    assert (native.implementation, other.implementation) == ("native", "transformers")
    for each in (native, other):
        assert each.error is None
        assert (each.prefill or 0) > 0
        assert (each.decode or 0) > 0


def test_a_model_that_cannot_be_split_here_is_said_so(cpu_engine: Path) -> None:
    with pytest.raises(Failure, match="splits no model") as caught:
        verify(find_target(str(cpu_engine)), [Candidate(PATCH)], via="engine", mode="eager", tp=2)
    assert caught.value.code is Exit.PROOF_NOT_RUN


def test_what_cannot_be_proven_here_is_said_so(
    cpu_engine: Path, released: Path, tmp_path: Path
) -> None:
    for root, options, message, hint in (
        (cpu_engine, ["--device", "cuda"], "finds no usable GPU", "--device cpu"),
        (released, [], "was built for a GPU", "--via module"),
        (released, ["--device", "cpu"], "its engine runs on nothing else", "--via module"),
        (cpu_engine, ["--precision", "float16"], "overflows in float16", "--precision float32"),
    ):
        done = glmpatch(
            *("verify", "--via", "engine", "--python", str(root), *options),
            env={"CUDA_VISIBLE_DEVICES": ""},
        )
        assert done.returncode == Exit.PROOF_NOT_RUN, done.stdout
        assert message in done.stderr
        assert hint in done.stderr


def test_a_compiled_engine_without_a_compiler_is_said_so(
    cpu_engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(cpu_engine / "bin"))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(Failure, match="needs a C\\+\\+ compiler") as caught:
        verify(find_target(str(cpu_engine)), [Candidate(PATCH)], via="engine")
    assert caught.value.code is Exit.PROOF_NOT_RUN
    assert "--mode eager" in caught.value.hint


@pytest.mark.gpu
def test_on_a_gpu(env: Environment) -> None:
    """Every mode of both engines, in bfloat16."""
    done = glmpatch(
        *("apply", "--verify", "--via", "engine", "--python", str(env.root), "--json"),
        env={"GLMPATCH_TEST": str(env.root)},
    )
    assert done.returncode == 0, done.stdout
    proof = json.loads(done.stdout)["verify"]
    assert proof["precision"] == "bfloat16"
    ran = {(each["mode"], each["engine"]) for each in proof["results"]}
    assert ran == {(mode, engine) for mode in MODES for engine in ("V0", "V1")}
    assert _started_with(f"GLMPATCH_TEST={env.root}") == []


def _released(root: Path) -> bytes:
    (site,) = (root / "lib").glob("python3*/site-packages")
    return (site / MODEL_FILE).read_bytes()


def _started_with(variable: str) -> list[str]:
    """Processes on this machine that run with ``variable`` in their environment."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if variable.encode() in environ.read_bytes().split(b"\0"):
                found.append(environ.parent.name)
    return found
