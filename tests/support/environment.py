"""A copy of a real environment that a test may change."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MODEL_FILE = "vllm/model_executor/models/glm4.py"


@dataclass(frozen=True)
class Environment:
    """The root of an environment whose vLLM is a copy of its own; all else is linked."""

    root: Path

    @property
    def python(self) -> Path:
        return self.root / "bin" / "python"

    @property
    def site(self) -> Path:
        (site,) = (self.root / "lib").glob("python3*/site-packages")
        return site

    @property
    def model(self) -> Path:
        return self.site / MODEL_FILE

    @property
    def dist_info(self) -> Path:
        (info,) = self.site.glob("vllm-*.dist-info")
        return info

    @property
    def record(self) -> Path:
        return self.dist_info / "RECORD"

    @property
    def receipt(self) -> Path:
        return self.dist_info / "glmpatch-glm4-residual.json"

    def tree(self) -> dict[str, str]:
        """Every file of vLLM and its metadata, but for bytecode: path -> kind, mode and sha256."""
        found = {}
        for top in (self.site / "vllm", self.dist_info, self.site / ".glmpatch"):
            for folder, _, names in os.walk(top):
                if folder.endswith("__pycache__"):
                    continue
                for name in names:
                    path = Path(folder, name)
                    found[str(path.relative_to(self.site))] = describe(path)
        return found

    def run(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run Python code in the environment."""
        return subprocess.run([str(self.python), "-c", code], capture_output=True, text=True)


def describe(path: Path) -> str:
    status = path.lstat()
    content = "link" if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{status.st_mode:o} {content}"


def copy(source: Path, root: Path) -> Environment:
    """A copy of the environment ``source`` at ``root``, in a third of a second.

    vLLM's Python files and metadata are copied, its compiled libraries and all other packages
    linked.
    """
    (site,) = (source / "lib").glob("python3*/site-packages")
    target = root / "lib" / site.parent.name / "site-packages"
    target.mkdir(parents=True)
    (root / "bin").mkdir()
    (root / "bin" / "python").symlink_to(os.path.realpath(source / "bin" / "python"))
    shutil.copy(source / "pyvenv.cfg", root)
    for entry in site.iterdir():
        if entry.name == "vllm" or entry.name.startswith("vllm-"):
            shutil.copytree(entry, target / entry.name, copy_function=_copy_or_link)
        else:
            (target / entry.name).symlink_to(entry)
    return Environment(root)


def _copy_or_link(source: str, target: str) -> None:
    if source.endswith(".so") or "vllm_flash_attn" in source:
        os.symlink(source, target)
    else:
        shutil.copy2(source, target)


def glmpatch(
    *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, in a process of its own."""
    command = [sys.executable, "-m", "glmpatch", *arguments]
    environment = {**os.environ, **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)
