"""A tiny site-packages: the files that a patch is about and just enough around them."""

from __future__ import annotations

import hashlib
import os
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.environment import MODEL_FILE

CACHE_TAGS = ("cpython-310", "cpython-311.opt-1", "cpython-313", "pypy310")


@dataclass(frozen=True)
class Site:
    """``root`` is the folder that holds the package vllm, ``file`` what ``patch`` mends."""

    root: Path
    version: str | None = "0.8.4"
    """None for a source tree, which has no metadata."""
    file: str = MODEL_FILE
    patch: str = "glm4-residual"

    @property
    def model(self) -> Path:
        return self.root / self.file

    @property
    def bytecode(self) -> Path:
        return self.model.parent / "__pycache__"

    @property
    def dist_info(self) -> Path:
        return self.root / f"vllm-{self.version}.dist-info"

    @property
    def record(self) -> Path:
        return self.dist_info / "RECORD"

    @property
    def receipts(self) -> Path:
        return self.dist_info if self.version else self.root / ".glmpatch"

    @property
    def receipt(self) -> Path:
        return self.receipts / f"glmpatch-{self.patch}.json"

    @property
    def original(self) -> Path:
        return self.receipts / f"glmpatch-{self.patch}.original"

    def tree(self) -> dict[str, str]:
        """All below ``root`` but bytecode: path -> type, mode, owner and content."""
        found = {}
        for folder, folders, names in os.walk(self.root):
            if "__pycache__" in folders:
                folders.remove("__pycache__")
            for name in [*folders, *names]:
                path = Path(folder, name)
                found[str(path.relative_to(self.root))] = _describe(path)
        return found

    def seen(self) -> str:
        """All that a later run depends on, in one string to compare."""
        cached = sorted(os.listdir(self.bytecode)) if self.bytecode.is_dir() else []
        return repr((sorted(self.tree().items()), cached))

    def become(self, other: Site) -> None:
        """Be a copy of another site again."""
        if self.seen() != other.seen():
            shutil.rmtree(self.root)
            other.copy(self.root)

    def copy(self, root: Path) -> Site:
        shutil.copytree(self.root, root, symlinks=True)
        return replace(self, root=root)


def make(
    root: Path,
    model: bytes,
    version: str | None = "0.8.4",
    others: Mapping[str, bytes] | None = None,
    file: str = MODEL_FILE,
    patch: str = "glm4-residual",
) -> Site:
    """A site at ``root`` with the model file and ``others``, such as its neighbours.

    A source tree (``version`` None) is one of 0.8.4. RECORD lacks the last line end, as the harder
    case.
    """
    site = Site(root, version, file, patch)
    files = {
        "vllm/__init__.py": b"",
        "vllm/model_executor/__init__.py": b"",
        **(others or {}),
        file: model,
    }
    if version is None:
        files["vllm/_version.py"] = b"__version__ = version = '0.8.4'\n"
    else:
        files[f"{site.dist_info.name}/METADATA"] = f"Name: vllm\nVersion: {version}\n".encode()
        lines = [_record_line(name, data) for name, data in files.items()]
        files[f"{site.dist_info.name}/RECORD"] = "\n".join(
            [*lines, f"{site.dist_info.name}/RECORD,,"]
        ).encode()
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o644)
    site.bytecode.mkdir()
    for tag in CACHE_TAGS:
        (site.bytecode / f"{site.model.stem}.{tag}.pyc").write_bytes(b"old")
    return site


def distribution(root: Path, name: str, version: str) -> None:
    """The metadata of another package beside vLLM."""
    info = root / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")


def _record_line(name: str, data: bytes) -> str:
    digest = urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}"


def _describe(path: Path) -> str:
    status = path.lstat()
    if path.is_symlink():
        content = f"-> {os.readlink(path)}"
    elif path.is_file():
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    else:
        content = ""
    return f"{status.st_mode:o} {status.st_uid}:{status.st_gid} {content}"
