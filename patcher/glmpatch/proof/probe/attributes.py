"""What the modules of a model keep beside their parameters: numbers, words and yes or no.

A loader of weights has no business with them. One that sets the factor of an attention or the
epsilon of a norm leaves every weight in its place, and the model computes something else.
"""

from __future__ import annotations

from typing import Any

PLAIN = (bool, int, float, complex, str, type(None))


def attributes(model: Any) -> dict[str, str]:
    """By the module's name and its own: each attribute that holds no more than plain values."""
    found = {}
    for module, each in model.named_modules():
        found[f"{module}:"] = type(each).__name__
        for name, value in vars(each).items():
            if _plain(value):
                found[f"{module}.{name}"] = repr(value)
    return found


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The names of those that are others, or gone, or new."""
    names = set(before) | set(after)
    return sorted(name for name in names if before.get(name) != after.get(name))


def _plain(value: Any) -> bool:
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_plain, value))
    if isinstance(value, dict):
        return all(_plain(key) and _plain(each) for key, each in value.items())
    return isinstance(value, PLAIN)
