"""The command, run in a forked process that has everything imported already."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from patcher.cli import main
from tests.support import syscalls
from tests.support.site import Site
from tests.support.syscalls import Run


def command(site: Site, *arguments: str) -> Callable[[], int]:
    """The command on a tree, as ``main`` runs it; gives its exit code."""

    def action() -> int:
        sys.argv = ["glmpatch", *arguments, "--path", str(site.root)]
        try:
            main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 99
        return 0

    return action


def glmpatch(site: Site, *arguments: str) -> Run:
    return syscalls.run(command(site, *arguments), traced=False)


def state(site: Site) -> str:
    """What ``status`` says of the GLM-4 patch."""
    done = glmpatch(site, "status", "--json")
    assert done.code == 0, done.output
    answer: dict[str, Any] = json.loads(done.output)
    return str(next(p["state"] for p in answer["patches"] if p["id"] == "glm4-residual"))
