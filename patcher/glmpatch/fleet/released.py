"""The wheels of vLLM that the registry has: name and sha256 of each.

Whoever has one of these has every byte of it as it was released, and no member need be unpacked to
know. ``python -m tests.released`` writes the table.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path

TABLE = Path(__file__).with_name("released.json")


@functools.cache
def wheels() -> Mapping[str, str]:
    """File name -> sha256, in hexadecimal."""
    found: dict[str, str] = json.loads(TABLE.read_bytes())
    return found


def is_released(digest: str) -> bool:
    """Whether a wheel with this sha256 was released, under whatever name it lies here."""
    return digest in wheels().values()
