"""Wheel and sdist of this source tree, and environments that have them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path

from tests.support.cache import uv

ROOT = Path(__file__).parents[2]
PARTS = ("docs", "examples", "patcher", "patches", "tests")
LINK = Path("patcher", "glmpatch", "patches")
"""The link to the folder at the top."""


def checkout(folder: Path) -> Path:
    """The files of the repository, as of now: those that builds read."""
    for part in PARTS:
        leave = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, folder / part, ignore=leave, symlinks=True)
    for file in [*ROOT.glob("*.md"), ROOT / "LICENSE", ROOT / "pyproject.toml"]:
        shutil.copyfile(file, folder / file.name)
    return folder


def build(source: Path, *kinds: str) -> dict[str, bytes]:
    """Names and contents of what is built; both kinds by default."""
    options = kinds or ("--sdist", "--wheel")
    uv("build", *options, "--out-dir", str(source / "dist"), str(source))
    files = sorted((source / "dist").glob("glmpatch-*"))
    return {file.name: file.read_bytes() for file in files}


def environment(root: Path, *install: str) -> Path:
    """A new environment of the running Python with these packages; returns its ``bin``."""
    uv("venv", "--python", sys.executable, str(root))
    if install:
        uv("pip", "install", "--python", str(root), *install)
    return root / "bin"


def wheel(folder: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """A wheel of somebody else with these files."""
    info = f"{name}-1.0.dist-info"
    every = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n",
    }
    lines = []
    for path, data in every.items():
        digest = urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(data)}")
    every[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()
    made = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, data in every.items():
            archive.writestr(path, data)
    return made


def run(*command: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A command in a folder, in our environment with some variables more."""
    return subprocess.run(
        [str(each) for each in command],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **env},
    )
