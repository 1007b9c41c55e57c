"""The reader of manual pages, and what comes with it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

from tests.support import cache


def man(
    tool: str, *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``man`` or ``lexgrog``, installed first where root may do that."""
    if not all(map(shutil.which, ("man", "lexgrog", "groff"))):
        assert os.geteuid() == 0, "install man-db and groff-base: a test reads the manual page"
        cache.apt("man-db", "groff-base")
    return subprocess.run(
        [tool, *arguments], env={**os.environ, **(env or {})}, capture_output=True, text=True
    )
