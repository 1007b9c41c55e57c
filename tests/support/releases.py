"""The Python files of every release of vLLM, without its compiled ones, by a few range requests.

A wheel has some 300 MB, its Python files 1 to 13 MB (compressed), all releases together 310 MB.
"""

from __future__ import annotations

import functools
import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import ZipInfo

import requests
from packaging.version import Version
from pypi_simple import DistributionPackage, PyPISimple
from remotezip import RemoteZip

from tests.support.cache import cache, once

OLDEST = Version("0.6.0")
CONNECTIONS = 8
KEPT = re.compile(r"\.(py|json|jinja|typed)$|\.dist-info/")
LEFT_OUT = re.compile(r"fused_moe/configs/|quantization/utils/configs/")
GAP = 300_000
"""Bytes between two wanted files that are rather fetched than asked around."""
HEADER = 30
"""Bytes of a member's local header, before its name."""


@functools.cache
def index() -> dict[str, DistributionPackage]:
    """The x86-64 wheel of every release from 0.6.0 to the newest, oldest first."""
    with PyPISimple() as registry:
        found = [each for each in registry.get_project_page("vllm").packages if _is_meant(each)]
    found.sort(key=lambda each: (Version(each.version or ""), each.filename))
    return {str(each.version): each for each in found}


def _is_meant(package: DistributionPackage) -> bool:
    return (
        package.package_type == "wheel"
        and package.filename.endswith("x86_64.whl")
        and not re.match(r"vllm-[^-]+-\d+-cp", package.filename)
        and not package.is_yanked
        and Version(package.version or "0") >= OLDEST
    )


def names() -> tuple[str, ...]:
    """All releases, oldest first."""
    return tuple(index())


def tree(release: str) -> Path:
    """A folder with the package ``vllm`` of a release and its dist-info, fetched once."""
    folder = cache() / "releases" / release
    folder.parent.mkdir(exist_ok=True)
    with once(folder) as missing:
        if missing:
            _fetch(index()[release].url, folder)
    return folder


def trees(releases: Iterable[str] | None = None) -> dict[str, Path]:
    """The folders of several releases; of all, by default."""
    wanted = list(names() if releases is None else releases)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return dict(zip(wanted, pool.map(tree, wanted), strict=True))


def read(release: str, file: str) -> bytes | None:
    """One file of a release; None where it has none of that name."""
    path = tree(release) / file
    return path.read_bytes() if path.is_file() else None


def _fetch(url: str, folder: Path) -> None:
    with RemoteZip(url) as archive:
        members = [
            each
            for each in archive.infolist()
            if KEPT.search(each.filename) and not LEFT_OUT.search(each.filename)
        ]
    with requests.Session() as session:
        for run in _runs(sorted(members, key=lambda each: each.header_offset)):
            start, end = run[0].header_offset, _end(run[-1])
            answer = session.get(url, headers={"Range": f"bytes={start}-{end}"}, timeout=120)
            answer.raise_for_status()
            for member in run:
                path = folder / member.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(_unpacked(member, answer.content, member.header_offset - start))


def _runs(members: Sequence[ZipInfo]) -> list[list[ZipInfo]]:
    runs: list[list[ZipInfo]] = []
    for member in members:
        if runs and member.header_offset - _end(runs[-1][-1]) < GAP:
            runs[-1].append(member)
        else:
            runs.append([member])
    return runs


def _end(member: ZipInfo) -> int:
    """Where a member ends at the latest; its local header may have fields of its own."""
    return member.header_offset + HEADER + 3 * len(member.filename) + 256 + member.compress_size


def _unpacked(member: ZipInfo, data: bytes, at: int) -> bytes:
    name, extra = struct.unpack("<HH", data[at + 26 : at + HEADER])
    start = at + HEADER + name + extra
    content = data[start : start + member.compress_size]
    if member.compress_type:
        content = zlib.decompress(content, -15)
    assert zlib.crc32(content) == member.CRC, member.filename
    return content
