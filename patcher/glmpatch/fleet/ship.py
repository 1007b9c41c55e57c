"""glmpatch and LibCST as one folder that Ray carries to its nodes: nothing is installed there."""

from __future__ import annotations

import shutil
from pathlib import Path

NAME = "glmpatch_shipped"
"""The folder; a name that no package has, since it is imported to find out where it lies."""
PACKAGES = "packages"


def pack(folder: Path) -> Path:
    """Make the folder in ``folder``; what a node imports is below its ``packages``.

    All else that these two import is part of Python, or is there because Ray needs it too.
    """
    import libcst

    import glmpatch

    top = folder / NAME
    for module in (glmpatch, libcst):
        source = Path(module.__path__[0])
        # Links are followed: in a checkout, glmpatch/patches is one.
        shutil.copytree(
            source,
            top / PACKAGES / source.name,
            ignore=shutil.ignore_patterns("__pycache__", "tests"),
        )
    (top / "__init__.py").touch()
    return top
