"""What an installation adds: the wheel, and the files in an environment that has vLLM already."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.bench.data import Group
from tests.bench.machine import about
from tests.bench.measure import Runner
from tests.support import cache
from tests.support.environment import Environment, copy

ROOT = Path(__file__).parents[2]


def measure(_: Runner, runs: int) -> Group:
    with tempfile.TemporaryDirectory() as folder:
        wheel = build(Path(folder))
        env = copy(cache.released(), Path(folder) / "env")
        before = present(env)
        install(env, wheel)
        added = present(env) - before
        figures = {
            "wheel": wheel.stat().st_size,
            "files": len(ours(env, "glmpatch")),
            "glmpatch": size(ours(env, "glmpatch")),
            "libcst": size(ours(env, "libcst")),
            "added": sorted(added),
        }
    return Group(about(1), figures=figures)


def build(folder: Path) -> Path:
    """The wheel of this source tree."""
    cache.uv("build", "--wheel", "--out-dir", str(folder), str(ROOT))
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(env: Environment, wheel: Path) -> None:
    cache.uv("pip", "install", "--python", str(env.root), str(wheel))


def present(env: Environment) -> set[str]:
    """Top-level names in site-packages and scripts; bytecode and a lock of uv do not count."""
    left_out = ("__pycache__", ".lock")
    folders = (env.site, env.root / "bin")
    return {
        str(path.relative_to(env.root)).replace(
            str(env.site.relative_to(env.root)), "site-packages"
        )
        for folder in folders
        for path in folder.iterdir()
        if path.name not in left_out
    }


def ours(env: Environment, distribution: str) -> list[Path]:
    """Every file that a distribution's RECORD lists; no bytecode, which Python adds later."""
    (info,) = env.site.glob(f"{distribution}-*.dist-info")
    lines = (info / "RECORD").read_text("utf-8").splitlines()
    return [env.site / line.split(",")[0] for line in lines if ".pyc," not in line]


def size(paths: Iterable[Path]) -> int:
    """Bytes."""
    return sum(path.stat().st_size for path in paths)
