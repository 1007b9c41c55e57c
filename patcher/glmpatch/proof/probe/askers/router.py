"""Asks a mixture of experts which experts it chooses, in bfloat16, and counts where it is right.

The module is built by the file's own ``__init__`` and runs by its own ``forward`` up to the
experts; which of them the logits and the correction mean is computed as vLLM does it, in the
precision that they come in. Right are the experts that float64 chooses from the same numbers.
Whatever else the experts are given must be GLM's, and is an error otherwise.

A question: ``class``, ``config``, ``tokens`` (how many), ``seed``, ``spread`` (of the logits) and
``corrections`` (least and greatest). An answer: how many tokens get all the right experts.
"""

from __future__ import annotations

import contextlib
import types
from typing import Any
from unittest import mock

from . import attempt, candidate
from .weight_names import stand_ins


def answer(module: str, path: str | None, questions: list[Any]) -> list[Any]:
    with candidate(module, path) as loaded:
        return [attempt(lambda asked: _ask(loaded, asked), each) for each in questions]


class _Reached(Exception):
    """The experts were reached, with these logits."""

    def __init__(self, logits: Any, correction: Any) -> None:
        super().__init__("the experts were reached")
        self.logits, self.correction = logits, correction


def _ask(loaded: Any, question: dict[str, Any]) -> int:
    import torch

    config = types.SimpleNamespace(**question["config"])
    draw = torch.Generator().manual_seed(question["seed"])
    low, high = question["corrections"]
    size, experts = config.hidden_size, config.n_routed_experts
    weight = (
        torch.randn(experts, size, generator=draw) * question["spread"] / size**0.5
    ).bfloat16()
    correction = low + (high - low) * torch.rand(experts, generator=draw)
    hidden = torch.randn(question["tokens"], size, generator=draw).bfloat16()
    with _computing(loaded, config), torch.inference_mode():
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            moe = getattr(loaded, question["class"])(config=config, prefix="model.layers.1.mlp")
        finally:
            torch.set_default_dtype(default)
        moe.gate.weight.copy_(weight)
        moe.gate.e_score_correction_bias.copy_(correction)
        try:
            moe(hidden)
        except _Reached as reached:
            chosen = _choose(reached.logits, reached.correction, config.num_experts_per_tok)
        else:
            raise ValueError("the experts were never asked")
    logits = hidden.double() @ weight.double().T
    right = _choose(logits, correction.double(), config.num_experts_per_tok)
    return int((chosen == right).all(dim=-1).sum())


def _choose(logits: Any, correction: Any, number: int) -> Any:
    """The chosen experts of each token, ordered: vLLM's ``grouped_topk`` with one group."""
    return (logits.sigmoid() + correction).topk(number, dim=-1).indices.sort(dim=-1).values


def _check(given: dict[str, Any], config: Any) -> None:
    """Refuses experts that would choose, weigh or sum otherwise than GLM's do."""
    import torch

    needed = {
        "num_experts": config.n_routed_experts,
        "top_k": config.num_experts_per_tok,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.moe_intermediate_size,
        "renormalize": config.norm_topk_prob,
        "use_grouped_topk": True,
        "num_expert_group": config.n_group,
        "topk_group": config.topk_group,
        "scoring_func": "sigmoid",
    }
    allowed: dict[str, tuple[Any, ...]] = {
        "reduce_results": (False,),
        "quant_config": (None,),
        "prefix": ("model.layers.1.mlp.experts",),
        "enable_eplb": (False,),
        "num_redundant_experts": (0,),
        "shared_experts": (None,),
        "routed_scaling_factor": (1.0, config.routed_scaling_factor),
        "apply_routed_scale_to_output": (False, True),
        "router_logits_dtype": (None, torch.float32),
        **{name: (value,) for name, value in needed.items()},
    }
    for name in (*needed, *given):
        # What is not given has vLLM's default, which is not GLM's.
        value = given.get(name, "no value")
        if not any(value == each and type(value) is type(each) for each in allowed.get(name, ())):
            raise ValueError(f"the experts are given {name}={value!r}")


@contextlib.contextmanager
def _computing(loaded: Any, config: Any) -> Any:
    """A gate that computes, and experts that stop at the question of which of them to take."""
    import torch

    class Linear(torch.nn.Linear):  # type: ignore[misc,unused-ignore]
        def __init__(self, size: int, outputs: int, bias: bool = True, **given: Any) -> None:
            super().__init__(size, outputs, bias=bias)

        def forward(self, x: Any) -> Any:
            return super().forward(x), None

    class Experts(torch.nn.Module):  # type: ignore[misc,unused-ignore]
        def __init__(self, *, e_score_correction_bias: Any, **given: Any) -> None:
            super().__init__()
            _check(given, config)
            self.correction = e_score_correction_bias

        def forward(self, hidden_states: Any, router_logits: Any) -> Any:
            raise _Reached(router_logits, self.correction)

        def must_reduce_shared_expert_outputs(self) -> bool:
            return False

    with stand_ins(), contextlib.ExitStack() as stack:
        for name, stand_in in (
            ("ReplicatedLinear", Linear),
            ("FusedMoE", Experts),
            ("SharedFusedMoE", Experts),
        ):
            if hasattr(loaded, name):
                stack.enter_context(mock.patch.object(loaded, name, stand_in))
        yield
