"""The proof through the whole engine, for real: vLLM 0.8.4 for the CPU, eager and compiled.

Four proofs answer most tests here: each precision in each mode. Compiling is what takes the time,
so that a sample of the wrong files is asked compiled, and what ends in an error before any number
is computed is asked in one precision. ``GLMPATCH_PROOF=all`` asks everything everywhere.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from glmpatch.errors import Exit, Failure
from glmpatch.patches.glm4_residual.patch import PATCH
from glmpatch.proof import process
from glmpatch.proof.driver import Candidate, Result, Verification, verify
from tests.support.environment import MODEL_FILE, Environment
from tests.support.processes import started_with
from tests.support.sources import REWRITES, hand_patches, proper_subsets, repaired

pytestmark = pytest.mark.real

CRASH = "linear(): argument 'input' (position 1) must be Tensor, not tuple"
DEADLY = b"import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
MODES = ("eager", "compiled")
PRECISIONS = ("float32", "bfloat16")
WAYS = [(precision, mode) for precision in PRECISIONS for mode in MODES]


def lacking(subset: tuple[str, ...]) -> str:
    return "lacks " + ", ".join(each for each in REWRITES if each not in subset)


PARTIAL = {lacking(subset): subset for subset in proper_subsets()}
RELEASED = lacking(())
FIRST = "all, but with `[0]` of the norm's result"
SAMPLE = ("lacks rotary-dim-once", "lacks interleaved-rope", RELEASED, FIRST, "right")
"""What is asked in every way: the partial repairs whose numbers are nearest to right ones, one that
ends in an error, one that is right eager, and the right file. The other partial repairs that run
are asked in float32, eager; docs/proof.md has them in all ways."""


def site(root: Path) -> Path:
    (found,) = (root / "lib").glob("python3*/site-packages")
    return found


def candidate(name: str, source: bytes | None = None) -> Candidate:
    return Candidate(PATCH.id, name, PATCH.proof, str(PATCH.file), source)


def ask(root: Path, files: Mapping[str, bytes | None], **options: Any) -> Verification:
    candidates = [candidate(name, source) for name, source in files.items()]
    return verify(root / "bin" / "python", site(root), [], candidates, via="engine", **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of these tests alone."""
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="module")
def files(cpu_engine: Path, folder: Path) -> Mapping[str, bytes]:
    """By name. The right one, which is the last, tells where it is loaded from."""
    released = (site(cpu_engine) / MODEL_FILE).read_bytes()
    right = repaired(released)
    tell = (
        f"with open({str(folder / 'seen')!r}, 'a') as stream:\n"
        "    import os, sys\n"
        "    stream.write(f'{os.getpid()} {__file__}\\n')\n"
    )
    return {
        **{name: repaired(released, subset) for name, subset in PARTIAL.items()},
        **hand_patches(right),
        "deadly": DEADLY + right,
        "right": tell.encode() + right,
    }


def is_asked(name: str, precision: str, mode: str) -> bool:
    if os.environ.get("GLMPATCH_PROOF") == "all" or name in SAMPLE:
        return True
    crashes = REWRITES[0] not in PARTIAL.get(name, REWRITES)  # all with one and the same error
    return (precision, mode) == WAYS[0] and not crashes


Proofs = Callable[[str, str], Verification]


@pytest.fixture(scope="module")
def proofs(cpu_engine: Path, files: Mapping[str, bytes], folder: Path) -> Proofs:
    """What the engine says of the files in a precision and a mode; asked once."""
    mark = f"GLMPATCH_TEST={folder}"

    @functools.cache
    def proof(precision: str, mode: str) -> Verification:
        asked = {name: files[name] for name in files if is_asked(name, precision, mode)}
        as_a_user = process.environment
        # Compiled code of the first proof serves the second; glmpatch itself compiles anew.
        shared = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), mark[:13]: str(folder)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(process, "environment", lambda *given: as_a_user(*given) | shared)
            found = ask(
                cpu_engine,
                asked,
                precision=precision,
                mode=mode,
                against=(precision, mode) == WAYS[0],
            )
        (folder / "seen").rename(folder / f"seen {precision} {mode}")
        assert started_with(mark) == []
        assert (found.way, found.device) == ("engine", "CPU")
        assert not found.passed
        assert not found.full
        assert [each.file for each in found.results] == list(asked)
        assert {(each.precision, each.mode, each.engine) for each in found.results} == {
            (precision, mode, "V0")
        }
        return found

    return proof


def by_file(proof: Verification) -> Mapping[str, Result]:
    return {each.file: each for each in proof.results}


@pytest.mark.parametrize(("precision", "mode"), WAYS)
def test_the_right_file_alone_passes(
    proofs: Proofs, precision: str, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eager, the fused norm updates the residual in place, and what repairs by hand throw away is
    there all the same. Only all modes together are a verdict."""
    proof = proofs(precision, mode)
    with capsys.disabled():
        print(f"\n{precision}, {mode}:")
        for each in proof.results:
            print(f"{margin(each):>45}  {each.file}")
    results = by_file(proof)
    by_hand = {name for name in results if name.startswith("all, but ")}
    assert by_hand
    unseen = by_hand if mode == "eager" else set()
    assert {each for each in results if results[each].passed} == {"right"} | unseen
    asked = set(PARTIAL) & set(results)
    assert asked == {name for name in PARTIAL if is_asked(name, precision, mode)}
    assert len(asked) >= (8 if (precision, mode) == WAYS[0] else 3)
    assert {name for name in asked if results[name].crash} == {
        name for name in asked if REWRITES[0] not in PARTIAL[name]
    }
    crash = results[RELEASED].crash
    assert crash is not None
    assert (crash["type"], crash["message"]) == ("TypeError", CRASH)
    shares = [near.share for name in asked if (near := results[name].nearest)]
    assert min(shares) > (1000 if precision == "float32" else 2)


def margin(result: Result) -> str:
    """How far beyond, or within, its limits a file is."""
    if result.nearest is None:
        assert result.crash is not None
        return f"crashed: {result.crash['type']}"[:45]
    return f"{result.nearest.share:.3g} x the limit of {result.nearest.name}"


@pytest.mark.parametrize("mode", MODES)
def test_of_the_right_file_every_token_is_compared(proofs: Proofs, mode: str) -> None:
    result = by_file(proofs("float32", mode))["right"]
    assert result.equal == result.tokens == sum((1, 16, 17, 33, 64)) + 5 * 8 - 5
    assert [len(each) for each in result.series] == [8, 23, 24, 40, 71]
    assert result.nearest is not None
    assert max(map(max, result.series)) == result.nearest.value


def test_a_file_that_kills_the_engine_has_failed(proofs: Proofs) -> None:
    result = by_file(proofs("float32", "eager"))["deadly"]
    assert not result.passed
    assert result.crash is not None
    assert result.crash["type"] == "the process in which vLLM looks at the class ended"
    assert "SIGSEGV" in result.crash["message"]


@pytest.mark.parametrize(("precision", "mode"), WAYS)
def test_planned_bytes_are_loaded_by_every_process_of_the_engine(
    proofs: Proofs, cpu_engine: Path, folder: Path, precision: str, mode: str
) -> None:
    proofs(precision, mode)
    seen = (folder / f"seen {precision} {mode}").read_text()
    loads = [line.split(" ", 1) for line in seen.splitlines()]
    engines = 2 if (precision, mode) == WAYS[0] else 1
    assert len({pid for pid, _ in loads}) == 1 + engines, "one inspection, and the engines"
    assert len({file for _, file in loads}) == 1
    assert str(site(cpu_engine) / MODEL_FILE) not in {file for _, file in loads}


BUSY = "other work on this machine hides the time of decoding"


def test_the_workaround_is_a_witness_and_both_are_timed(proofs: Proofs) -> None:
    proof = proofs("float32", "eager")
    (witness,) = proof.witnesses
    assert witness.passed
    assert witness.equal == witness.tokens == 166
    assert "16 prompts of 128 tokens, 32 tokens after each" in proof.load
    native, other = proof.throughput
    assert (native.implementation, other.implementation) == ("native", "transformers")
    for each in (native, other):
        if each.error:  # which other work on this machine may bring about, and nothing else
            assert each.error["message"] == BUSY
            continue
        assert (each.prefill or 0) > 0
        assert (each.decode or 0) > 0


def test_a_model_that_cannot_be_split_here_is_said_so(cpu_engine: Path) -> None:
    with pytest.raises(Failure, match="splits no model") as caught:
        ask(cpu_engine, {"installed": None}, mode="eager", tp=2)
    assert caught.value.code is Exit.PROOF_NOT_RUN


@pytest.mark.parametrize(
    ("built", "device", "message", "hint"),
    [
        ("cpu_engine", "cuda", "finds no usable GPU", "--device cpu"),
        ("released", "auto", "was built for a GPU", "--via module"),
        ("released", "cpu", "its engine runs on nothing else", "--via module"),
    ],
)
def test_what_cannot_be_proven_here_is_said_so(
    built: str,
    device: str,
    message: str,
    hint: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(Failure, match=message) as caught:
        ask(request.getfixturevalue(built), {"installed": None}, device=device)
    assert caught.value.code is Exit.PROOF_NOT_RUN
    assert hint in caught.value.hint


def test_a_compiled_engine_without_a_compiler_is_said_so(
    cpu_engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(cpu_engine / "bin"))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(Failure, match=r"needs a C\+\+ compiler") as caught:
        ask(cpu_engine, {"installed": None})
    assert caught.value.code is Exit.PROOF_NOT_RUN
    assert "--mode eager" in caught.value.hint


@pytest.mark.gpu
def test_on_a_gpu(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mode of the engines that this GPU takes."""
    monkeypatch.setenv("GLMPATCH_TEST", str(env.root))
    proof = ask(env.root, {"planned": repaired(env.model.read_bytes())})
    assert proof.passed
    assert ("eager", "V0") in {(each.mode, each.engine) for each in proof.results}
    monkeypatch.delenv("GLMPATCH_TEST")
    assert started_with(f"GLMPATCH_TEST={env.root}") == []
