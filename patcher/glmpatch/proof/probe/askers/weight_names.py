"""Loads a described checkpoint by a model file's own ``load_weights`` and tells what went where.

The model is built by the file's own ``__init__``, of layers that only hold parameters: each
parameter is named as vLLM's layer of that quantization names it and records what is loaded into it.
The scales of the KV cache are vLLM's own parameters.

A question: ``class``, ``config`` (its attributes), ``scheme`` (the parameters of a quantized layer;
``["weight"]`` for none), ``cache_scales`` (whether the attention has scales), ``stage`` (which one
of how many the pipeline has; the layers of the others are missing) and ``tensors``, each a name, a
shape and the number that it begins with (``contents``). An answer: ``empty``, the parameters that
hold nothing; ``values``, what lies in each place (``a.qkv_proj.weight[k]``,
``a.experts.w2_weight[0.w2]``): where it begins, its shape and its precision; and ``changed``, what
else of the model is not as it was before its weights were loaded. Without quantization a parameter
that ``load_weights`` does not name is an error, as it is in vLLM's model loader.
"""

from __future__ import annotations

import contextlib
import sys
import types
from typing import Any
from unittest import mock

from .. import contents
from ..attributes import attributes, changed
from . import attempt, candidate

MODELS = "vllm.model_executor.models."
UNUSED_SCALES = ("q_scale", "prob_scale")
"""Parameters of vLLM's attention that these checkpoints hold nothing for."""
UNTOUCHED = 0.5
"""What a recorder itself holds: it takes all by its loader, and who writes here goes past it."""
MISSING = "_model_to_pp_missing_layer_names"
"""Where vLLM remembers the missing layers of a model by its ``id``, which the next one may have."""


def answer(module: str, path: str | None, questions: list[Any]) -> list[Any]:
    with candidate(module, path) as loaded:
        return [attempt(lambda asked: _ask(loaded, asked), each) for each in questions]


def _ask(loaded: Any, question: dict[str, Any]) -> dict[str, Any]:
    config = _config(question)
    with stand_ins(*question["stage"]):
        model = getattr(loaded, question["class"])(vllm_config=config, prefix="")
        for name, each in model.named_parameters():
            if not name.endswith("_scale") and not _is_recorder(each):
                each.data.fill_(float("nan"))
        tensors = [
            (name, contents.made(first, shape)) for name, shape, first in question["tensors"]
        ]
        before = _beside(model, config)
        named = model.load_weights(iter(tensors))
        after = _beside(model, config)
    parameters = dict(model.named_parameters())
    if question["scheme"] == ["weight"]:
        missing = set(parameters) - set(named or ()) if named is not None else set()
        missing = {name for name in missing if not name.endswith("_scale")}
        if missing:
            raise ValueError(
                f"Following weights were not initialized from checkpoint: {sorted(missing)}"
            )
    return {**_found(parameters), "changed": changed(before, after)}


def _beside(model: Any, config: Any) -> dict[str, str]:
    """All that loading must leave as it is."""
    settings = {f"config.{name}": repr(value) for name, value in vars(config.hf).items()}
    recorders = {
        name: str(each.data.tolist())
        for name, each in model.named_parameters()
        if _is_recorder(each)
    }
    return {**attributes(model), **settings, **recorders}


def _found(parameters: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    empty = []
    for name, each in parameters.items():
        name = name.replace(".routed_experts.", ".")
        held = _held(each)
        values.update({f"{name}{shard}": value for shard, value in held.items()})
        if not held and not name.endswith(UNUSED_SCALES):
            empty.append(name)
    return {"empty": sorted(empty), "values": values}


def _held(parameter: Any) -> dict[str, Any]:
    """By shard: what a parameter holds; nothing where nothing was loaded."""
    if _is_recorder(parameter):
        return dict(parameter.loads)
    if any(value != value or value == -1.0 for value in parameter.data.flatten().tolist()):
        return {}
    return {"": contents.told(parameter.data)}


def _is_recorder(parameter: Any) -> bool:
    return hasattr(parameter, "loads")


def _config(question: dict[str, Any]) -> Any:
    config = types.SimpleNamespace(**question["config"])
    config.text_config = config
    model = types.SimpleNamespace(
        hf_config=config, hf_text_config=config, dtype=None, is_encoder_decoder=False
    )
    parallel = types.SimpleNamespace(
        enable_eplb=False,
        num_redundant_experts=0,
        eplb_config=types.SimpleNamespace(num_redundant_experts=0),
        pipeline_parallel_size=question["stage"][1],
        tensor_parallel_size=1,
    )
    scheme = _scheme(question["scheme"]) if question["scheme"] != ["weight"] else None
    return types.SimpleNamespace(
        hf=config,
        model_config=model,
        cache_config=Scales() if question["cache_scales"] else None,
        quant_config=scheme,
        parallel_config=parallel,
        speculative_config=types.SimpleNamespace(draft_model_config=model),
        compilation_config=types.SimpleNamespace(level=0, mode=0),
        lora_config=None,
    )


def _scheme(parameters: list[str]) -> Any:
    """A quantization whose layers have these parameters; all else of it is vLLM's own."""
    from vllm.model_executor.layers.quantization.base_config import QuantizationConfig

    methods = dict.fromkeys(QuantizationConfig.__abstractmethods__, lambda *_: None)
    scheme = type("Scheme", (QuantizationConfig,), methods)()
    scheme.parameters = parameters
    return scheme


class Scales:
    """In the place of a cache's configuration: its attention has scales."""

    cache_dtype = "fp8"


@contextlib.contextmanager
def stand_ins(stage: int = 0, stages: int = 1) -> Any:
    """Layers that only hold parameters, in every model file that was imported."""
    found = _layers(stage, stages)
    # Files of the family build on each other, and a name is looked up where it was imported to.
    with contextlib.ExitStack() as stack:
        utils = sys.modules.get(f"{MODELS}utils")
        if hasattr(utils, MISSING):
            stack.enter_context(mock.patch.object(utils, MISSING, {}))
        for name, file in list(sys.modules.items()):
            if name.startswith(MODELS) and file is not None:
                for each in set(found) & set(vars(file)):
                    stack.enter_context(mock.patch.object(file, each, found[each]))
        yield


def _recorder(load: Any) -> Any:
    import torch

    parameter = torch.nn.Parameter(torch.tensor([UNTOUCHED]), requires_grad=False)
    parameter.loads = {}
    parameter.weight_loader = load
    return parameter


def _load(parameter: Any, tensor: Any) -> None:
    parameter.loads[""] = contents.told(tensor)


def _load_shard(parameter: Any, tensor: Any, shard: Any = None) -> None:
    parameter.loads["" if shard is None else f"[{shard}]"] = contents.told(tensor)


def _load_expert(
    parameter: Any,
    tensor: Any,
    name: str,
    shard_id: str,
    expert_id: int,
    return_success: bool = False,
) -> bool | None:
    parameter.loads[f"[{expert_id}.{shard_id}]"] = contents.told(tensor)
    return True if return_success else None


def _layers(stage: int, stages: int) -> dict[str, Any]:
    """By the name in vLLM: what stands in its place."""
    import torch

    class Layer(torch.nn.Module):  # type: ignore[misc,unused-ignore]
        names: tuple[str, ...] = ("weight",)
        quantized = False
        load: Any = staticmethod(_load)

        def __init__(self, *sizes: Any, bias: bool = True, **given: Any) -> None:
            super().__init__()
            scheme = given.get("quant_config") if self.quantized else None
            for name in scheme.parameters if scheme else ["weight"]:
                self.register_parameter(name, _recorder(type(self).load))
            if bias and self.quantized:
                self.bias = _recorder(type(self).load)

    class Plain(Layer):
        quantized = True

    class Stacked(Layer):
        quantized = True
        load = staticmethod(_load_shard)

    class Norm(torch.nn.Module):  # type: ignore[misc,unused-ignore]
        def __init__(self, hidden_size: int, eps: float = 1e-6, **given: Any) -> None:
            super().__init__()
            self.variance_epsilon = eps
            self.weight = torch.nn.Parameter(torch.empty(hidden_size), requires_grad=False)

    class Nothing(torch.nn.Module):  # type: ignore[misc,unused-ignore]
        def __init__(self, *sizes: Any, **given: Any) -> None:
            super().__init__()

    class Attention(torch.nn.Module):  # type: ignore[misc,unused-ignore]
        def __init__(self, *sizes: Any, cache_config: Any = None, **given: Any) -> None:
            super().__init__()
            if cache_config is not None:
                from vllm.model_executor.layers.quantization.kv_cache import BaseKVCacheMethod

                BaseKVCacheMethod(given.get("quant_config")).create_weights(self)

    class Experts(torch.nn.Module):  # type: ignore[misc,unused-ignore]
        def __init__(self, *sizes: Any, quant_config: Any = None, **given: Any) -> None:
            super().__init__()
            holder: Any = self
            if "routed_experts" in _prefix():
                holder = self.routed_experts = torch.nn.Module()
            for name in quant_config.parameters if quant_config else ["weight"]:
                for part in ("w13", "w2"):
                    holder.register_parameter(f"{part}_{name}", _recorder(_load_expert))

        def must_reduce_shared_expert_outputs(self) -> bool:
            return False

        @staticmethod
        def make_expert_params_mapping(*given: Any, **named: Any) -> Any:
            return _own("FusedMoE").make_expert_params_mapping(*given, **named)

    alone = types.SimpleNamespace(
        rank_in_group=0,
        world_size=1,
        device_group=types.SimpleNamespace(rank=lambda: 0, size=lambda: 1),
    )
    group = types.SimpleNamespace(
        is_first_rank=stage == 0,
        is_last_rank=stage == stages - 1,
        rank_in_group=stage,
        world_size=stages,
    )

    def make_layers(number: int, layer: Any, prefix: str) -> Any:
        first, last = _own_layers(number, stage, stages)
        made = [
            layer(prefix=f"{prefix}.{i}") if first <= i < last else _missing_layer()
            for i in range(number)
        ]
        return first, last, torch.nn.ModuleList(made)

    plain = ("ReplicatedLinear", "ColumnParallelLinear", "RowParallelLinear")
    return {
        **dict.fromkeys(plain, Plain),
        **dict.fromkeys(("QKVParallelLinear", "MergedColumnParallelLinear"), Stacked),
        **dict.fromkeys(("VocabParallelEmbedding", "ParallelLMHead"), Layer),
        **dict.fromkeys(("FusedMoE", "SharedFusedMoE"), Experts),
        **dict.fromkeys(("SiluAndMul", "LogitsProcessor"), Nothing),
        "RMSNorm": Norm,
        "Attention": Attention,
        "get_rope": lambda *sizes, **given: None,
        "get_tensor_model_parallel_world_size": lambda: 1,
        "get_tensor_model_parallel_rank": lambda: 0,
        "get_pp_group": lambda: group,
        "get_ep_group": lambda: alone,
        "get_current_vllm_config": lambda: _config(
            {
                "config": {},
                "scheme": ["weight"],
                "cache_scales": False,
                "stage": [stage, stages],
            }
        ),
        "make_layers": make_layers,
    }


def _own_layers(number: int, stage: int, stages: int) -> Any:
    """The first of a stage's layers, and the first after them, as vLLM deals them out."""
    from vllm.distributed.utils import get_pp_indices

    return get_pp_indices(number, stage, stages)


def _missing_layer() -> Any:
    """What vLLM puts in the place of another stage's layer."""
    from vllm.model_executor.models.utils import PPMissingLayer

    return PPMissingLayer()


def _own(name: str) -> Any:
    import vllm.model_executor.layers.fused_moe as fused_moe

    return getattr(fused_moe, name)


def _prefix() -> str:
    """How vLLM's mapping of the experts' names calls their parameters."""
    import torch

    names = ("gate_proj", "down_proj", "up_proj")
    make = getattr(_own("FusedMoE"), "make_expert_params_mapping", None)
    make = make or _own("fused_moe_make_expert_params_mapping")
    try:
        mapping = make(torch.nn.Module(), *names, num_experts=1)
    except TypeError:  # before 0.14.0 it is not given the model
        mapping = make(*names, num_experts=1)
    return str(mapping[0][0])
