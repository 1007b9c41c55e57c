"""The proof has teeth: every wrong file fails it, by numbers, and the right one passes."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from glmpatch.errors import Exit, Failure
from glmpatch.patches.glm4_float16_guard.patch import PATCH as GUARD
from glmpatch.patches.glm4_residual.patch import PATCH
from glmpatch.proof.driver import Candidate, Result, Verification, verify
from glmpatch.source.plan import make_plan
from tests.proof.faults import AFTER_MLP, faults
from tests.proof.sample import ask
from tests.support.environment import MODEL_FILE, Environment
from tests.support.sources import FUSED, MLP, hand_patches, proper_subsets, repaired, replace

pytestmark = pytest.mark.real

OUT, IN = "out of place", "in place"
CRASH = "linear(): argument 'input' (position 1) must be Tensor, not tuple"
ATTENTION = 'prefix=f"{prefix}.attn",\n'
TYPE = "attn_type=AttentionType.DECODER,\n        )"
SAMPLE = "    def sample(\n"
WINDOW = "per_layer_sliding_window=16, "


def swallowed(right: bytes) -> dict[str, tuple[bytes, str]]:
    """Files that tell the attention something, and what their errors say; empty where the
    attention does as it is told, and the numbers tell."""
    told = {
        "alibi": ("alibi_slopes=[0.1, 0.2, 0.3, 0.4], ", ""),
        "window": (WINDOW, ""),
        "soft cap": ("logits_soft_cap=2.0, ", ""),
        "sparse": ("blocksparse_params={'local_blocks': 1}, ", "blocksparse_params="),
        "latent": ("use_mla=True, ", "use_mla=True"),
        "extra": ("sinks=[1.0], ", "sinks=[1.0]"),
        "quantized": ("", "quant_config="),
        "cross": ("", "attn_type='encoder_decoder'"),
        "cache": ("", "cache_config.cache_dtype='fp8'"),
        "scales": ("", "cache_config.calculate_kv_scales=True"),
    }
    files = {
        name: (replace(right, ATTENTION, given + ATTENTION), why)
        for name, (given, why) in told.items()
    }
    other = "quant_config=quant_config,\n                              " + ATTENTION
    made = other.replace("=quant_config", "=type('Fp8Config', (), {})()")
    files["quantized"] = (replace(right, other, made), told["quantized"][1])
    for name, kind in (("both ways", "ENCODER_ONLY"), ("cross", "ENCODER_DECODER")):
        source = replace(right, TYPE, TYPE.replace("DECODER", kind))
        files[name] = (source, told.get(name, ("", ""))[1])
    begin = "        self.attn = Attention("
    for name, setting in (
        ("cache", "cache_dtype = 'fp8'"),
        ("scales", "calculate_kv_scales = True"),
    ):
        change = (
            "        from types import SimpleNamespace\n"
            "        cache_config = SimpleNamespace(sliding_window=None)\n"
            f"        cache_config.{setting}\n"
        )
        files[name] = (replace(right, begin, change + begin), told[name][1])
    files["one name for all layers"] = (
        replace(right, ATTENTION, ATTENTION.replace("{prefix}", "layers.0")),
        "Duplicate layer name",
    )
    files["a name without a number"] = (
        replace(right, ATTENTION, "prefix='attn',\n"),
        "should only contain one integer",
    )
    files["older call"] = (
        replace(right, "self.attn(q, k, v)", "self.attn(q, k, v, None, None)"),
        "too many positional arguments",
    )
    files["other shape"] = (
        replace(right, "self.attn(q, k, v)", "self.attn(q, k, v, output_shape=(1, 2))"),
        "output_shape=(1, 2)",
    )
    return files


def own_way(right: bytes) -> bytes:
    """Right where the fused norm makes new tensors, and wrong where it overwrites the old ones."""
    return replace(
        right,
        FUSED,
        "        old, before = residual, hidden_states\n"
        "        hidden_states, _ = self.post_attention_layernorm(hidden_states, residual)\n"
        "        residual = before + old\n",
    )


def without(right: bytes, name: str) -> bytes:
    """The file without one method of its model class."""
    source, count = re.subn(
        rf"    def {name}\(\n.*?\n\n(?=    def |$)".encode(), b"", right, flags=re.DOTALL
    )
    assert count == 1, name
    return source


def renamed(right: bytes) -> bytes:
    """The file whose model class takes the positions under another name than vLLM's."""
    head, cut, model = right.partition(b"class Glm4ForCausalLM")
    assert model.count(b"positions") == 2
    return head + cut + model.replace(b"positions", b"places")


@pytest.fixture(scope="module")
def files(released_file: bytes) -> Mapping[str, bytes]:
    """Name -> source; the right one first and last, so that none is judged by what another left."""
    right = repaired(released_file)
    found = {"right": right}
    found |= {f"only {subset}": repaired(released_file, subset) for subset in proper_subsets()}
    found |= hand_patches(right)
    found |= {name: source for name, (source, _) in swallowed(right).items()}
    found["overwritten"] = own_way(right)
    found |= {f"no {name}": without(right, name) for name in ("sample", "compute_logits")}
    found["no argument positions"] = renamed(right)
    found["no number"] = replace(right, MLP, MLP + "        hidden_states[0, 0] = float('nan')\n")
    found["deaf to bfloat16"] = replace(
        right, AFTER_MLP, AFTER_MLP + "        residual = residual.float()\n"
    )
    found["right again"] = right
    assert all(source != right for name, source in found.items() if "right" not in name)
    return found


@pytest.fixture(scope="module")
def proof(released: Path, files: Mapping[str, bytes]) -> Verification:
    candidates = [candidate(name, source) for name, source in files.items()]
    guard = (site(released) / str(GUARD.file)).read_bytes()
    for name, source in (("installed", None), ("planned", make_plan(GUARD, guard).after)):
        candidates.append(Candidate(GUARD.id, name, GUARD.proof, str(GUARD.file), source))
    return verify(released / "bin" / "python", site(released), [], candidates)


def site(root: Path) -> Path:
    (found,) = (root / "lib").glob("python3*/site-packages")
    return found


def candidate(name: str, source: bytes | None = None) -> Candidate:
    return Candidate(PATCH.id, name, PATCH.proof, str(PATCH.file), source)


def results(proof: Verification, name: str) -> dict[tuple[str | None, str | None], Result]:
    return {(each.precision, each.norms): each for each in proof.of(PATCH.id, name)}


def test_the_right_file_passes_in_every_way(proof: Verification) -> None:
    ways = [(p, n) for p in ("float32", "bfloat16") for n in (OUT, IN)]
    for name in ("right", "right again"):
        found = results(proof, name)
        assert list(found) == ways
        assert proof.passed_file(PATCH.id, name)
        for result in found.values():
            assert result.tokens == sum((1, 5, 17, 41, 64, 158))
            assert result.nearest is not None
            assert 0 < result.nearest.share <= 1
        assert found["float32", OUT].equal == found["float32", OUT].tokens
    first, last = results(proof, "right"), results(proof, "right again")
    assert {k: v.statistics for k, v in first.items()} == {k: v.statistics for k, v in last.items()}
    assert proof.full
    assert proof.versions["vllm"] == "0.8.4"


def test_every_wrong_file_fails(proof: Verification, files: Mapping[str, bytes]) -> None:
    wrong = [name for name in files if "right" not in name]
    assert [name for name in wrong if proof.passed_file(PATCH.id, name)] == []


def test_half_of_the_subsets_crash_and_half_only_compute_garbage(
    proof: Verification, files: Mapping[str, bytes]
) -> None:
    subsets = [name for name in files if name.startswith("only")]
    crashed = [name for name in subsets if results(proof, name)["float32", OUT].crash]
    assert len(crashed) == 8
    assert all("unpack-fused-norm" not in name for name in crashed)
    for name in subsets:
        for result in results(proof, name).values():
            if name in crashed:
                assert result.crash is not None
                assert result.crash["message"] == CRASH
            else:
                assert result.nearest is not None
                assert result.nearest.share > 5


def test_each_way_of_the_fused_operators_finds_what_the_other_does_not(
    proof: Verification, files: Mapping[str, bytes]
) -> None:
    right = files["right"]
    for names, finds, blind in ((list(hand_patches(right)), OUT, IN), (["overwritten"], IN, OUT)):
        for name in names:
            for precision in ("float32", "bfloat16"):
                assert not results(proof, name)[precision, finds].passed
                assert results(proof, name)[precision, blind].passed


def test_the_attention_honours_or_refuses_what_it_is_given(
    proof: Verification, files: Mapping[str, bytes]
) -> None:
    for name, (_, why) in swallowed(files["right"]).items():
        for result in results(proof, name).values():
            if why:
                assert result.crash is not None, name
                assert why in result.crash["message"], name
            else:
                assert result.crash is None, (name, result.crash)


def test_what_vllms_runners_call_must_be_there(proof: Verification) -> None:
    for name, told in (
        ("no sample", "what the class lacks: sample"),
        ("no compute_logits", "what the class lacks: compute_logits"),
        ("no argument positions", "forward has not the arguments"),
    ):
        crash = results(proof, name)["float32", OUT].crash
        assert crash is not None
        assert told in crash["message"]


def test_not_a_number_is_no_agreement(proof: Verification) -> None:
    for result in results(proof, "no number").values():
        assert result.crash is None
        assert not result.passed
        assert result.statistics[0].value is None


def test_a_type_that_a_kernel_would_not_take_is_found_in_the_precision_that_has_it(
    proof: Verification,
) -> None:
    found = results(proof, "deaf to bfloat16")
    assert [key for key, each in found.items() if not each.passed] == [("bfloat16", IN)]
    crash = found["bfloat16", IN].crash
    assert crash is not None
    assert crash["message"] == "the norm's kernel is given torch.bfloat16 and torch.float32"


def test_answers_are_in_the_same_list(proof: Verification) -> None:
    assert not proof.passed_file(GUARD.id, "installed")
    assert proof.passed_file(GUARD.id, "planned")
    (result,) = proof.of(GUARD.id, "installed")
    assert result.kind == "answers"
    assert len(result.wrong_answers) == 5


SEEDS = range(1000, 1003)
"""Others than those of the calibration."""


def test_faults_are_found_from_every_seed_and_the_right_file_passes(
    released: Path, released_file: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sample of ``python -m tests.calibrate``, which docs/proof.md tells of."""
    every = faults(released_file)
    started = time.monotonic()
    found: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for each in ask(released, released_file, every, SEEDS, tmp_path):
        found[each.result.file, each.result.precision or ""].append(each.result)
    for precision, least, asked in (("bfloat16", 60, 8), ("float32", 70, 8)):
        right = found.pop(("right", precision))
        assert len(right) == asked * len(SEEDS)
        assert all(each.passed for each in right)
        tried = {name: r for (name, p), r in found.items() if p == precision}
        assert len(tried) == 74
        assert all(len(each) == len(SEEDS) for each in tried.values())
        seen = [n for n, each in tried.items() if not any(result.passed for result in each)]
        with capsys.disabled():
            largest = max(each.nearest.share for each in right if each.nearest)
            print(
                f"\n{precision}: {len(seen)} of 74 faults found from each of {len(SEEDS)} seeds; "
                f"the right file at most {largest:.2f} of its limit "
                f"({time.monotonic() - started:.0f} s)"
            )
        assert len(seen) >= least


# -- what stands in the way ----------------------------------------------------------------------


def test_a_wrong_neighbour_fails(env: Environment) -> None:
    """The file is mended, and still this vLLM computes something else."""
    norm = env.site / "vllm/model_executor/layers/layernorm.py"
    wrong = replace(
        norm.read_bytes(),
        "x = x * torch.rsqrt(variance + self.variance_epsilon)",
        "x = x * torch.rsqrt(variance + self.variance_epsilon) * 1.001",
        1,
    )
    norm.write_bytes(wrong)
    right = repaired(env.model.read_bytes())
    proof = verify(env.python, env.site, [], [candidate("planned", right)])
    assert not proof.passed
    assert proof.passed_file(PATCH.id, "planned") is False


@pytest.mark.parametrize(
    ("broken", "told"), [("raise ImportError('broken')\n", "broken"), ("no python\n", "invalid")]
)
def test_a_neighbour_that_cannot_be_imported_is_said_so(
    env: Environment, broken: str, told: str
) -> None:
    (env.site / "vllm/model_executor/models/llama.py").write_text(broken)
    with pytest.raises(Failure, match=rf"llama\.py, which .* is broken: .*{told}") as caught:
        verify(env.python, env.site, [], [candidate("planned", repaired(env.model.read_bytes()))])
    assert caught.value.code is Exit.PROOF_NOT_RUN


def test_a_file_that_cannot_be_imported_is_its_own_fault(released: Path) -> None:
    broken = {
        "ImportError": b"from vllm.model_executor.models.llama import Nothing\n",
        "NameError": b"nothing\n",
    }
    asked = [candidate(name, source) for name, source in broken.items()]
    proof = verify(released / "bin" / "python", site(released), [], asked)
    assert {(each.file, each.crash["type"]) for each in proof.results if each.crash} == {
        (name, name) for name in broken
    }


def test_cuda_without_a_gpu_is_said_so(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(Failure, match="finds no usable GPU") as caught:
        verify(released / "bin" / "python", site(released), [], [candidate("x")], device="cuda")
    assert caught.value.code is Exit.PROOF_NOT_RUN
    assert "--device cpu" in caught.value.hint


def test_a_precision_that_no_proof_takes_is_said_so(released: Path) -> None:
    for precision, told in (("float16", "overflows in float16"), ("float64", "has no proof in")):
        with pytest.raises(Failure, match=told) as caught:
            verify(Path("/nowhere"), site(released), [], [candidate("x")], precision=precision)
        assert caught.value.code is Exit.PROOF_NOT_RUN
        assert "--precision float32 or bfloat16" in caught.value.hint


def test_a_model_that_kills_its_process_has_failed(released: Path, released_file: bytes) -> None:
    deadly = b"import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n" + released_file
    with pytest.raises(Failure, match="SIGSEGV") as caught:
        verify(*(released / "bin" / "python", site(released), []), [candidate("deadly", deadly)])
    assert caught.value.code is Exit.PROOF_FAILED


@pytest.mark.gpu
def test_on_a_gpu(env: Environment) -> None:
    right = repaired((env.site / MODEL_FILE).read_bytes())
    proof = verify(env.python, env.site, [], [candidate("planned", right)])
    assert proof.device != "CPU"
    assert proof.passed
