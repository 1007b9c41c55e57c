"""A small environment with just the files that glmpatch looks at; made in a millisecond."""

from __future__ import annotations

import functools
import os
import sys
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from glmpatch.catalogue import load_patches
from glmpatch.patch import Patch
from glmpatch.source.plan import make_plan
from tests.support import releases
from tests.support.environment import MODEL_FILE, Environment

PYTHON = f"python3.{sys.version_info.minor}"


Files = Mapping[str, bytes | None]
"""Contents by path below site-packages; None for a file that is not there."""


RELEASE = "0.8.4"


@functools.cache
def released(release: str = RELEASE) -> Files:
    """Every file that a patch for a release mends or counts on, as released."""
    paths = {path for patch in patches(release) for path in files_of(patch, release)}
    return {path: releases.read(release, path) for path in sorted(paths)}


@functools.cache
def repaired(release: str = RELEASE) -> Files:
    """The same files with every patch applied."""
    mended = {}
    for patch in patches(release):
        file = patch.path(release)
        mended[file] = make_plan(patch, source(file, release), release).after
    return {**released(release), **mended}


def patches(release: str = RELEASE) -> tuple[Patch, ...]:
    return tuple(patch for patch in load_patches() if patch.covers(release))


def files_of(patch: Patch, release: str = RELEASE) -> tuple[str, ...]:
    return (patch.path(release), *patch.beside(release))


def source(file: str, release: str = RELEASE) -> bytes:
    """One file of a release."""
    data = released(release)[file]
    assert data is not None
    return data


def environment(
    root: Path, model: bytes | None, version: str = "0.8.4", others: Files = MappingProxyType({})
) -> Environment:
    """A virtual environment of the running Python whose vLLM is one model file and ``others``."""
    interpreter = Path(os.path.realpath(sys.executable))
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "python").symlink_to(interpreter)
    (root / "pyvenv.cfg").write_text(f"home = {interpreter.parent}\n")
    vllm(root / "lib" / PYTHON / "site-packages", model, version, others=others)
    return Environment(root)


def vllm(
    site: Path,
    model: bytes | None,
    version: str = "0.8.4",
    name: str = "vllm",
    others: Files = MappingProxyType({}),
) -> Path:
    """A vLLM in the folder ``site``, as a wheel leaves it; returns its dist-info."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
    files = {
        **others,
        "vllm/__init__.py": b"",
        MODEL_FILE: model,
        f"{info}/METADATA": f"{metadata}\nVersion: 9\n".encode(),
    }
    record = ""
    for path, data in files.items():
        if data is None:
            continue
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(data)
        digest = urlsafe_b64encode(sha256(data).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(data)}\n"
    (site / info / "RECORD").write_text(f"{record}{info}/RECORD,,\n")
    return site / info
