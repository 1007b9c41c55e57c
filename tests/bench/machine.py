"""Where and with what something was measured, as far as it bears on the figures."""

from __future__ import annotations

import datetime
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any


def about(runs: int) -> dict[str, Any]:
    """Date, machine (no names) and versions; ``runs`` is how often each command was run."""
    return {
        "date": datetime.date.today().isoformat(),
        "runs": runs,
        "cpu": _first(r"^model name\s*:\s*(.+)$", "/proc/cpuinfo") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": round(int(_first(r"^MemTotal:\s*(\d+)", "/proc/meminfo")) / 2**20, 1),
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("glmpatch", "click", "libcst")},
    }


def _first(pattern: str, path: str) -> str:
    found = re.search(pattern, Path(path).read_text("utf-8"), re.MULTILINE)
    return found[1] if found else ""
