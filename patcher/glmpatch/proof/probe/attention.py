"""A plain attention in the place of vLLM's, which needs compiled kernels and a paged cache.

What it is given it honours, or it refuses by name: an argument that is swallowed is a defect that
no number shows.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from typing import Any

from .language import N_


class NotHonoured(Exception):
    """The proof cannot take this argument into account, and does not pass what it cannot judge."""


TAKEN = (
    "num_heads",
    "head_size",
    "scale",
    "num_kv_heads",
    "alibi_slopes",
    "cache_config",
    "logits_soft_cap",
    "per_layer_sliding_window",
    "prefix",
    "attn_type",
)
CACHES = {
    "cache_dtype": ("auto",),
    "calculate_kv_scales": (False, None),
    "is_attention_free": (False, None),
}
"""Settings of the cache, and the values that change no number of a plain attention."""


def _attention() -> Any:
    """vLLM's own class; where it lies differs from release to release."""
    try:
        from vllm.attention import Attention
    except ImportError:
        from vllm.model_executor.layers.attention import Attention
    return Attention


@contextlib.contextmanager
def plain_attention() -> Any:
    """Every module of vLLM gets the plain attention, those too that are loaded in the block."""
    own = _attention()
    plain = make(own)
    _exchange(own, plain)
    try:
        yield
    finally:
        _exchange(plain, own)


def _exchange(old: Any, new: Any) -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("vllm.") and module is not None:
            for key, value in list(vars(module).items()):
                if value is old:
                    setattr(module, key, new)


def make(own: Any) -> Any:
    """The class that stands in for ``own``, called and built by the same signatures.

    Called with flat ``(tokens, heads * head_size)`` queries and ``(tokens, kv_heads * head_size)``
    keys and values of one sequence; returns ``(tokens, heads * head_size)``.
    """
    import torch

    building, calling = (inspect.signature(function) for function in (own.__init__, own.forward))
    variadic = {
        name
        for signature in (building, calling)
        for name, each in signature.parameters.items()
        if each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    }

    def arguments(signature: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As Python binds them, with defaults, and those of a ``**`` among them."""
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        found = dict(bound.arguments)
        for name in variadic & set(found):
            value = found.pop(name)
            found.update(value if isinstance(value, dict) else {name: value or None})
        return found

    class PlainAttention(torch.nn.Module):  # type: ignore[misc,unused-ignore]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__()
            given = arguments(building, self, *args, **kwargs)
            for name, value in given.items():
                if name not in TAKEN and name != "self":
                    _refuse_unless_idle(name, value)
            self.heads, self.head_size = given["num_heads"], given["head_size"]
            self.kv_heads = given.get("num_kv_heads") or self.heads
            if self.heads % self.kv_heads:
                raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} of keys")
            self.scale = given["scale"]
            self.cap = given.get("logits_soft_cap") or 0.0
            self.slopes = given.get("alibi_slopes")
            self.window = given.get("per_layer_sliding_window")
            cache = given.get("cache_config")
            if cache is not None:
                _check_cache(cache)
                if self.window is None:
                    self.window = getattr(cache, "sliding_window", None)
            kind = given.get("attn_type", "decoder")
            if kind not in ("decoder", "encoder_only"):
                raise NotHonoured(
                    N_(
                        "{given}: the proof's attention has none of that type",
                        given=f"attn_type={kind!r}",
                    )
                )
            self.causal = kind == "decoder"
            _register(given.get("prefix", ""), self)

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            given = arguments(calling, self, *args, **kwargs)
            given.pop("self")
            query, key, value = (given.pop(name) for name in ("query", "key", "value"))
            shape = given.pop("output_shape", None)
            if shape is not None and tuple(shape) != tuple(query.shape):
                raise NotHonoured(
                    N_(
                        "{given} of queries {shape}",
                        given=f"output_shape={tuple(shape)}",
                        shape=str(tuple(query.shape)),
                    )
                )
            for name, other in given.items():
                _refuse_unless_idle(name, other)
            tokens = query.shape[0]
            q = query.view(tokens, self.heads, self.head_size).transpose(0, 1)
            k, v = (
                x.view(tokens, self.kv_heads, self.head_size)
                .transpose(0, 1)
                .repeat_interleave(self.heads // self.kv_heads, dim=0)
                for x in (key, value)
            )
            out = self.attend(q, k, v)
            return out.transpose(0, 1).reshape(tokens, self.heads * self.head_size)

        def attend(self, q: Any, k: Any, v: Any) -> Any:
            """As a kernel does: scores and softmax in float32 at least, one rounding at the end."""
            wide = torch.promote_types(q.dtype, torch.float32)
            scores = (q.to(wide) @ k.to(wide).transpose(1, 2)) * self.scale
            if self.cap:
                scores = self.cap * torch.tanh(scores / self.cap)
            place = torch.arange(q.shape[1], device=q.device)
            distance = place[:, None] - place[None, :]
            if self.slopes is not None:
                slopes = torch.as_tensor(self.slopes, dtype=wide, device=q.device)
                scores = scores - slopes[:, None, None] * distance
            seen = distance >= 0 if self.causal else torch.ones_like(distance, dtype=torch.bool)
            if self.window is not None:
                seen = seen & (distance.abs() < self.window)
            weights = torch.softmax(scores.masked_fill(~seen, float("-inf")), dim=-1)
            return (weights.to(q.dtype).to(wide) @ v.to(wide)).to(q.dtype)

    return PlainAttention


def _refuse_unless_idle(name: str, value: Any) -> None:
    """None, False and nothing ask for nothing."""
    if value is None or value is False or (isinstance(value, (dict, list, tuple)) and not value):
        return
    given = f"{name}={value!r:.80}"
    raise NotHonoured(N_("{given}: the proof's attention cannot take it into account", given=given))


def _check_cache(cache: Any) -> None:
    for name, idle in CACHES.items():
        value = getattr(cache, name, idle[0])
        if value not in idle:
            given = f"cache_config.{name}={value!r}"
            raise NotHonoured(N_("{given}: the proof's attention has no such cache", given=given))


def _register(prefix: str, layer: Any) -> None:
    """By their names vLLM's engines bind the layers to their parts of the cache."""
    from vllm.config import get_current_vllm_config
    from vllm.model_executor.models.utils import extract_layer_index

    layers = get_current_vllm_config().compilation_config.static_forward_context
    if prefix in layers:
        raise ValueError(f"Duplicate layer name: {prefix}")
    layers[prefix] = layer
    extract_layer_index(prefix)
