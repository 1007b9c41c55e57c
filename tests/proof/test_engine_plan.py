"""Which engines are asked: from facts alone, without vLLM and without a GPU.

What vLLM itself says to these plans: tests/real/proof/test_pretended_gpus.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from glmpatch.proof.probe import engine
from glmpatch.proof.probe.choose import GIB, Device, Model, Plan, Wish, choose
from glmpatch.proof.probe.outcome import CannotRun

BOTH = ("V1", "V0")
H100 = Device("cuda", "H100", (9, 0), free=78 * GIB, total=80 * GIB)
T4 = Device("cuda", "Tesla T4", (7, 5), free=14 * GIB, total=15 * GIB)
RADEON = Device("cuda", "Radeon", (11, 0), amd=True, free=23 * GIB, total=24 * GIB)
CPU = Device("cpu", count=8)
NEW = Model("glm4-residual", "planned", "Glm4ForCausalLM")
OLD = Model("glm-rope", "planned", "GlmForCausalLM", v0_only=True)
RELEASE = (0, 8, 4)


def plan(
    device: Device,
    wish: Wish | None = None,
    engines: Sequence[str] = BOTH,
    models: Sequence[Model] = (NEW, OLD),
) -> Plan:
    return choose(device, engines, models, wish or Wish(), RELEASE)


def ran(found: Plan) -> list[str]:
    return [f"{r.proof} {r.engine} {r.precision} {r.mode}" for r in found.runs]


def test_a_newer_gpu_is_asked_in_both_precisions_each_by_the_engine_that_takes_it() -> None:
    assert ran(plan(H100)) == [
        "glm4-residual V1 bfloat16 eager",
        "glm4-residual V1 bfloat16 compiled",
        "glm-rope V0 bfloat16 eager",
        "glm-rope V0 bfloat16 graphs",
        "glm4-residual V0 float32 eager",
        "glm-rope V0 float32 eager",
        "glm4-residual V0 float32 graphs",
        "glm-rope V0 float32 graphs",
    ]


def test_an_older_gpu_is_asked_in_float32() -> None:
    found = plan(T4)
    assert {(r.engine, r.precision) for r in found.runs} == {("V0", "float32")}
    assert found.left_out == (
        "bfloat16 and V1, since Tesla T4 (compute capability 7.5) is older than 8.0",
        "more than one device",
    )
    with pytest.raises(CannotRun, match=r"Tesla T4 .* has no bfloat16") as caught:
        plan(T4, Wish(precision="bfloat16"))
    assert "leave out --precision" in caught.value.hint


def test_a_radeon_is_asked_as_its_server_runs() -> None:
    found = plan(RADEON)
    assert {(r.engine, r.precision) for r in found.runs} == {("V0", "bfloat16")}
    assert found.left_out[:2] == (
        "V1, which vLLM calls experimental on an AMD GPU",
        "float32, untried on an AMD GPU",
    )
    asked = plan(RADEON, Wish(precision="float32"))
    assert {(r.engine, r.precision) for r in asked.runs} == {("V0", "float32")}


def test_a_cpu_is_asked_in_float32_unless_told_otherwise() -> None:
    found = plan(CPU, engines=("V0",))
    assert ran(found) == [
        f"{patch} V0 float32 {mode}"
        for mode in ("eager", "compiled")
        for patch in ("glm4-residual", "glm-rope")
    ]
    assert found.left_out == ("bfloat16", "a GPU's kernels and graphs", "more than one device")
    low = plan(CPU, Wish(precision="bfloat16"), ("V0",))
    assert {r.precision for r in low.runs} == {"bfloat16"}
    assert "float32, which sees more" in low.left_out


def test_where_both_engines_take_it_the_newer_one_is_asked() -> None:
    assert {r.engine for r in plan(CPU, engines=BOTH).runs} == {"V1"}
    two = plan(CPU, Wish(tensor=2), engines=("V0",))
    assert "more than one device" not in two.left_out


@pytest.mark.parametrize("device", [H100, T4, RADEON, CPU], ids=lambda each: each.name)
@pytest.mark.parametrize("modes", [("eager",), ("compiled",), ("eager", "compiled")])
def test_every_mode_of_every_file_is_run_or_named(device: Device, modes: tuple[str, ...]) -> None:
    files = [replace(model, file=file) for model in (NEW, OLD) for file in ("installed", "planned")]
    found = choose(device, BOTH, files, Wish(modes), RELEASE)
    assert len(set(found.runs)) == len(found.runs)
    for model in files:
        own = [r for r in found.runs if (r.proof, r.file) == (model.proof, model.file)]
        assert any(r.mode == "eager" for r in own) is ("eager" in modes)
        assert any(r.mode != "eager" for r in own) is ("compiled" in modes)
    told = " ".join(found.left_out)
    assert ("a residual that is thrown away shows" in told) is ("compiled" not in modes)
    assert ("the eager mode" in told) is ("eager" not in modes)


def test_each_file_is_asked_by_the_engine_that_takes_that_file() -> None:
    """A file of another release may have lost, or have gained, the mark of V0."""
    other = replace(OLD, file="installed", v0_only=False)
    found = plan(H100, Wish(precision="bfloat16"), models=(OLD, other))
    assert {(r.file, r.engine) for r in found.runs} == {("planned", "V0"), ("installed", "V1")}


def test_without_v0_nothing_runs_in_float32() -> None:
    found = plan(H100, engines=("V1",), models=(NEW,))
    assert {(r.engine, r.precision) for r in found.runs} == {("V1", "bfloat16")}
    assert "float32, which this vLLM's engine does not take" in found.left_out
    for wish, models in ((Wish(precision="float32"), (NEW,)), (Wish(), (NEW, OLD))):
        with pytest.raises(CannotRun, match="no engine of this vLLM runs Glm") as caught:
            plan(H100, wish, ("V1",), models)
        assert "--via module" in caught.value.hint


def test_a_model_that_does_not_fit_is_refused_in_numbers() -> None:
    half = Wish(parameters=32_500_000_000)
    found = plan(H100, half, models=(NEW,))
    assert {r.precision for r in found.runs} == {"bfloat16"}
    assert found.left_out[0] == (
        "float32: H100 has 78.0 of 80.0 GiB free, and the engine needs 124.1 in float32"
    )
    split = plan(replace(H100, count=2), replace(half, tensor=2), models=(NEW,))
    assert {r.precision for r in split.runs} == {"bfloat16", "float32"}
    with pytest.raises(CannotRun, match=r"the engine needs 124\.1 in float32") as caught:
        plan(H100, replace(half, precision="float32"), models=(NEW,))
    assert "--layers" in caught.value.hint
    with pytest.raises(CannotRun, match=r"1\.0 of 80\.0 GiB free, .* needs 3\.0") as caught:
        plan(replace(H100, free=GIB))
    assert "CUDA_VISIBLE_DEVICES" in caught.value.hint


def test_a_split_takes_as_many_devices_and_no_stages() -> None:
    with pytest.raises(CannotRun, match="takes 2 GPUs, and there are 1"):
        plan(H100, Wish(tensor=2))
    with pytest.raises(CannotRun, match="takes 9 processors, and there are 8"):
        plan(CPU, Wish(tensor=9), ("V0",))
    for device in (replace(H100, count=2), CPU):
        with pytest.raises(CannotRun, match=r"--pp 2: .* in its server alone") as caught:
            plan(device, Wish(pipeline=2))
        assert "leave out --pp" in caught.value.hint


def worker(root: Path, *parts: str) -> None:
    path = root.joinpath("vllm", *parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_the_engines_are_those_whose_workers_this_vllm_has(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert engine.engines_of(root, "cuda") == []
    worker(tmp_path, "worker", "worker.py")
    worker(tmp_path, "worker", "cpu_worker.py")
    assert engine.engines_of(root, "cuda") == engine.engines_of(root, "cpu") == ["V0"]
    worker(tmp_path, "v1", "worker", "gpu_worker.py")
    assert engine.engines_of(root, "cuda") == ["V1", "V0"]
    assert engine.engines_of(root, "cpu") == ["V0"]


def test_the_compiled_mode_of_a_gpu_needs_no_compiler_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    engine.check_compiler("cuda", ("compiled",))
    engine.check_compiler("cpu", ("eager",))
    with pytest.raises(CannotRun, match="compiler"):
        engine.check_compiler("cpu", ("compiled",))
    monkeypatch.setenv("CXX", "clang++")
    engine.check_compiler("cpu", ("compiled",))
