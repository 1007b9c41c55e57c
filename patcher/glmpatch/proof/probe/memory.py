"""Where the reference of a large checkpoint has room, known before anything is loaded."""

from __future__ import annotations

import contextlib
from typing import Any

from .choose import GIB, NEEDED, WIDTH, Device
from .language import N_
from .outcome import CannotRun

ABOVE = {"float32": 8, "bfloat16": 4}
"""Tested precision -> bytes of one number of the reference, which is one precision above it."""
SPARE = 2 * GIB
"""Bytes of the machine's memory that are left to everything else: vLLM is imported there."""


def by_layers(parameters: int, precision: str, device: Device, available: int) -> bool:
    """Whether the reference must be computed layer by layer, since it has no room as a whole.

    Transformers loads the checkpoint into the machine's memory, in the precision that is tested,
    and converts it there or on the GPU to the one above it. Layer by layer, one layer at a time is
    converted, and no more room is needed than what was loaded takes.

    Args:
        parameters: how many numbers the checkpoint holds.
        precision: the tested one.
        device: where the reference is computed.
        available: bytes of the machine's memory that are free to be used.

    Raises:
        CannotRun: there is no room even so.
    """
    loaded, whole = parameters * WIDTH[precision], parameters * ABOVE[precision]
    if available < loaded + SPARE:
        raise CannotRun(
            N_(
                "the reference needs {needed:.1f} GiB of the machine's memory to load this "
                "checkpoint in {precision}, and {free:.1f} are free",
                needed=(loaded + SPARE) / GIB,
                precision=precision,
                free=available / GIB,
            ),
            N_("take fewer layers with --layers"),
        )
    if device.kind == "cpu":
        return available < whole + SPARE
    return device.free < whole + NEEDED


def available(files: Any = open) -> int:
    """Bytes of memory that this machine, or the container that this runs in, can still give."""
    with files("/proc/meminfo", encoding="ascii") as stream:
        (line,) = [each for each in stream if each.startswith("MemAvailable:")]
    free = int(line.split()[1]) * 1024
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max": no limit
            with files(limit, encoding="ascii") as stream:
                most = int(stream.read())
            with files(used, encoding="ascii") as stream:
                free = min(free, max(0, most - int(stream.read())))
    return free
