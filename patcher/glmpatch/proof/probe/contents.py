"""Tensors whose every number is told from every other, and what a tensor holds, in few words.

A tensor that is all one number looks the same after its rows were turned round, or its halves
exchanged. So each holds a row of numbers, ``STEP`` apart, and what is told of one is where its row
begins, its shape and its precision; the numbers themselves, where they are no such row.
"""

from __future__ import annotations

from typing import Any

STEP = 2.0
"""Odd numbers from 4097 on are none of float16's, so that a detour through it shows."""
SHOWN = 8
"""How many numbers are told of a tensor that is no row."""


def made(first: float, shape: list[int]) -> Any:
    """The tensor of this shape that begins with this number."""
    import torch

    size = 1
    for each in shape:
        size *= each
    return torch.tensor(_row(first, size), dtype=torch.float32).reshape(shape)


def told(tensor: Any) -> list[Any]:
    """Where its row begins, its shape and its precision."""
    held = tensor.detach().flatten().tolist()
    begins = held and held == _row(held[0], len(held))
    precision = str(tensor.dtype).rpartition(".")[2]
    return [held[0] if begins else held[:SHOWN], list(tensor.shape), precision]


def _row(first: float, size: int) -> list[float]:
    return [first + STEP * number for number in range(size)]
