"""A repaired wheel: what changes in it, what does not, and its receipt."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from glmpatch import catalogue
from glmpatch.errors import Exit, Failure
from glmpatch.fleet import contents, released
from glmpatch.fleet.archive import DEFLATED, Archive
from glmpatch.fleet.wheel import repair_wheel, repaired_version, wheel
from glmpatch.patch import Patch
from glmpatch.site.wheel_receipt import NAME as RECEIPT
from glmpatch.site.wheel_receipt import Repair, read_wheel_receipt
from glmpatch.source.plan import Plan
from tests.fleet import toy
from tests.fleet.conftest import repair, written
from tests.fleet.toy import AFTER, BEFORE, FILE, INFO, METADATA, PATCH, WHEEL

# -- what it becomes ----------------------------------------------------------------------------


def test_the_repaired_wheel_is_the_released_one_but_for_what_was_repaired(
    source: Path, out: Path
) -> None:
    done = repair(source, out)
    version = done.version
    assert version.startswith("0.8.4+glmpatch.1.x")
    assert written(done).name == f"vllm-{version}-cp38-abi3-manylinux1_x86_64.whl"
    info = f"vllm-{version}.dist-info"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(written(done)) as new:
        assert new.testzip() is None
        was = {each.filename.replace(INFO, info): each for each in old.infolist()}
        now = {each.filename: each for each in new.infolist()}
        assert set(now) == {*was, f"{info}/{RECEIPT}"}
        changed = {n for n in was if old.read(was[n]) != new.read(n)}
        assert changed == {FILE, f"{info}/METADATA", f"{info}/RECORD"}
        assert new.read(FILE) == AFTER
        assert new.read(f"{info}/METADATA") == METADATA.replace(
            b"Version: 0.8.4\n", f"Version: {version}\n".encode()
        )
        assert new.read(f"{info}/WHEEL") == WHEEL
        for name, each in was.items():
            assert now[name].date_time == each.date_time
            assert now[name].external_attr == each.external_attr
        for path, (digest, size) in toy.recorded(new).items():
            if path != f"{info}/RECORD":
                data = new.read(path)
                found = urlsafe_b64encode(sha256(data).digest()).rstrip(b"=").decode()
                assert (digest, size) == (f"sha256={found}", str(len(data)))
        before = [path.replace(INFO, info) for path in toy.recorded(old)]
        assert list(toy.recorded(new)) == [*before[:-1], f"{info}/{RECEIPT}", before[-1]]
    assert os.listdir(out) == [written(done).name]


def test_unchanged_members_are_copied_as_they_are_compressed(source: Path, out: Path) -> None:
    with Archive(source) as old, Archive(written(repair(source, out))) as new:
        for name in ("vllm/_C.abi3.so", "vllm/__init__.py", toy.BESIDE):
            first, second = (b"".join(each.packed(each.members[name])) for each in (old, new))
            assert first == second
            assert new.members[name].method == DEFLATED


def test_the_same_bytes_every_time_whatever_the_clock_says(
    source: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = written(repair(source, out))
    again = tmp_path / "again"
    again.mkdir()
    monkeypatch.setattr(time, "time", lambda: 2e9)
    os.utime(source, (1, 1))
    second = written(repair(source, again))
    assert second.name == first.name
    assert second.read_bytes() == first.read_bytes()


def test_a_second_time_into_the_same_folder_is_fine(source: Path, out: Path) -> None:
    first = repair(source, out)
    inode = written(first).stat().st_ino
    second = repair(source, out)
    assert (first.written, second.written) == (True, False)
    assert second.path == first.path
    assert written(first).stat().st_ino == inode
    assert os.listdir(out) == [written(first).name]


def test_it_is_readable_as_the_mask_says(source: Path, out: Path) -> None:
    before = os.umask(0o027)
    try:
        assert written(repair(source, out)).stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


def test_it_says_of_itself_what_was_done(source: Path, out: Path, tmp_path: Path) -> None:
    proof = {"kind": "numbers", "precisions": ["float32"]}
    seen: list[tuple[object, ...]] = []

    def prove(version: str, plans: Sequence[tuple[Patch, Plan]]) -> Mapping[str, Mapping[str, Any]]:
        seen.append((version, [(patch.id, plan.after) for patch, plan in plans], os.listdir(out)))
        return {"toy": proof}

    done = repair_wheel(source, out, [PATCH], prove)
    assert seen == [("0.8.4", [("toy", AFTER)], [])]
    with zipfile.ZipFile(written(done)) as new:
        new.extractall(tmp_path / "site")
    info = tmp_path / "site" / f"vllm-{done.version}.dist-info"
    before, after = toy.hexadecimal(BEFORE), toy.hexadecimal(AFTER)
    assert read_wheel_receipt(info) == {
        "schema": 1,
        "version": done.version,
        "from": {"name": source.name, "sha256": sha256(source.read_bytes()).hexdigest()},
        "patches": [
            {
                "patch": "toy",
                "file": FILE,
                "rewrites": ["widen"],
                "before": before,
                "after": after,
                "proof": proof,
            }
        ],
    }
    assert done.repaired == (Repair("toy", FILE, ("widen",), before, after, proof),)


def test_a_failed_proof_leaves_nothing(source: Path, out: Path) -> None:
    def prove(version: str, plans: Sequence[tuple[Patch, Plan]]) -> Mapping[str, Mapping[str, Any]]:
        raise Failure(Exit.PROOF_FAILED, "wrong numbers", "none")

    with pytest.raises(Failure, match="wrong numbers"):
        repair_wheel(source, out, [PATCH], prove)
    assert os.listdir(out) == []


def test_a_local_version_a_build_tag_and_data_are_kept(tmp_path: Path, out: Path) -> None:
    info = "vllm-0.8.4+cpu.dist-info"
    files = toy.contents(info)
    files[f"{info}/METADATA"] = METADATA.replace(b"Version: 0.8.4\n", b"Version: 0.8.4+cpu\n")
    files["vllm-0.8.4+cpu.data/scripts/vllm"] = b"#!python\n"
    name = "vllm-0.8.4+cpu-1-cp38-abi3-linux_x86_64.whl"
    done = repair(toy.pack(tmp_path / name, files, info=info), out)
    assert done.version.startswith("0.8.4+cpu.glmpatch.1.x")
    assert written(done).name == f"vllm-{done.version}-1-cp38-abi3-linux_x86_64.whl"
    with zipfile.ZipFile(written(done)) as new:
        script = f"vllm-{done.version}.data/scripts/vllm"
        assert new.read(script) == b"#!python\n"
        assert script in toy.recorded(new)


def test_line_ends_of_the_metadata_stay(tmp_path: Path, out: Path) -> None:
    files = toy.contents()
    text = files[f"{INFO}/METADATA"] = METADATA.replace(b"\n", b"\r\n")
    done = repair(toy.pack(tmp_path / toy.NAME, files), out)
    with zipfile.ZipFile(written(done)) as new:
        assert new.read(f"vllm-{done.version}.dist-info/METADATA") == text.replace(
            b"Version: 0.8.4\r", f"Version: {done.version}\r".encode()
        )


def test_members_written_to_a_stream_and_folders_are_taken(tmp_path: Path, out: Path) -> None:
    source, files = tmp_path / toy.NAME, toy.contents()

    class Stream(io.BytesIO):
        """Cannot seek, so that sizes come after each member."""

        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise io.UnsupportedOperation

    stream = Stream()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(toy.member("vllm/", 0o40755), b"")
        for name, data in {**files, f"{INFO}/RECORD": toy.record_of(files)}.items():
            packed.writestr(toy.member(name), data)
    source.write_bytes(stream.getvalue())
    with zipfile.ZipFile(source) as packed:
        assert 8 in {each.flag_bits & 8 for each in packed.infolist()}
    with zipfile.ZipFile(written(repair(source, out))) as new:
        assert new.testzip() is None
        assert {each.flag_bits for each in new.infolist()} == {0}
        assert new.read(FILE) == AFTER


def test_small_members_with_the_fields_of_zip64_are_taken(tmp_path: Path, out: Path) -> None:
    source, files = tmp_path / toy.NAME, toy.contents()
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in {**files, f"{INFO}/RECORD": toy.record_of(files)}.items():
            with packed.open(toy.member(name), "w", force_zip64=True) as file:
                file.write(data)
    with zipfile.ZipFile(written(repair(source, out))) as new:
        assert new.testzip() is None
        assert {each.extra for each in new.infolist()} == {b""}


def test_flags_that_readers_refuse_are_not_kept(source: Path, out: Path) -> None:
    """Such as "compressed patched data" of the list of members, which zipfile has not."""
    data = source.read_bytes()
    at = data.index(b"PK\1\2")
    source.write_bytes(data[: at + 8] + b"\x20\0" + data[at + 10 :])
    with zipfile.ZipFile(written(repair(source, out))) as new:
        assert new.testzip() is None
        assert {each.flag_bits for each in new.infolist()} == {0}


def test_names_that_are_not_ascii_and_have_a_comma_are_kept(tmp_path: Path, out: Path) -> None:
    files = {**toy.contents(), "vllm/templätes,.jinja": b"x"}
    line = toy.row("vllm/templätes,.jinja", b"x")
    quoted = line.replace("vllm/templätes,.jinja".encode(), '"vllm/templätes,.jinja"'.encode())
    record = toy.record_of(files).replace(line, quoted)
    with zipfile.ZipFile(written(repair(toy.pack(tmp_path / toy.NAME, files, record), out))) as new:
        assert new.read("vllm/templätes,.jinja") == b"x"
        assert "vllm/templätes,.jinja" in toy.recorded(new)


# -- the version --------------------------------------------------------------------------------


def test_another_set_or_result_is_another_version_and_more_repairs_are_newer() -> None:
    a = Repair("a", "a.py", (), "0" * 64, "1" * 64)
    b = Repair("b", "b.py", (), "0" * 64, "2" * 64)
    both = repaired_version("0.8.4", [a, b])
    assert both == repaired_version("0.8.4", [b, a])
    every = [repaired_version("0.8.4", [each]) for each in (a, b, replace(a, after="3" * 64))]
    assert len({both, *every}) == 4
    assert all(Version("0.8.4") < Version(each) < Version(both) for each in every)
    ten = [replace(a, patch=str(n)) for n in range(10)]
    assert Version(both) < Version(repaired_version("0.8.4", ten)) < Version("0.8.4.post1")
    assert repaired_version("0.8.4+cpu", [a]) == every[0].replace("+", "+cpu.")
    for number in range(300):
        version = repaired_version("0.8.4", [replace(a, patch=str(number))])
        assert str(Version(version)) == version
        assert not any(word in version for word in ("cpu", "tpu", "xpu", "rocm", "neuron"))


# -- nothing to do ------------------------------------------------------------------------------


def test_a_file_that_is_right_already_is_nothing_to_do(tmp_path: Path, out: Path) -> None:
    source = toy.pack(tmp_path / toy.NAME, {**toy.contents(), FILE: AFTER})
    done = repair(source, out)
    assert (done.path, done.right, done.version) == (None, ("toy",), "0.8.4")
    assert os.listdir(out) == []


def test_a_patch_for_another_release_is_skipped(source: Path, out: Path) -> None:
    done = repair(source, out, replace(PATCH, versions="==0.9.0", file="vllm/other.py"))
    assert (done.path, done.skipped) == (None, ("toy",))
    assert os.listdir(out) == []


def test_a_repaired_wheel_is_nothing_to_do(source: Path, out: Path) -> None:
    first = written(repair(source, out))
    again = repair(first, out)
    assert (again.path, again.right) == (None, ("toy",))
    assert os.listdir(out) == [first.name]


def test_a_patch_that_is_not_advised_is_made_by_name_alone(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shy = replace(PATCH, advised=False, caution="careful")
    monkeypatch.setattr(catalogue, "load_patches", lambda warn=None: (shy,))
    assert wheel(source, out).path is None
    assert os.listdir(out) == []
    assert wheel(source, out, ["toy"]).path is not None
    with pytest.raises(Failure, match="there is no patch named 'tyo'"):
        wheel(source, out, ["tyo"])


# -- the registry's wheels ----------------------------------------------------------------------


def test_a_released_wheel_is_believed_by_its_sha256_and_any_other_is_unpacked(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    check = contents.Wheel.check_files
    monkeypatch.setattr(contents.Wheel, "check_files", lambda self: counts.append(check(self)))
    assert not repair(source, out).released
    assert counts == [len(toy.contents())]
    table = {source.name: sha256(source.read_bytes()).hexdigest()}
    monkeypatch.setattr(released, "wheels", lambda: table)
    assert repair(source, out).released
    assert len(counts) == 1


def test_the_table_of_released_wheels() -> None:
    digest = released.wheels()["vllm-0.8.4-cp38-abi3-manylinux1_x86_64.whl"]
    assert digest == "e346749ee8df48cdcd935d00a7fc123a1e17d9904b064401e74fc6ad73b8104a"
    assert released.is_released(digest)
    assert not released.is_released("0" * 64)


# -- the receipt --------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], object]


def _receipt(folder: Path, change: Change) -> Path:
    patch = {
        "patch": "toy",
        "file": FILE,
        "rewrites": ["widen"],
        "before": "0" * 64,
        "after": "1" * 64,
        "proof": None,
    }
    origin = {"name": toy.NAME, "sha256": "0" * 64}
    content = {"schema": 1, "version": "0.8.4+glmpatch.1.x0", "from": origin, "patches": [patch]}
    change(content)
    (folder / RECEIPT).write_text(json.dumps(content))
    return folder


def test_no_receipt_is_none(tmp_path: Path) -> None:
    assert read_wheel_receipt(tmp_path) is None
    assert read_wheel_receipt(tmp_path / "gone") is None
    (tmp_path / RECEIPT).symlink_to("/dev/zero")
    assert read_wheel_receipt(tmp_path) is None


def test_a_receipt_with_a_field_more_is_read(tmp_path: Path) -> None:
    found = read_wheel_receipt(_receipt(tmp_path, lambda content: content.update(more=1)))
    assert found is not None
    assert found["patches"][0]["patch"] == "toy"


SENSELESS: dict[str, Change] = {
    "another schema": lambda content: content.update(schema=2),
    "no schema": lambda content: content.pop("schema"),
    "no patches": lambda content: content.pop("patches"),
    "an empty patch": lambda content: content.update(patches=[{}]),
    "a number of patches": lambda content: content.update(patches=3),
    "a short sha256": lambda content: content["from"].update(sha256="0"),
    "two lines": lambda content: content["from"].update(name="a\nb"),
    "no sha256": lambda content: content["patches"][0].update(after=None),
    "a word of a proof": lambda content: content["patches"][0].update(proof="yes"),
    "large": lambda content: content.update(more="x" * 1_000_000),
}


@pytest.mark.parametrize("case", SENSELESS)
def test_a_receipt_that_makes_no_sense_is_an_error(case: str, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no receipt that this glmpatch can read") as raised:
        read_wheel_receipt(_receipt(tmp_path, SENSELESS[case]))
    assert raised.value.code is Exit.TARGET


def test_a_receipt_that_is_no_json_is_an_error(tmp_path: Path) -> None:
    for data in (b"", b"[]", b"\xff", b"[" * 100_000, b"3"):
        (tmp_path / RECEIPT).write_bytes(data)
        with pytest.raises(Failure, match="no receipt"):
            read_wheel_receipt(tmp_path)
