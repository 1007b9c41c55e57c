"""``python -m tests.released``: writes the names and sha256 of vLLM's released wheels.

They are those of the registry's own index, all from the oldest release on that a patch may be for.
With ``--check`` nothing is written, and a wheel that is missing or has another sha256 is an error.
"""

from __future__ import annotations

import json
import sys

from packaging.version import Version
from pypi_simple import PyPISimple

from glmpatch.fleet.released import TABLE, wheels
from tests.support.releases import OLDEST


def listed() -> dict[str, str]:
    """File name -> sha256, oldest release first."""
    with PyPISimple() as registry:
        found = [
            each
            for each in registry.get_project_page("vllm").packages
            if each.package_type == "wheel" and Version(each.version or "0") >= OLDEST
        ]
    found.sort(key=lambda each: (Version(each.version or ""), each.filename))
    return {each.filename: each.digests["sha256"] for each in found}


def main(*arguments: str) -> int:
    now = listed()
    if "--check" in arguments:
        stale = {name for name, digest in now.items() if wheels().get(name) != digest}
        print(f"stale: {', '.join(sorted(stale)) or 'none'}")
        return 1 if stale else 0
    TABLE.write_text(json.dumps(now, indent=0) + "\n", "utf-8")
    print(f"written: {len(now)} wheels")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
