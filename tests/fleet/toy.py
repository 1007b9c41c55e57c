"""A wheel of a few files, and a patch for one of them."""

from __future__ import annotations

import csv
import io
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import libcst as cst

from glmpatch.catalogue import Beside, Row, Table
from glmpatch.patch import Answers, Find, Neighbour, Patch, PatchState, Place, Rewrite

FILE = "vllm/model_executor/models/toy.py"
BESIDE = "vllm/model_executor/models/beside.py"
BEFORE = b"# toy\nWIDTH = 1  # wrong\n"
AFTER = b"# toy\nWIDTH = 2  # wrong\n"
BESIDE_IT = b"# beside\n"
NAME = "vllm-0.8.4-cp38-abi3-manylinux1_x86_64.whl"
INFO = "vllm-0.8.4.dist-info"
METADATA = b"""\
Metadata-Version: 2.4
Name: vllm
Version: 0.8.4
Summary: Version: 9
Requires-Dist: click>=8

Version: 7 is what the text says.
"""
WHEEL = b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp38-abi3-linux_x86_64\n"


def hexadecimal(data: bytes) -> str:
    return sha256(data).hexdigest()


def _widen(module: cst.Module) -> list[Place]:
    (line,) = module.body
    assert isinstance(line, cst.SimpleStatementLine)
    (assign,) = line.body
    assert isinstance(assign, cst.Assign)
    value = assign.value
    assert isinstance(value, cst.Integer)
    return [Place(value, value.value == "1", {value: cst.Integer("2")})]


@dataclass(frozen=True)
class Toy(Patch):
    """A patch whose rewrite stands here and not in a folder of its own."""

    def find(self, rewrite: Rewrite) -> Find:
        return _widen


PATCH = Toy(
    id="toy",
    title="too narrow",
    symptoms=("silent: narrow",),
    why="It is.",
    how="Widens it.",
    upstream="none",
    removal="never",
    versions="==0.8.4",
    file=FILE,
    rewrites=(Rewrite("widen", "widen"),),
    neighbours=(Neighbour(BESIDE),),
    proof=Answers("none", "vllm.toy", "toy.questions", asks=("*",)),
)
ROW = Row(FILE, hexadecimal(BEFORE), ("0.8.4",), PatchState.NEEDED, (), hexadecimal(AFTER), "", {})
TABLE = Table((ROW,), (Beside(BESIDE, hexadecimal(BESIDE_IT), ("0.8.4",), ""),))


def contents(info: str = INFO) -> dict[str, bytes]:
    return {
        "vllm/__init__.py": b"raise SystemExit('vLLM was run')\n",
        FILE: BEFORE,
        BESIDE: BESIDE_IT,
        "vllm/_C.abi3.so": bytes(range(256)) * 4096,
        f"{info}/METADATA": METADATA,
        f"{info}/WHEEL": WHEEL,
        f"{info}/top_level.txt": b"vllm\n",
    }


def row(path: str, data: bytes) -> bytes:
    digest = urlsafe_b64encode(sha256(data).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(data)}\n".encode()


def record_of(files: Mapping[str, bytes], info: str = INFO) -> bytes:
    return b"".join(row(*each) for each in files.items()) + f"{info}/RECORD,,\n".encode()


def pack(
    path: Path, files: Mapping[str, bytes], record: bytes | None = None, info: str = INFO
) -> Path:
    """A wheel with these files and their RECORD, or with another one."""
    record = record_of(files, info) if record is None else record
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(member(name), data)
    return path


def member(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (2025, 4, 14, 20, 11, 36))
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = mode << 16
    return info


def recorded(wheel: zipfile.ZipFile) -> dict[str, tuple[str, str]]:
    """RECORD: path -> hash and size."""
    (name,) = (each for each in wheel.namelist() if each.endswith(".dist-info/RECORD"))
    rows = csv.reader(io.StringIO(wheel.read(name).decode()))
    return {path: (digest, size) for path, digest, size in rows}
