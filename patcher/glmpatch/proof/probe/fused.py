"""The ways in which vLLM's fused operators may leave their results.

In plain PyTorch, and compiled, they are new tensors. The kernels overwrite what they are given and
return the same objects. A file must be right in both.
"""

from __future__ import annotations

import contextlib
from typing import Any

from .language import N_

OUT_OF_PLACE, IN_PLACE = N_("out of place"), N_("in place")
WAYS = (OUT_OF_PLACE, IN_PLACE)


@contextlib.contextmanager
def leaving(way: str) -> Any:
    """Models that are built in the block have operators that leave their results in that way."""
    from vllm.model_executor.layers.layernorm import RMSNorm
    from vllm.model_executor.layers.rotary_embedding import RotaryEmbedding

    own = RMSNorm.forward_native, RotaryEmbedding.forward_native
    if way == IN_PLACE:
        RMSNorm.forward_native = _norm(own[0])
        RotaryEmbedding.forward_native = _rotation(own[1])
    try:
        yield
    finally:
        RMSNorm.forward_native, RotaryEmbedding.forward_native = own


def _norm(native: Any) -> Any:
    """vLLM's ``fused_add_rms_norm``: hidden states and residual are overwritten.

    A kernel reads all that it is given as numbers of one type, where plain PyTorch converts.
    """

    def forward_native(self: Any, x: Any, residual: Any = None, *more: Any, **others: Any) -> Any:
        for other in (residual, getattr(self, "weight", None)):
            if other is not None and other.dtype != x.dtype:
                raise TypeError(f"the norm's kernel is given {x.dtype} and {other.dtype}")
        if residual is None:
            return native(self, x, None, *more, **others)
        normed, added = native(self, x, residual, *more, **others)
        x.copy_(normed)
        residual.copy_(added)
        return x, residual

    return forward_native


def _rotation(native: Any) -> Any:
    """vLLM's ``rotary_embedding``: queries and keys are overwritten."""

    def forward_native(
        self: Any, positions: Any, query: Any, key: Any = None, *more: Any, **others: Any
    ) -> Any:
        rotated = native(self, positions, query, key, *more, **others)
        for old, new in zip((query, key), rotated):
            if old is not None:
                old.copy_(new)
        return query, key

    return forward_native
