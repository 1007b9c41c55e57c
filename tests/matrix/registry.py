"""The wheels of every release, a few files of each read by range requests, and cached."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version
from pypi_simple import DistributionPackage, PyPISimple
from remotezip import RemoteZip

from tests.support.cache import cache, once

OLDEST = Version("0.6.0")
CONNECTIONS = 12


@dataclass(frozen=True)
class Wheel:
    """One wheel of a release. ``root`` holds the files of it that were asked for."""

    release: str
    name: str
    root: Path

    def read(self, file: str) -> bytes | None:
        path = self.root / file
        return path.read_bytes() if path.is_file() else None


def wheels(files: Iterable[str]) -> list[Wheel]:
    """Every x86-64 wheel of vLLM from 0.6.0 to the newest, oldest first.

    Args:
        files: paths in the wheel; those that a wheel does not have are left out.
    """
    wanted = sorted(set(files))
    with PyPISimple() as registry:
        packages = [each for each in registry.get_project_page("vllm").packages if _is_meant(each)]
    packages.sort(key=lambda each: (Version(each.version or ""), each.filename))
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        roots = pool.map(lambda each: _fetch(each, wanted), packages)
        return [
            Wheel(str(each.version), each.filename, root)
            for each, root in zip(packages, roots, strict=True)
        ]


def _is_meant(package: DistributionPackage) -> bool:
    return (
        package.package_type == "wheel"
        and package.filename.endswith("x86_64.whl")
        and Version(package.version or "0") >= OLDEST
    )


def _fetch(package: DistributionPackage, files: Sequence[str]) -> Path:
    """A folder with these files of a wheel, named by the wheel's content and what was asked."""
    wheel = package.digests["sha256"][:16]
    asked = hashlib.sha256("\n".join(files).encode()).hexdigest()[:16]
    root = cache() / "matrix" / f"{wheel}-{asked}"
    root.parent.mkdir(exist_ok=True)
    with once(root) as missing:
        if missing:
            with RemoteZip(package.url) as archive:
                _extract(archive, files, root)
    return root


def _extract(archive: zipfile.ZipFile, files: Sequence[str], root: Path) -> None:
    names = set(archive.namelist())
    (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    for name in (metadata, "vllm/__init__.py", *files):
        if name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(archive.read(name))
