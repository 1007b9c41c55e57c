"""What vLLM 0.8.4's own configuration says to glmpatch's plan on GPUs that are not there.

Usage, in the interpreter that owns vLLM: ``python pretended.py PROBE/__main__.py REQUEST.json``;
prints one JSON object. One process is asked everything, since its import of vLLM takes longest.

Pretended are what vLLM asks a GPU for: a platform, a name, a compute capability, free and whole
memory, and how many there are. Everything else is vLLM's own: its arguments, its choice of an
engine, its configuration, its attention backends and the check of a worker that starts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import runpy
import sys
import tempfile
import traceback
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

if __name__ == "__main__":  # run by its path, in an interpreter that does not have the tests
    sys.path.append(os.path.abspath(os.path.join(__file__, *[os.pardir] * 3)))

from tests.support.pretended_core import Core

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """A GPU as vLLM sees it; memory in GiB."""

    name: str
    capability: tuple[int, int]
    total: int
    free: float
    count: int = 1
    amd: bool = False


GPUS = {
    "H100": Gpu("NVIDIA H100 80GB HBM3", (9, 0), 80, 78),
    "A100": Gpu("NVIDIA A100-SXM4-40GB", (8, 0), 40, 39),
    "T4": Gpu("Tesla T4", (7, 5), 15, 14.5),
    "Radeon": Gpu("AMD Radeon RX 7900 XTX", (11, 0), 24, 23, amd=True),
    "two H100": Gpu("NVIDIA H100 80GB HBM3", (9, 0), 80, 78, count=2),
    "busy H100": Gpu("NVIDIA H100 80GB HBM3", (9, 0), 80, 1),
}
PIPELINE = {"tensor": 1, "pipeline": 2}
WISHES: tuple[dict[str, Any], ...] = (
    {},
    {"precision": "float32"},
    {"precision": "bfloat16"},
    {"modes": ["eager"]},
    {"modes": ["compiled"]},
    {"parallel": {"tensor": 2, "pipeline": 1}},
    {"parallel": PIPELINE},
    # GLM-4-32B: 65 GB in bfloat16, 130 in float32
    {"parameters": 32_500_000_000},
)


@contextlib.contextmanager
def pretended(gpu: Gpu) -> Iterator[None]:
    """vLLM and torch, for as long as the block runs, on a machine with such GPUs."""
    from unittest import mock

    import torch
    import vllm.platforms
    from vllm.platforms.interface import DeviceCapability

    if gpu.amd:
        from vllm.platforms.rocm import RocmPlatform as Real
    else:
        from vllm.platforms.cuda import NonNvmlCudaPlatform as Real

    class Pretended(Real):  # type: ignore[misc,valid-type,unused-ignore]
        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> Any:
            return DeviceCapability(*gpu.capability)

        @classmethod
        def get_device_name(cls, device_id: int = 0) -> str:
            return gpu.name

        @classmethod
        def get_device_total_memory(cls, device_id: int = 0) -> int:
            return gpu.total * GIB

    properties = types.SimpleNamespace(gcnArchName="gfx1100", total_memory=gpu.total * GIB)
    platform = Pretended()
    with contextlib.ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            # Whoever has imported the name has it for good.
            if name.startswith("vllm") and "current_platform" in vars(module):
                stack.enter_context(mock.patch.object(module, "current_platform", platform))
        stack.enter_context(mock.patch.object(vllm.platforms, "_current_platform", platform))
        for name, value in (
            ("mem_get_info", lambda *_: (int(gpu.free * GIB), gpu.total * GIB)),
            ("device_count", lambda: gpu.count),
            ("get_device_properties", lambda *_: properties),
            ("get_device_capability", lambda *_: gpu.capability),
        ):
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        yield


class Asked:
    """The probe's own parts, and the request of a user who has all patches."""

    def __init__(self, probe: str, request: dict[str, Any]) -> None:
        load = runpy.run_path(probe)["load"]
        self.choose, self.engine, self.facts, self.serve, self.faults = (
            load(part) for part in ("choose", "engine", "facts", "serve", "faults")
        )
        self.cannot = load("outcome").CannotRun
        self.request = request

    def plan(self, gpu: Gpu, wish: dict[str, Any]) -> dict[str, Any]:
        """What the probe would run there, and what vLLM says to each run of it."""
        request = {**self.request, **wish}
        try:
            device = self.facts.device()
            models = [
                self.choose.Model(proof["id"], file["id"], proof["architecture"], only)
                for proof in request["proofs"]
                for file in proof["files"]
                for only in [self.v0_only(request, proof, file)]
            ]
            engines = self.engine.engines_of(request["root"], "cuda")
            plan = self.choose.choose(
                device, engines, models, self.engine.wish_of(request), self.engine.release()
            )
        except self.cannot as error:
            return {"cannot": error.reason, "hint": error.hint}
        # A checkpoint of this size is planned for and not made.
        made = self.engine.Models({**request, "model": None}, "cuda", lambda _: None)
        runs = [self.run(request, task) for run in plan.runs for task in made.tasks(run)]
        return {"device": dataclasses.asdict(device), "left_out": plan.left_out, "runs": runs}

    def v0_only(self, request: dict[str, Any], proof: dict[str, Any], file: dict[str, Any]) -> bool:
        return bool(
            self.facts.v0_only(
                request["listing"], proof["module"], proof["architecture"], file["path"]
            )
        )

    def run(self, request: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
        told = {name: task[name] for name in ("proof", "engine", "precision", "mode")}
        try:
            arguments = self.arguments(self.order(request, task), task)
        except self.cannot as error:
            return {**told, "cannot": error.reason}
        return {**told, "arguments": _plain(arguments), **self.configured(task, arguments)}

    def order(self, request: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
        return {
            "engine": task["engine"],
            "device": "cuda",
            "block": self.engine.BLOCK,
            "chunk": 64,
            "decode": 8,
            "parallel": request["parallel"],
            "parameters": request["parameters"],
        }

    def arguments(self, order: dict[str, Any], task: dict[str, Any]) -> Any:
        longest = max(map(len, task["prompts"])) + order["decode"]
        return self.serve.arguments(order, task, longest, len(task["prompts"]))

    def answered(self) -> dict[str, Any]:
        """What the probe reads of V1's answers, beside what the core had given."""
        from unittest import mock

        import vllm

        (proof,) = (p for p in self.request["proofs"] if p["architecture"] == "Glm4ForCausalLM")
        made = self.engine.Models({**self.request, "model": None}, "cuda", lambda _: None)
        run = self.choose.Run(proof["id"], "installed", "V1", "bfloat16", "eager")
        with pretended(GPUS["H100"]):
            (task,) = made.tasks(run)
            order = self.order(self.request, task)
            core = Core(task["top"])
            os.environ["VLLM_USE_V1"] = "1"
            target = "vllm.v1.engine.llm_engine.EngineCoreClient.make_client"
            with mock.patch(target, return_value=core):
                llm = vllm.LLM(**self.arguments(order, task))
                found = self.serve.generate(order, task, llm)
        rows = [row for prompt in found["rows"] for row in prompt]
        given = [row for prompt in core.told.values() for row in prompt]
        return {
            "prompts": [len(prompt) for prompt in task["prompts"]],
            "tokens": [len(tokens) for tokens in found["tokens"]],
            "positions": [len(rows), len(given)],
            "difference": max(
                abs(row[token] - number)
                for row, told in zip(rows, given, strict=True)
                for token, number in told.items()
            ),
        }

    def configured(self, task: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
        """What vLLM makes of the arguments, up to where a worker would open the GPU."""
        from vllm.engine.arg_utils import EngineArgs
        from vllm.platforms import current_platform
        from vllm.usage.usage_lib import UsageContext
        from vllm.utils import resolve_obj_by_qualname
        from vllm.worker.worker import _check_if_gpu_supports_dtype

        os.environ["VLLM_USE_V1"] = "1" if task["engine"] == "V1" else "0"
        try:
            config = EngineArgs(**arguments).create_engine_config(UsageContext.LLM_CLASS)
            model, cache = config.model_config, config.cache_config
            _check_if_gpu_supports_dtype(model.dtype)
            backend = current_platform.get_attn_backend_cls(
                None,
                model.get_head_size(),
                model.dtype,
                cache.cache_dtype,
                cache.block_size,
                task["engine"] == "V1",
                model.use_mla,
            )
            if current_platform.is_rocm():
                # Its attention compiles with a Triton for AMD when it is made; the CUDA wheel has
                # Nvidia's. Which heads it takes is asked of what it stands on.
                from vllm.attention.ops.paged_attn import PagedAttention

                assert model.get_head_size() in PagedAttention.get_supported_head_sizes()
            else:
                implementation = resolve_obj_by_qualname(backend).get_impl_cls()
                implementation(
                    model.get_num_attention_heads(config.parallel_config),
                    model.get_head_size(),
                    1.0,
                    model.get_num_kv_heads(config.parallel_config),
                    None,
                    None,
                    "auto",
                )
        except Exception as error:
            crash = {"type": type(error).__name__, "message": str(error), "traceback": ""}
            return {
                "refused": f"{type(error).__name__}: {error}"[:500],
                "fault": self.faults.fault(crash),
            }
        compilation = config.compilation_config
        return {
            "refused": None,
            "backend": backend.rpartition(".")[2],
            "worker": config.parallel_config.worker_cls,
            "level": int(compilation.level),
            "custom_ops": list(compilation.custom_ops),
            "graphs": [] if model.enforce_eager else list(compilation.cudagraph_capture_sizes),
            "chunked": bool(config.scheduler_config.chunked_prefill_enabled),
            "dtype": str(model.dtype),
            "head": model.get_head_size(),
        }

    def refusals(self) -> dict[str, Any]:
        """What the plan leaves out because vLLM refuses it: asked all the same."""
        found = {}
        for gpu, engine, precision, architecture in (
            ("H100", "V1", "float32", "Glm4ForCausalLM"),
            ("H100", "V1", "bfloat16", "GlmForCausalLM"),
            ("T4", "V1", "bfloat16", "Glm4ForCausalLM"),
            ("T4", "V0", "bfloat16", "Glm4ForCausalLM"),
            ("H100", "V1", "bfloat16", "pipeline"),
        ):
            request = self.request
            if architecture == "pipeline":
                request = {**request, "parallel": PIPELINE}
            made = self.engine.Models({**request, "model": None}, "cuda", lambda _: None)
            (proof,) = (
                proof
                for proof in request["proofs"]
                if proof["architecture"] == architecture.replace("pipeline", "Glm4ForCausalLM")
            )
            run = self.choose.Run(proof["id"], proof["files"][0]["id"], engine, precision, "eager")
            with pretended(GPUS[gpu]):
                (task,) = made.tasks(run)
                found[f"{gpu} {engine} {precision} {architecture}"] = self.run(request, task)
        return found


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in arguments.items() if isinstance(v, (bool, int, float, str, dict))}


def main(probe: str, request_file: str) -> None:
    with open(request_file, encoding="utf-8") as stream:
        request = json.load(stream)
    # Compiled code of vLLM's asks for a driver when it is loaded, and nothing here runs it.
    for name in ("vllm._C", "vllm._rocm_C", "vllm._moe_C"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["vllm.cumem_allocator"] = types.SimpleNamespace(  # type: ignore[assignment]
        init_module=None, python_create_and_map=None, python_unmap_and_release=None
    )
    # Triton imports it, and it is no part of what vLLM installs for Python 3.11.
    sys.modules.setdefault("setuptools", types.ModuleType("setuptools"))
    import importlib

    import vllm.platforms
    from vllm.platforms.interface import UnspecifiedPlatform

    vllm.platforms._current_platform = UnspecifiedPlatform()
    from vllm.model_executor.models.registry import ModelRegistry

    answers: dict[str, Any] = {"plans": {}}
    with pretended(GPUS["H100"]):
        for proof in request["proofs"]:
            # The class itself, which spares the second process in which vLLM would look at it.
            module = importlib.import_module(proof["module"])
            ModelRegistry.register_model(
                proof["architecture"], getattr(module, proof["architecture"])
            )
    asked = Asked(probe, request)
    for name, gpu in GPUS.items():
        with pretended(gpu):
            for wish in WISHES:
                key = json.dumps([name, wish])
                answers["plans"][key] = asked.plan(gpu, wish)
    answers["refusals"] = asked.refusals()
    try:
        answers["answered"] = asked.answered()
    except Exception:
        answers["answered"] = {"error": traceback.format_exc()}
    print("ANSWERS" + json.dumps(answers))
    sys.stdout.flush()
    os._exit(0)  # vLLM leaves threads


if __name__ == "__main__":
    tempfile.tempdir = os.environ["TMPDIR"]
    main(*sys.argv[1:3])
