"""How a measurement ends when it does not end in numbers."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from typing import Any


class CannotRun(Exception):
    """The measurement itself is not possible here; it says nothing about the model file."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.reason, self.hint = reason, hint


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as data, with the innermost place in vLLM."""
    root = error
    if type(error).__module__.startswith("torch._dynamo"):
        # The compiler wraps, more than once, what the model raised while it was traced.
        while root.__cause__ or root.__context__:
            root = root.__cause__ or root.__context__ or root
    frames = [f for e in (error, root) for f in traceback.extract_tb(e.__traceback__)]
    places = [f"{f.filename}:{f.lineno}" for f in frames if f"{os.sep}vllm{os.sep}" in f.filename]
    return {
        "type": type(root).__name__,
        "message": str(root)[:2000],
        "place": places[-1] if places else None,
        "traceback": "".join(traceback.format_exception(type(error), error, error.__traceback__)),
    }


@contextlib.contextmanager
def importing_vllm() -> Any:
    """Which file of vLLM does not import is the message's business; nothing was measured."""
    try:
        yield
    except Exception as error:
        raise CannotRun(
            f"vLLM itself cannot be imported: {type(error).__name__}: {error}",
            "look at the environment of vLLM: python -c 'import vllm'",
        ) from error


def check_root(root: str) -> None:
    """The vLLM that was imported must be the one that is to be proven."""
    found = os.path.dirname(os.path.dirname(os.path.abspath(sys.modules["vllm"].__file__ or "")))
    if os.path.realpath(found) != os.path.realpath(root):
        raise CannotRun(
            f"{sys.executable} imports the vLLM in {found}, not the one in {root}",
            "name the interpreter of that environment with --python",
        )


class Steps:
    """What the probe is doing, one line a step, for whoever waits for it."""

    def __init__(self, path: str, since: float) -> None:
        self.path, self.since = path, since

    def __call__(self, text: str) -> None:
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(f"{time.time() - self.since:.1f} {text}\n")
