"""Named faults, made in Transformers' own model: what would each do to the numbers?

Each is smaller than the noise of a low precision at any one number, and is found by its pattern
over all of them (the projection in ``compare.py``).
"""

from __future__ import annotations

import contextlib
from typing import Any

ATTENTION, EPSILON, THETA, LOGITS = 1.05, 2.0, 1.01, 1.05


@contextlib.contextmanager
def _scaled(model: Any, names: tuple[str, ...], factor: float) -> Any:
    """These attributes of all modules times ``factor``; yields None where no module has any."""
    found = [
        (module, name, vars(module)[name])
        for module in model.modules()
        for name in names
        if isinstance(vars(module).get(name), float)
    ]
    for module, name, value in found:
        setattr(module, name, value * factor)
    try:
        yield 1.0 if found else None
    finally:
        for module, name, value in found:
            setattr(module, name, value)


def attention_scale(model: Any) -> Any:
    return _scaled(model, ("scaling",), ATTENTION)


def epsilon(model: Any) -> Any:
    return _scaled(model, ("variance_epsilon",), EPSILON)


@contextlib.contextmanager
def theta(model: Any) -> Any:
    """The rope's frequencies are theta to the power of -k/n, for k of n pairs."""
    import torch

    found = [
        (module, module.inv_freq)
        for module in model.modules()
        if isinstance(vars(module).get("_buffers", {}).get("inv_freq"), torch.Tensor)
    ]
    for module, right in found:
        share = torch.arange(len(right), dtype=right.dtype, device=right.device) / len(right)
        module.inv_freq = right * THETA**-share
    try:
        yield 1.0 if found else None
    finally:
        for module, right in found:
            module.inv_freq = right


@contextlib.contextmanager
def logits(model: Any) -> Any:
    yield LOGITS


FAULTS = {
    f"attention scale x{ATTENTION}": attention_scale,
    f"epsilon x{EPSILON:.0f}": epsilon,
    f"theta x{THETA}": theta,
    f"logits x{LOGITS}": logits,
}
"""Name -> makes the fault in a model, and gives what to multiply the logits by; None where the
model has nothing of the kind."""
