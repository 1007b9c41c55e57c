"""The room that a large checkpoint's reference needs, before anything is loaded."""

from __future__ import annotations

import io
from typing import Any

import pytest

from glmpatch.proof.probe.choose import GIB, Device
from glmpatch.proof.probe.memory import available, by_layers
from glmpatch.proof.probe.outcome import CannotRun

LARGE = 32_500_000_000
SMALL = 9_400_000_000


def gpu(free: int) -> Device:
    return Device("cuda", "GPU", (9, 0), free=free * GIB, total=free * GIB)


@pytest.mark.parametrize(
    ("parameters", "precision", "device", "memory", "layers"),
    [
        (0, "bfloat16", gpu(14), 4, False),
        (SMALL, "bfloat16", gpu(78), 64, False),  # 35 GiB
        (SMALL, "bfloat16", gpu(24), 64, True),
        (SMALL, "float32", gpu(78), 64, False),  # 70 GiB
        (LARGE, "bfloat16", gpu(78), 128, True),  # 121 GiB
        (LARGE, "bfloat16", Device("cpu"), 128, False),
        (LARGE, "bfloat16", Device("cpu"), 96, True),
        (SMALL, "float32", Device("cpu"), 64, True),
    ],
)
def test_a_reference_without_room_is_computed_layer_by_layer(
    parameters: int, precision: str, device: Device, memory: int, layers: bool
) -> None:
    assert by_layers(parameters, precision, device, memory * GIB) is layers


def test_what_cannot_even_be_loaded_is_refused_in_numbers() -> None:
    with pytest.raises(CannotRun, match=r"needs 62\.5 GiB .* in bfloat16, and 24\.0 are") as caught:
        by_layers(LARGE, "bfloat16", gpu(78), 24 * GIB)
    assert "--layers" in caught.value.hint
    assert "--tp" not in caught.value.hint, "splitting a model leaves its reference whole"


def test_a_container_has_no_more_memory_than_it_is_given() -> None:
    files = {"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   8388608 kB\n"}

    def read(path: str, encoding: str) -> Any:
        if path not in files:
            raise FileNotFoundError(path)
        return io.StringIO(files[path])

    assert available(read) == 8 * GIB
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    files["/sys/fs/cgroup/memory.current"] = f"{GIB}\n"
    assert available(read) == 8 * GIB
    files["/sys/fs/cgroup/memory.max"] = f"{4 * GIB}\n"
    assert available(read) == 3 * GIB
    assert available() > 0
