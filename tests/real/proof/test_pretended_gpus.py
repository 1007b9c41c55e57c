"""The plan on GPUs that are not there, put to vLLM 0.8.4's own configuration.

What vLLM refuses there would end a user's proof on such a GPU; what it takes, no GPU has run yet.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from glmpatch.catalogue import load_patches
from glmpatch.patch import Numbers
from glmpatch.proof import process
from glmpatch.proof.kinds import numbers
from tests.support import pretended
from tests.support.pretended import GPUS, WISHES

PROBE = Path(process.__file__).parent / "probe" / "__main__.py"
VERSION = "0.8.4"
NEWER = ("H100", "A100", "two H100")

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def answers(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Everything that was asked, in one process: about half a minute."""
    folder = tmp_path_factory.mktemp("pretended")
    (site,) = (released / "lib").glob("python3*/site-packages")
    listing = folder / "listing"
    listing.write_text(json.dumps({"root": str(site), "paths": [], "modules": {}}))
    proofs = [
        {"id": patch.id, **numbers, "files": [{"id": "installed", "path": None}]}
        for patch in load_patches()
        if (numbers := specification(patch))
    ]
    assert len(proofs) == 2
    request = folder / "request.json"
    request.write_text(
        json.dumps(
            {
                "root": str(site),
                "listing": str(listing),
                "proofs": proofs,
                "modes": ["eager", "compiled"],
                "precision": None,
                "model": None,
                "parallel": {"tensor": 1, "pipeline": 1},
                "parameters": 0,
            }
        )
    )
    environment = process.environment(folder, "cpu")
    for name in ("PYTHONPATH", "HIP_VISIBLE_DEVICES"):
        environment.pop(name, None)
    done = subprocess.run(
        [
            *(str(released / "bin" / "python"), "-I", "-B", pretended.__file__),
            *(str(PROBE), str(request)),
        ],
        env={**environment, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_HOST_IP": "127.0.0.1"},
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWERS")]
    assert lines, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("ANSWERS"))
    return found


def specification(patch: Any) -> dict[str, Any] | None:
    """What the probe is told of a patch that is proven by numbers."""
    if not (isinstance(patch.proof, Numbers) and patch.covers(VERSION)):
        return None
    file = patch.path(VERSION)
    module = file.removesuffix(".py").replace("/", ".")
    return {**numbers.order(patch.proof), "module": module, "file": file}


def plan(answers: Mapping[str, Any], gpu: str, wish: Mapping[str, Any]) -> Any:
    return answers["plans"][json.dumps([gpu, dict(wish)])]


def ran(answers: Mapping[str, Any], gpu: str, **wish: Any) -> list[tuple[str, ...]]:
    """The runs of a plan, in their order."""
    return [
        (each["proof"], each["engine"], each["precision"], each["mode"])
        for each in plan(answers, gpu, wish)["runs"]
    ]


@pytest.mark.parametrize("wish", WISHES, ids=json.dumps)
@pytest.mark.parametrize("gpu", GPUS)
def test_vllm_takes_every_run_of_the_plan(
    answers: Mapping[str, Any], gpu: str, wish: Mapping[str, Any]
) -> None:
    found = plan(answers, gpu, wish)
    assert ("runs" in found) != ("cannot" in found)
    for each in found.get("runs", ()):
        assert each.get("refused", "not configured") is None, each
        assert each["dtype"] == f"torch.{each['precision']}"
        assert each["head"] == 128
        assert ("v1" in each["worker"]) is (each["engine"] == "V1")


def test_the_default_on_a_newer_gpu(answers: Mapping[str, Any]) -> None:
    """bfloat16 as a server runs it, and float32, which sees more; the old GLM by V0 alone."""
    for gpu in NEWER:
        assert ran(answers, gpu) == [
            ("glm4-residual", "V1", "bfloat16", "eager"),
            ("glm4-residual", "V1", "bfloat16", "compiled"),
            ("glm-rope", "V0", "bfloat16", "eager"),
            ("glm-rope", "V0", "bfloat16", "graphs"),
            ("glm4-residual", "V0", "float32", "eager"),
            ("glm-rope", "V0", "float32", "eager"),
            ("glm4-residual", "V0", "float32", "graphs"),
            ("glm-rope", "V0", "float32", "graphs"),
        ]
        assert plan(answers, gpu, {})["left_out"] == [
            "V0 in bfloat16 with Glm4ForCausalLM",
            "V1 with GlmForCausalLM, which vLLM serves by V0 alone",
            "more than one device",
        ]


def test_v1_answers_as_the_probe_reads_it(answers: Mapping[str, Any]) -> None:
    """All of V1 but the process with the GPU: it opens the tokenizer, although told not to."""
    found = answers["answered"]
    assert "error" not in found, found["error"]
    assert found["tokens"] == [length + 8 for length in found["prompts"]]
    expected = sum(found["tokens"]) - len(found["prompts"])
    assert found["positions"] == [expected, expected]
    assert found["difference"] < 1e-6


def test_the_default_on_an_older_gpu_is_float32(answers: Mapping[str, Any]) -> None:
    assert ran(answers, "T4") == [
        (patch, "V0", "float32", mode)
        for mode in ("eager", "graphs")
        for patch in ("glm4-residual", "glm-rope")
    ]
    (first, _) = plan(answers, "T4", {})["left_out"]
    assert first == "bfloat16 and V1, since Tesla T4 (compute capability 7.5) is older than 8.0"
    refused = plan(answers, "T4", {"precision": "bfloat16"})
    assert "Tesla T4 (compute capability 7.5) has no bfloat16" in refused["cannot"]


def test_the_default_on_a_radeon_is_what_its_server_runs(answers: Mapping[str, Any]) -> None:
    assert {each[1:3] for each in ran(answers, "Radeon")} == {("V0", "bfloat16")}
    told = plan(answers, "Radeon", {})["left_out"]
    assert "V1, which vLLM calls experimental on an AMD GPU" in told
    assert "float32, untried on an AMD GPU" in told


def test_every_model_runs_out_of_place_wherever_the_compiled_mode_is_asked_for(
    answers: Mapping[str, Any],
) -> None:
    """With vLLM's own operators, a residual that is thrown away is there all the same."""
    for gpu in (*NEWER, "T4", "Radeon"):
        for wish in ({}, {"modes": ["compiled"]}):
            runs = plan(answers, gpu, wish)["runs"]
            for patch in ("glm4-residual", "glm-rope"):
                out = [r for r in runs if r["proof"] == patch and "none" in r["custom_ops"]]
                assert out, (gpu, patch)
                assert all(each["graphs"] for each in out)
        eager = plan(answers, gpu, {"modes": ["eager"]})
        assert not [r for r in eager["runs"] if "none" in r["custom_ops"]]
        assert "a residual that is thrown away shows" in eager["left_out"][0]


def test_only_v1_compiles(answers: Mapping[str, Any]) -> None:
    for gpu in (*NEWER, "T4", "Radeon"):
        for each in plan(answers, gpu, {})["runs"]:
            assert each["level"] == (3 if each["mode"] == "compiled" else 0)


def test_no_chunk_is_computed_in_float32(answers: Mapping[str, Any]) -> None:
    """vLLM's kernel for chunks multiplies in tf32; its attention for whole prompts does not."""
    for gpu in (*NEWER, "T4"):
        for each in plan(answers, gpu, {})["runs"]:
            assert each["chunked"] is (each["precision"] == "bfloat16")
            if each["precision"] == "float32":
                assert each["backend"] == "XFormersBackend"


def test_a_model_is_split_over_two_gpus_and_never_in_stages(answers: Mapping[str, Any]) -> None:
    split: dict[str, Any] = {"parallel": {"tensor": 2, "pipeline": 1}}
    found = plan(answers, "two H100", split)
    assert len(found["runs"]) == 8
    for each in found["runs"]:
        assert each["arguments"]["tensor_parallel_size"] == 2
        assert each["arguments"]["distributed_executor_backend"] == "mp"
    assert "more than one device" not in found["left_out"]
    assert "takes 2 GPUs, and there are 1" in plan(answers, "H100", split)["cannot"]
    for gpu in GPUS:
        refused = plan(answers, gpu, {"parallel": pretended.PIPELINE})
        assert refused["cannot"].startswith("--pp 2: ")
        assert "leave out --pp" in refused["hint"]


def test_too_little_memory_is_told_in_numbers_before_anything_runs(
    answers: Mapping[str, Any],
) -> None:
    busy = plan(answers, "busy H100", {})
    assert "has 1.0 of 80.0 GiB free, and the engine needs 3.0 in bfloat16" in busy["cannot"]
    assert "CUDA_VISIBLE_DEVICES" in busy["hint"]
    large = {"parameters": 32_500_000_000}
    fits = plan(answers, "H100", large)
    assert {each["precision"] for each in fits["runs"]} == {"bfloat16"}
    assert "the engine needs 124.1 in float32" in fits["left_out"][0]
    assert "the engine needs 63.5 in bfloat16" in plan(answers, "A100", large)["cannot"]
    assert "--layers" in plan(answers, "A100", large)["hint"]


def test_what_the_plan_leaves_out_is_what_vllm_refuses(answers: Mapping[str, Any]) -> None:
    """Otherwise the plan would be more cautious than it has to be."""
    told = {name: each["refused"] for name, each in answers["refusals"].items()}
    assert len(told) == 5
    for name, words in (
        ("H100 V1 float32 Glm4ForCausalLM", "not supported with --dtype torch.float32"),
        ("H100 V1 bfloat16 GlmForCausalLM", "not supported with ['GlmForCausalLM']"),
        ("T4 V1 bfloat16 Glm4ForCausalLM", "not supported with Compute Capability < 8.0"),
        ("T4 V0 bfloat16 Glm4ForCausalLM", "Bfloat16 is only supported on GPUs with"),
        ("H100 V1 bfloat16 pipeline", "Pipeline Parallelism without Ray"),
    ):
        assert told[name] is not None, name
        assert words in told[name]


def test_what_vllm_refuses_is_no_wrong_file(answers: Mapping[str, Any]) -> None:
    """Should the plan ask for it all the same, the proof could not run."""
    for name, each in answers["refusals"].items():
        assert each["fault"] is not None, name


@pytest.mark.parametrize(
    ("content", "only"),
    [
        ("class Model(SupportsV0Only): pass", True),
        ("class Model: pass", False),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", False),
        ("raise SystemExit(77)", False),
        ("no python", False),
    ],
)
def test_a_file_that_kills_its_process_does_not_end_the_search_for_facts(
    released: Path, tmp_path: Path, content: str, only: bool
) -> None:
    (site,) = (released / "lib").glob("python3*/site-packages")
    model = tmp_path / "model.py"
    head = "class SupportsV0Only:\n    supports_v0_only = True\n"
    model.write_text(head + content)
    listing = tmp_path / "listing"
    listing.write_text(json.dumps({"root": str(site), "paths": [], "modules": {}}))
    name = "vllm.model_executor.models.glm4"
    # A stand-in for the one module of vLLM's that is asked, which takes seconds to import.
    code = f"""
import runpy, sys, types
load = runpy.run_path(sys.argv[1])["load"]
facts, finder = load("facts"), load("finder")
for part in ("vllm", "vllm.model_executor", "vllm.model_executor.models"):
    sys.modules[part] = types.ModuleType(part)
    sys.modules[part].__path__ = []
interfaces = types.ModuleType("vllm.model_executor.models.interfaces")
interfaces.supports_v0_only = lambda each: getattr(each, "supports_v0_only", False)
sys.modules[interfaces.__name__] = interfaces
sys.meta_path.insert(0, finder.ListedFinder({str(listing)!r}))
print(facts.v0_only({str(listing)!r}, {name!r}, "Model", {str(model)!r}))
"""
    done = subprocess.run(
        [str(released / "bin" / "python"), "-I", "-B", "-c", code, str(PROBE)],
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{only}\n", done.stderr
