"""Proves files of a release by the real driver, beside nothing but that release's Python files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from glmpatch.patch import Patch
from glmpatch.proof.driver import Candidate, Result, verify
from glmpatch.source.plan import make_plan
from tests.support import light, releases


def released(patch: Patch, release: str) -> bytes:
    """The patch's file as that release has it."""
    source = releases.read(release, patch.path(release))
    assert source is not None, (patch.id, release)
    return source


def mended(patch: Patch, release: str, *only: str) -> bytes:
    """The same with the rewrites made that are named, or all of them."""
    return make_plan(patch, released(patch, release), release, only or None).after


def prove(patch: Patch, release: str, files: Mapping[str, bytes]) -> dict[str, Result]:
    """What the patch's proof says of each of these files, in one process."""
    candidates = [
        Candidate(patch.id, name, patch.proof, patch.path(release), source)
        for name, source in files.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        env = light.install(release, Path(folder) / "env")
        found = verify(env.python, env.site, [], candidates, device="cpu")
    return {result.file: result for result in found.results}
