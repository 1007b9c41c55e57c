"""What vLLM sees of the GPUs, and which classes it serves by V0 alone; in a process of its own.

Usage: ``python __main__.py facts ORDER.json`` (written by ``engine.py``). Asking for free memory
opens the GPU, which the engines that follow want to be alone on.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
from typing import Any

from .choose import Device
from .finder import name_file
from .language import N_, packed
from .outcome import CannotRun, check_root, importing_vllm

V0_ONLY = 77
"""Exit status of the fork that found that mark."""


def main(order_file: str) -> None:
    with open(order_file, encoding="utf-8") as stream:
        order = json.load(stream)
    try:
        answer = gather(order)
    except CannotRun as error:
        answer = {"cannot": {"reason": error.reason, "hint": error.hint}}
    with open(order["answers"], "w", encoding="utf-8") as stream:
        json.dump(packed(answer), stream)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def gather(order: dict[str, Any]) -> dict[str, Any]:
    """Device, and for each file whether its class is for V0 alone."""
    with importing_vllm():
        import vllm  # noqa: F401
    check_root(order["root"])
    # In this order: asking for memory opens the GPU, and no fork can use it then.
    only = [v0_only(order["listing"], **each) for each in order["files"]]
    return {"device": dataclasses.asdict(device()), "v0_only": only}


def device() -> Device:
    """The GPUs by vLLM's own platform; of several, the memory of the one with least free."""
    import torch
    from vllm.platforms import current_platform

    if not (current_platform.is_cuda() or current_platform.is_rocm()):
        raise CannotRun(
            N_(
                "torch {version} finds a GPU and vLLM finds none that it knows",
                version=torch.__version__,
            ),
            N_(
                "look at what vLLM says: {command}",
                command="python -c 'from vllm.platforms import current_platform'",
            ),
        )
    capability = current_platform.get_device_capability()
    count = torch.cuda.device_count()
    free, total = min(torch.cuda.mem_get_info(number) for number in range(count))
    return Device(
        kind="cuda",
        name=current_platform.get_device_name(),
        capability=(capability.major, capability.minor),
        amd=current_platform.is_rocm(),
        count=count,
        free=free,
        total=total,
    )


def v0_only(listing: str, module: str, architecture: str, path: str | None) -> bool:
    """Whether the class in this file is for V0 alone; False where it cannot be looked at.

    In a fork, since a file may kill the process that imports it: the engine says what is wrong
    with such a file.
    """
    process = os.fork()
    if process == 0:
        os._exit(V0_ONLY if _v0_only(listing, module, architecture, path) else 0)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status) == V0_ONLY


def _v0_only(listing: str, module: str, architecture: str, path: str | None) -> bool:
    try:
        from vllm.model_executor.models.interfaces import supports_v0_only
    except ImportError:
        return False  # older than that mark, or newer than V0
    name_file(listing, module, path)
    sys.modules.pop(module, None)
    try:
        return bool(supports_v0_only(getattr(importlib.import_module(module), architecture)))
    except BaseException:
        return False
