"""A small environment with just the files that glmpatch looks at; made in a millisecond."""

from __future__ import annotations

import os
import sys
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path

from tests.support.environment import MODEL_FILE, Environment

PYTHON = f"python3.{sys.version_info.minor}"


def environment(root: Path, model: bytes | None, version: str = "0.8.4") -> Environment:
    """A virtual environment of the running Python whose vLLM is one model file (or none)."""
    interpreter = Path(os.path.realpath(sys.executable))
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "python").symlink_to(interpreter)
    (root / "pyvenv.cfg").write_text(f"home = {interpreter.parent}\n")
    vllm(root / "lib" / PYTHON / "site-packages", model, version)
    return Environment(root)


def vllm(site: Path, model: bytes | None, version: str = "0.8.4", name: str = "vllm") -> Path:
    """A vLLM in the folder ``site``, as a wheel leaves it; returns its dist-info."""
    files = {"vllm/__init__.py": b"", MODEL_FILE: model}
    info = f"{name}-{version}.dist-info"
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n\nVersion: 9\n"
    ).encode()
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
