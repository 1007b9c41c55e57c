"""A model in a precision that it has no room for as a whole: one layer at a time."""

from __future__ import annotations

import contextlib
from typing import Any


@contextlib.contextmanager
def converted(model: Any, precision: str, device: str) -> Any:
    """While the block runs, ``model`` computes on ``device`` in ``precision``.

    Its weights stay what and where they are. Those of each module are converted and moved just
    before it runs, and put back just after it; the numbers are those of a model converted whole.
    """
    import torch

    dtype = getattr(torch, precision)
    for buffer in model.buffers():
        buffer.data = buffer.data.to(device)
    kept: dict[int, list[Any]] = {}

    def before(module: Any, *_: Any) -> None:
        own = list(module.parameters(recurse=False))
        kept[id(module)] = [weight.data for weight in own]
        for weight in own:
            weight.data = weight.data.to(device=device, dtype=dtype)

    def after(module: Any, *_: Any) -> None:
        for weight, data in zip(module.parameters(recurse=False), kept.pop(id(module))):
            weight.data = data

    holders = [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None]
    hooks = [m.register_forward_pre_hook(before) for m in holders]
    hooks += [m.register_forward_hook(after, always_call=True) for m in holders]
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()
