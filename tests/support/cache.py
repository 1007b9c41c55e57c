"""Where tests keep what they fetch: outside the repository, and reused by the next run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PYTHONS = ">=3.9,<3.13"
"""Interpreters that vLLM 0.8.4 runs on."""


def cache() -> Path:
    """``GLMPATCH_CACHE``, or a folder of the user's cache."""
    named = os.environ.get("GLMPATCH_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(named) if named else home / "glmpatch"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def uv(*arguments: str, stderr: bool = False, env: Mapping[str, str] | None = None) -> str:
    """Run uv, which the extra ``test`` installs, with a cache of our own.

    Returns what it printed: its data, or with ``stderr`` its messages.
    """
    environment = {**os.environ, "UV_CACHE_DIR": str(cache() / "uv"), **(env or {})}
    environment.pop("VIRTUAL_ENV", None)
    command = [sys.executable, "-m", "uv", "--no-progress", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stderr if stderr else done.stdout


def apt(*packages: str) -> None:
    """Install packages of Debian; for root only."""
    for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", "-q", *command],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@contextlib.contextmanager
def once(folder: Path) -> Iterator[bool]:
    """Yields True where ``folder`` is still to be made; a run that broke off is made again."""
    marker = folder.with_name(folder.name + ".complete")
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = not marker.exists()
        yield missing
        if missing:
            marker.touch()


def environment(name: str, requirements: Sequence[str], *options: str) -> Path:
    """The root of a real environment with these packages from the registry; made once."""
    folder = cache() / name
    with once(folder) as missing:
        if missing:
            uv("venv", "--clear", "--python", PYTHONS, str(folder))
            uv("pip", "install", "--python", str(folder), *options, *requirements)
    return folder


def released() -> Path:
    """The environment that this project is about: vLLM 0.8.4 as released.

    It has pip, as an environment that Python itself makes has it: hints name the installer.
    """
    return environment("vllm-0.8.4-pip", ["vllm==0.8.4", "transformers==4.51.3", "pip"])


def distribution(name: str, version: str) -> Path:
    """A folder with one distribution alone, without what it depends on."""
    folder = cache() / f"{name}-{version}-alone"
    with once(folder) as missing:
        if missing:
            uv(
                *("pip", "install", "--python", PYTHONS, "--no-deps"),
                *("--target", str(folder), f"{name}=={version}"),
            )
    return folder
