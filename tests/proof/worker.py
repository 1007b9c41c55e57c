"""Asks a model file again and again, right and wrong, in other roundings and from other seeds.

``python worker.py REQUEST.json``, run by the interpreter that owns vLLM with the probe's own means;
writes one line of JSON for each question: what the probe would report, without its series.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import shutil
import sys
import types
from typing import Any

BLOCK = 16
DECODED = 8
"""The last tokens of a prompt, which an engine would have decoded one by one."""


def main(request_file: str) -> None:
    with open(request_file, encoding="utf-8") as stream:
        request = json.load(stream)
    module = runpy.run_path(request["probe"])["load"]("module")
    parts = {name: sys.modules[f"glmpatch_probe.{name}"] for name in ("attention", "compare")}
    sys.path.insert(0, request["root"])
    module.use_platform("cpu")
    import torch
    import vllm.model_executor.models.llama

    torch.set_num_threads(1)
    assert vllm
    state = State(module, parts["attention"])
    with open(request["out"], "a", encoding="utf-8") as out:
        for seed in request["seeds"]:
            for precision in request["precisions"]:
                proof = {**request["proof"], "seed": seed}
                checkpoint = module.open_checkpoint({"model": None}, proof, precision, "cpu")
                prompts = checkpoint.draw(proof["prompts"])
                yardstick = module.Yardstick(checkpoint, prompts)
                weights = {k: v.clone() for k, v in checkpoint.reference.state_dict().items()}
                known = parts["compare"].known(yardstick)
                for name, fault, rounding in asked(request, precision):
                    with state.set(fault, rounding):
                        changed = dict(alter(weights, fault["weights"]))
                        checkpoint.__dict__["reference"] = types.SimpleNamespace(
                            state_dict=lambda changed=changed: changed
                        )
                        file = {"id": name, "path": fault["path"]}
                        found = module.measure_file(
                            checkpoint, prompts, yardstick, proof, file, "out of place"
                        )
                    line = {**known, **found, "seed": seed, "rounding": rounding}
                    for long in ("series", "noise_series"):
                        line[long] = []
                    out.write(json.dumps({**line, "proof": "calibration"}) + "\n")
                    out.flush()
                shutil.rmtree(checkpoint.folder)
    sys.stdout.flush()
    os._exit(0)


def asked(request: Any, precision: str) -> Any:
    """What is asked in a precision: the right file in every rounding, each fault in some."""
    right = {"path": request["right"], "attention": None, "weights": [], "logits": 1.0}
    for rounding in request["roundings"]:
        yield "right", right, rounding
    # float32 sees every fault from far, whatever the rounding.
    for rounding in ["native"] if precision == "float32" else request["fault_roundings"]:
        for name, fault in request["faults"].items():
            yield name, fault, rounding


def alter(weights: Any, changes: Any) -> Any:
    """The weights as a wrong loader would have them."""
    import torch

    for name, weight in weights.items():
        for operation, part, *arguments in changes:
            if operation == "exchange":
                (other,) = arguments
                if part in name:
                    name = name.replace(part, other)
                elif other in name:
                    name = name.replace(other, part)
            elif part not in name:
                continue
            elif operation == "zero":
                weight = torch.zeros_like(weight)
            elif operation == "zero_at":
                dimension, place = arguments
                weight = weight.index_fill(dimension, torch.tensor([place]), 0)
            elif operation == "copy_row":
                source, target = arguments
                weight = weight.index_copy(0, torch.tensor([target]), weight[source : source + 1])
            elif operation == "scramble":
                weight = weight.t().reshape(weight.shape).clone()
            elif operation == "roll_half":
                weight = weight.roll(weight.shape[0] // 2, 0)
            else:
                raise ValueError(operation)
        yield name, weight


class State:
    """What is wrong, and how it is rounded, while one question is asked."""

    def __init__(self, module: Any, attention: Any) -> None:
        from vllm.model_executor.layers import activation, layernorm, rotary_embedding

        self.module, self.attention = module, attention
        self.norm, self.silu, self.rope = (
            layernorm.RMSNorm,
            activation.SiluAndMul,
            rotary_embedding,
        )
        self.fault: Any = None
        self.style = "native"
        own = attention.make
        state = self

        def make(attention_class: Any) -> Any:
            plain = own(attention_class)
            attend = plain.attend
            built = plain.__init__

            def init(layer: Any, *args: Any, **kwargs: Any) -> None:
                built(layer, *args, **kwargs)
                layer.index = int(kwargs["prefix"].split("layers.")[1].split(".")[0])

            def attend_wrongly(layer: Any, q: Any, k: Any, v: Any) -> Any:
                if state.fault is None and state.style == "native":
                    return attend(layer, q, k, v)
                return state.attend(layer, q, k, v)

            plain.__init__, plain.attend = init, attend_wrongly
            return plain

        attention.make = make

    @contextlib.contextmanager
    def set(self, fault: Any, rounding: str) -> Any:
        import torch

        kinds = rounding.split("+")
        self.fault = fault["attention"]
        self.style = next((each for each in ("flash", "eager") if each in kinds), "native")
        functional = torch.nn.functional
        kept = (
            self.norm.forward_native,
            self.silu.forward_native,
            self.rope._apply_rotary_emb,
            functional.linear,
            self.module.logprobs,
        )
        if "cuda" in kinds:
            self.norm.forward_native = norm_by_kernel
        if "fused" in kinds:
            self.norm.forward_native = norm_fused
            self.silu.forward_native = silu_fused
            self.rope._apply_rotary_emb = lambda x, cos, sin, neox: kept[2](
                x.float(), cos.float(), sin.float(), neox
            ).to(x.dtype)
        if "split" in kinds:
            functional.linear = split(functional.linear)
        if fault["logits"] != 1.0:
            self.module.logprobs = lambda logits: kept[4](logits * fault["logits"])
        try:
            yield
        finally:
            (
                self.norm.forward_native,
                self.silu.forward_native,
                self.rope._apply_rotary_emb,
                functional.linear,
                self.module.logprobs,
            ) = kept
            self.fault, self.style = None, "native"

    def attend(self, layer: Any, q: Any, k: Any, v: Any) -> Any:
        """A kernel that is wrong in one way, or rounds in another."""
        import torch

        name: str
        argument: Any
        name, argument = self.fault or ("", None)
        here = argument is None or layer.index == argument
        tokens, times = q.shape[1], layer.heads // layer.kv_heads
        decoded = max(1, tokens - DECODED)
        if name == "shared" and here:
            k, v = (x[::times].repeat(times, 1, 1) for x in (k, v))
        seen = torch.ones(tokens, tokens, dtype=torch.bool).tril()
        if name == "peek_one" and here and tokens > 8:
            seen[5, 6] = True
        if name == "peek_all" and here:
            seen = torch.ones(tokens, tokens, dtype=torch.bool).tril(1)
        if name == "no_mask":
            seen[:] = True
        if name == "window":
            seen &= ~torch.ones(tokens, tokens, dtype=torch.bool).tril(-argument)
        if name == "lost_newest":
            for place in range(decoded, tokens):
                seen[place, place - 1] = False
        if name == "lost_first":
            seen[1:, 0] = False
        if name == "lost_key":
            seen[argument + 1 :, argument : argument + 1] = False
        places = torch.arange(tokens)
        if name == "wrong_block" and tokens > 3 * BLOCK:
            places[2 * BLOCK : 3 * BLOCK] -= BLOCK
        if name == "wrong_value" and tokens > 20:
            v = v.clone()
            v[:, 17] = v[:, 16]
        out = self.weigh(layer, q, k[:, places], v[:, places], seen)
        if name == "wrong_first_block" and tokens > 2 * BLOCK:
            places[:BLOCK] += BLOCK
            wrong = self.weigh(layer, q, k[:, places], v[:, places], seen)
            out = torch.cat([out[:, :decoded], wrong[:, decoded:]], 1)
        return out

    def weigh(self, layer: Any, q: Any, k: Any, v: Any, seen: Any) -> Any:
        import torch

        if self.style == "flash":
            scores = (q.float() @ k.float().transpose(1, 2)) * layer.scale
            scores = scores.masked_fill(~seen, float("-inf"))
            parts = torch.exp(scores - scores.amax(-1, keepdim=True))
            return ((parts.to(q.dtype).float() @ v.float()) / parts.sum(-1, keepdim=True)).to(
                q.dtype
            )
        if self.style == "eager":
            scores = (q @ k.transpose(1, 2)) * layer.scale
            scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
            return torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype) @ v
        return torch.nn.functional.scaled_dot_product_attention(
            q[None], k[None], v[None], attn_mask=seen[None, None], scale=layer.scale
        )[0]


def norm_by_kernel(self: Any, x: Any, residual: Any = None) -> Any:
    """As vLLM's CUDA kernel rounds: the sum, and the norm before its weight."""
    import torch

    if residual is not None:
        x = residual = x + residual
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    normed = wide.to(x.dtype) * self.weight
    return normed if residual is None else (normed, residual)


def norm_fused(self: Any, x: Any, residual: Any = None) -> Any:
    """As a compiler fuses it: one rounding, at the end."""
    import torch

    dtype, wide = x.dtype, x.float()
    if residual is not None:
        wide = wide + residual.float()
        residual = wide.to(dtype)
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    normed = (wide * self.weight.float()).to(dtype)
    return normed if residual is None else (normed, residual)


def silu_fused(self: Any, x: Any) -> Any:
    import torch

    half = x.shape[-1] // 2
    gate, up = x[..., :half].float(), x[..., half:].float()
    return (torch.nn.functional.silu(gate) * up).to(x.dtype)


def split(linear: Any) -> Any:
    """Tensor parallel, or split-K: two partial sums are rounded, then added."""

    def halves(x: Any, weight: Any, bias: Any = None) -> Any:
        half = weight.shape[1] // 2
        first = linear(x[..., :half], weight[:, :half], bias)
        return first + linear(x[..., half:], weight[:, half:])

    return halves


if __name__ == "__main__":
    main(sys.argv[1])
