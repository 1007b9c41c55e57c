"""Which packages the imports of a command spend their time in, by Python's ``-X importtime``."""

from __future__ import annotations

import re
import sys
from collections import Counter

LINE = re.compile(r"^import time:\s*(\d+) \|\s*\d+ \|\s*(\S+)$", re.MULTILINE)
PYTHON = "Python itself"


def imported(output: str) -> dict[str, float]:
    """Seconds by top-level package, largest first, all of Python's library as one.

    The time in a module itself, not in what it imports: each microsecond counts once.
    """
    spent: Counter[str] = Counter()
    for took, name in LINE.findall(output):
        top = name.partition(".")[0]
        spent[PYTHON if top in sys.stdlib_module_names else top] += int(took)
    return {name: took / 1e6 for name, took in spent.most_common()}
