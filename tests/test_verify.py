"""The proof has teeth: every wrong file fails it, by numbers, and the right one passes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from patcher.errors import Exit, Failure
from patcher.patch import Proof
from patcher.target import find_target
from patcher.verify.driver import Candidate, Result, verify
from patches.glm4_residual import PATCH
from tests.support.environment import Environment, glmpatch
from tests.support.sources import MLP, hand_patches, proper_subsets, repaired, replace


def faults(right: bytes) -> dict[str, bytes]:
    """Files that are wrong in ways that no rewrite knows, and hand patches met in the wild."""
    eps = "eps=config.rms_norm_eps"
    norms = re.findall(r"self\.(\w+) = RMSNorm\(", right.decode())
    assert len(norms) == 4, norms
    files = {
        f"epsilon of {norm} 10 % off": re.sub(
            rf"(self\.{norm} = RMSNorm\(config\.hidden_size,\s*{eps})".encode(), rb"\1 * 1.1", right
        )
        for norm in norms
    }
    files |= hand_patches(right)
    files["attention scale 1 % off"] = replace(
        right, "self.head_dim**-0.5", "self.head_dim**-0.5 * 1.01"
    )
    files["epsilon fixed at 1e-5"] = replace(right, eps, "eps=1e-5", 4)
    files["norms after attention and MLP swapped"] = (
        right.replace(b"self.post_self_attn_layernorm(", b"self.SWAP(")
        .replace(b"self.post_mlp_layernorm(", b"self.post_self_attn_layernorm(")
        .replace(b"self.SWAP(", b"self.post_mlp_layernorm(")
    )
    files["a layer that is not a number"] = replace(
        right, MLP, MLP + "        hidden_states[0, 0] = float('nan')\n"
    )
    assert all(source != right for source in files.values())
    return files


@pytest.fixture(scope="module")
def results(released: Path, released_file: bytes) -> Mapping[str, Result]:
    """What the numbers say of 15 partial repairs, the faults above and the right file.

    All in one process, the right file first and last: a file must not be judged by what an
    earlier one left in vLLM's process-wide caches.
    """
    right = repaired(released_file)
    files = {"right": right}
    files |= {f"only {subset}": repaired(released_file, subset) for subset in proper_subsets()}
    files |= faults(right)
    files["right again"] = right
    assert len(files) == 2 + 15 + 11
    candidates = [Candidate(PATCH, name, source) for name, source in files.items()]
    verification = verify(find_target(str(released)), candidates, device="cpu")
    assert [each.file for each in verification.results] == list(files)
    return {each.file: each for each in verification.results}


def test_the_right_file_passes(results: Mapping[str, Result]) -> None:
    first, last = results["right"], results["right again"]
    for result in (first, last):
        assert result.passed
        assert result.equal == result.tokens == 87
        assert result.distance is not None
        assert 0 < result.distance <= result.limit == 10 * result.noise
    assert first.distance == last.distance


def test_every_wrong_file_fails(
    results: Mapping[str, Result], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {k: v for k, v in results.items() if not k.startswith("right")}
    assert [name for name, result in wrong.items() if result.passed] == []
    finite = {k: v.distance / v.limit for k, v in wrong.items() if v.distance is not None}
    nearest = min(finite, key=lambda name: finite[name])
    with capsys.disabled():
        print(
            f"\nproof: {len(wrong)} wrong files fail; the nearest ({nearest}) is "
            f"{finite[nearest]:.1f} x the limit away, the right one "
            f"{(results['right'].distance or 0) / results['right'].limit:.2f} x"
        )
    assert finite[nearest] > 2
    assert isinstance(PATCH.proof, Proof)
    told = PATCH.proof.wrong["module float32"]
    assert results[nearest].distance == pytest.approx(told, rel=0.05)
    assert results["right"].wrong == told


def test_half_of_the_subsets_crash_and_half_only_compute_garbage(
    results: Mapping[str, Result],
) -> None:
    subsets = {k: v for k, v in results.items() if k.startswith("only")}
    crashed = [name for name, result in subsets.items() if result.crash is not None]
    assert len(crashed) == 8
    assert all("unpack-fused-norm" not in name for name in crashed)
    for name in crashed:
        crash = results[name].crash
        assert crash is not None
        assert (
            crash["message"] == "linear(): argument 'input' (position 1) must be Tensor, not tuple"
        )
    assert all((v.distance or 0) > 1 for v in subsets.values() if v.crash is None)


def test_not_a_number_is_no_agreement(results: Mapping[str, Result]) -> None:
    result = results["a layer that is not a number"]
    assert result.crash is None
    assert result.distance is None
    assert not result.passed


def test_bfloat16_separates_too(released: Path, released_file: bytes) -> None:
    right = repaired(released_file)
    files = {"right": right}
    files |= {
        f"only {subset}": repaired(released_file, subset)
        for subset in proper_subsets()
        if len(subset) == 3
    }
    verification = verify(
        find_target(str(released)),
        [Candidate(PATCH, name, source) for name, source in files.items()],
        device="cpu",
        precision="bfloat16",
    )
    assert {each.file: each.passed for each in verification.results} == {
        name: name == "right" for name in files
    }


def test_before_apply_after_apply_after_revert(env: Environment) -> None:
    """The picture that a user gets: the reported error, agreement, and the error again."""
    python = ("--python", str(env.root))
    before = glmpatch("verify", *python)
    assert before.returncode == Exit.PROOF_FAILED
    assert "linear(): argument 'input' (position 1) must be Tensor, not tuple" in before.stdout
    applied = glmpatch("apply", "--verify", *python)
    assert applied.returncode == 0, applied.stderr
    assert "87 of 87 positions" in applied.stdout
    after = glmpatch("verify", *python, "--json")
    assert after.returncode == 0
    proof = json.loads(after.stdout)["verify"]
    assert proof["outcome"] == "passed"
    assert proof["results"][0]["file"] == "installed"
    assert glmpatch("revert", *python).returncode == 0
    again = glmpatch("verify", *python)
    assert again.returncode == Exit.PROOF_FAILED
    assert "must be Tensor, not tuple" in again.stdout


def test_a_wrong_neighbour_fails_and_nothing_is_written(env: Environment) -> None:
    """The file is mended, and still this vLLM computes something else."""
    norm = env.site / "vllm/model_executor/layers/layernorm.py"
    source = norm.read_bytes()
    wrong = replace(
        source,
        "x = x * torch.rsqrt(variance + self.variance_epsilon)",
        "x = x * torch.rsqrt(variance + self.variance_epsilon) * 1.001",
        1,
    )
    norm.write_bytes(wrong)
    before = env.tree()
    done = glmpatch("apply", "--verify", "--python", str(env.root))
    assert done.returncode == Exit.PROOF_FAILED, done.stdout
    assert "nothing was written" in done.stderr
    assert env.tree() == before


def test_a_neighbour_that_cannot_be_imported_fails(env: Environment) -> None:
    (env.site / "vllm/model_executor/models/llama.py").write_text("raise ImportError('broken')\n")
    before = env.tree()
    done = glmpatch("apply", "glm4-residual", "--verify", "--python", str(env.root))
    assert done.returncode in (Exit.PROOF_FAILED, Exit.PROOF_NOT_RUN)
    assert "broken" in done.stderr + done.stdout
    assert env.tree() == before


def test_cuda_without_a_gpu_is_said_so(env: Environment) -> None:
    done = glmpatch(
        "verify", "--device", "cuda", "--python", str(env.root), env={"CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.returncode == Exit.PROOF_NOT_RUN
    assert "finds no usable GPU" in done.stderr
    assert "--device cpu" in done.stderr


def test_an_interpreter_without_torch_is_said_so(env: Environment) -> None:
    for entry in env.site.glob("torch*"):
        entry.unlink()
    done = glmpatch("verify", "--python", str(env.root))
    assert done.returncode == Exit.PROOF_NOT_RUN
    assert "cannot import torch" in done.stderr


def test_too_noisy_a_reference_proves_nothing(
    released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patcher.verify.driver.CEILING", {"float32": 1e-9})
    with pytest.raises(Failure, match="proves nothing") as caught:
        verify(find_target(str(released)), [Candidate(PATCH)], device="cpu")
    assert caught.value.code is Exit.PROOF_NOT_RUN


def test_a_probe_that_hangs_is_ended(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patcher.verify.process.SECONDS", 0.2)
    with pytest.raises(Failure, match="no answer within") as caught:
        verify(find_target(str(released)), [Candidate(PATCH)], device="cpu")
    assert caught.value.code is Exit.PROOF_NOT_RUN


def test_a_model_that_kills_its_process_has_failed(released: Path, released_file: bytes) -> None:
    deadly = b"import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n" + released_file
    with pytest.raises(Failure, match="SIGSEGV") as caught:
        verify(find_target(str(released)), [Candidate(PATCH, "deadly", deadly)], device="cpu")
    assert caught.value.code is Exit.PROOF_FAILED


@pytest.mark.gpu
def test_on_a_gpu(env: Environment) -> None:
    done = glmpatch("apply", "--verify", "--python", str(env.root), "--json")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["verify"]["device"] != "CPU"
