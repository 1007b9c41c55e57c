"""How a measurement ends when it does not end in numbers."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from typing import Any

from .language import N_, Message, packed


class CannotRun(Exception):
    """The measurement itself is not possible here; it says nothing about the model file.

    Reason and hint are messages (``language.py``), as is whatever else a user reads.
    """

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
    told = root.args[0] if root.args else None
    frames = [f for e in (error, root) for f in traceback.extract_tb(e.__traceback__)]
    places = [f"{f.filename}:{f.lineno}" for f in frames if f"{os.sep}vllm{os.sep}" in f.filename]
    return {
        "type": type(root).__name__,
        "message": told if isinstance(told, Message) else str(root)[:2000],
        "place": places[-1] if places else None,
        "traceback": "".join(traceback.format_exception(type(error), error, error.__traceback__)),
    }


LOOK = N_("look at the environment of vLLM: {command}", command="python -c 'import vllm'")


@contextlib.contextmanager
def importing_vllm() -> Any:
    """Which file of vLLM does not import is the message's business; nothing was measured."""
    try:
        yield
    except Exception as error:
        raise CannotRun(
            N_("vLLM itself cannot be imported: {error}", error=f"{type(error).__name__}: {error}"),
            LOOK,
        ) from error


def check_root(root: str) -> None:
    """The vLLM that was imported must be the one that is to be proven."""
    found = os.path.dirname(os.path.dirname(os.path.abspath(sys.modules["vllm"].__file__ or "")))
    if os.path.realpath(found) != os.path.realpath(root):
        raise CannotRun(
            N_(
                "{python} imports the vLLM in {found}, not the one in {root}",
                python=sys.executable,
                found=found,
                root=root,
            ),
            N_("name the interpreter of that environment with --python"),
        )


class Steps:
    """What the probe is doing, one line a step, for whoever waits for it."""

    def __init__(self, path: str, since: float) -> None:
        self.path, self.since = path, since

    def __call__(self, text: str) -> None:
        with open(self.path, "a", encoding="utf-8") as stream:
            seconds = round(time.time() - self.since, 1)
            stream.write(json.dumps([seconds, packed(text)]) + "\n")


@contextlib.contextmanager
def asking(request: dict[str, Any], proof: str, file: str) -> Any:
    """While the block runs, it is written down which file is asked: should that file kill this
    process, it is known by name."""
    with open(request["asked"], "w", encoding="utf-8") as stream:
        json.dump({"proof": proof, "file": file}, stream)
    try:
        yield
    finally:
        os.unlink(request["asked"])
