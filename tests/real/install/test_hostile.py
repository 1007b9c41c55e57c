"""Trees that somebody made to hurt, or that broke: nothing outside is written, nothing hangs."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real.install.conftest import make
from tests.real.install.test_bytecode import interpreters
from tests.support import syscalls
from tests.support.command import command, glmpatch, needs_root, state
from tests.support.site import Site
from tests.support.syscalls import Call, Do

pytestmark = pytest.mark.usefixtures("plan_once")

COMMANDS = ("status", "diff", "apply", "revert")


@pytest.fixture(autouse=True)
def _must_not_hang() -> Iterator[None]:
    """A command that waits for a FIFO waits for ever."""

    def late(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# -- in place of the model file ------------------------------------------------------------------


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)
        server.bind(path.name)
        os.chdir(here)


def _link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


OBSTACLES = (_fifo, _folder, _socket, _link_to_device, _link_to_nothing, _link_to_itself)


@pytest.mark.parametrize("put", OBSTACLES)
@pytest.mark.parametrize("patched", [False, True])
def test_something_else_in_place_of_the_model_file_is_refused(
    tree: Site, put: Callable[[Path], None], patched: bool
) -> None:
    if patched:
        assert glmpatch(tree, "apply").code == 0
    tree.model.unlink()
    put(tree.model)
    before = tree.tree()
    codes = {name: glmpatch(tree, name).code for name in COMMANDS}
    assert codes == {"status": 0, "diff": 5, "apply": 5, "revert": 5 if patched else 0}
    assert tree.tree() == before


@needs_root
def test_a_device_in_place_of_the_model_file_is_refused(tree: Site) -> None:
    tree.model.unlink()
    os.mknod(tree.model, 0o600 | 0o020000, os.makedev(1, 5))
    assert glmpatch(tree, "apply").code == 5
    assert glmpatch(tree, "revert").code == 0


@pytest.mark.parametrize("put", OBSTACLES)
@pytest.mark.parametrize("name", ["RECORD", "receipt", "original", "staged model", "staged RECORD"])
def test_something_else_in_place_of_our_files_is_an_error_or_replaced(
    tree: Site, tmp_path: Path, put: Callable[[Path], None], name: str
) -> None:
    paths = {
        "RECORD": tree.record,
        "receipt": tree.receipt,
        "original": tree.original,
        "staged model": tree.model.with_name(".glm4.py.glmpatch"),
        "staged RECORD": tree.record.with_name(".RECORD.glmpatch"),
    }
    path = paths[name]
    path.unlink(missing_ok=True)
    put(path)
    before = tree.tree()
    run = glmpatch(tree, "apply")
    assert run.code in ((5,) if name == "receipt" else (0, 3)), run.output
    assert "fault of glmpatch" not in run.output
    if run.code == 5:
        assert "nothing was changed" in run.output
        assert tree.tree() == before
    elif run.code == 0:
        assert state(tree) == "applied"
        assert path.is_symlink() is False
    else:
        assert "the model file is as it was" in run.output or "nothing was changed" in run.output
        left = tree.tree()
        # What is in the way of a file that we own may go, all else stays.
        assert {k: v for k, v in before.items() if k in left} == left


@pytest.mark.parametrize("name", ["METADATA", "direct_url.json", "RECORD"])
def test_a_fifo_among_the_metadata_does_not_block(tree: Site, name: str) -> None:
    path = tree.dist_info / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    for each in COMMANDS:
        assert glmpatch(tree, each).code in (0, 3)


# -- folders that are links ----------------------------------------------------------------------


@pytest.mark.parametrize("where", ["vllm", "vllm/model_executor", "vllm/model_executor/models"])
@pytest.mark.parametrize("patched", [False, True])
def test_a_folder_that_is_a_link_is_not_followed(
    tree: Site, tmp_path: Path, where: str, patched: bool
) -> None:
    if patched:
        assert glmpatch(tree, "apply").code == 0
    outside = Site(tmp_path / "outside")
    outside.root.mkdir()
    (tree.root / where).rename(outside.root / "folder")
    (tree.root / where).symlink_to(outside.root / "folder")
    before, elsewhere = tree.tree(), outside.seen()
    assert glmpatch(tree, "apply").code == 5
    run = glmpatch(tree, "revert")
    assert run.code == (3 if patched else 0)
    if patched:
        assert f"{tree.root / where}: Not a directory; nothing was changed" in run.output
        assert "a link or a file stands where a folder should be" in run.output
    assert tree.tree() == before
    assert outside.seen() == elsewhere


@pytest.mark.parametrize("version", ["0.8.4", None])
def test_a_folder_for_receipts_that_is_a_link_is_not_followed(
    tmp_path: Path, released_file: bytes, version: str | None
) -> None:
    tree = make(tmp_path / "other", version)
    outside = tmp_path / "outside"
    if version:
        tree.receipts.rename(outside)
    else:
        outside.mkdir()
    tree.receipts.symlink_to(outside)
    before = sorted(path.name for path in outside.iterdir())
    run = glmpatch(tree, "apply")
    assert run.code == 3
    assert "is a symbolic link" in run.output
    assert sorted(path.name for path in outside.iterdir()) == before
    assert tree.model.read_bytes() == released_file


@pytest.mark.parametrize("name", ["apply", "revert"])
def test_a_folder_that_becomes_a_link_at_any_moment_leads_nowhere(
    tree: Site, tmp_path: Path, name: str, tell: Callable[[str, int], None]
) -> None:
    """Somebody who may write above puts a link where a folder was a moment ago."""
    if name == "revert":
        assert glmpatch(tree, "apply").code == 0
    before = tree.copy(tmp_path / "before")
    outside = before.copy(tmp_path / "outside")
    calls = syscalls.run(command(tree, name)).calls
    tree.become(before)
    tried = 0
    folders = (tree.root / "vllm", tree.model.parent, tree.dist_info)
    for folder in folders:
        for point, call in enumerate(calls):
            if call.name not in ("openat", "unlinkat", "renameat"):
                continue
            if not call.path.startswith(str(folder)):
                continue

            def replace(_: Call, folder: Path = folder) -> None:
                folder.rename(tree.root / "moved")
                folder.symlink_to(outside.root / folder.relative_to(tree.root))

            tree.become(before)
            seen = outside.seen()
            run = syscalls.run(command(tree, name), point, Do.MEANWHILE, meanwhile=replace)
            where = f"{folder.name} before {call}: {run.output}"
            assert outside.seen() == seen, where
            assert "fault of glmpatch" not in run.output, where
            tried += 1
    tell(f"{name}: a folder becomes a link at a call", tried)
    assert tried > 20


# -- RECORD --------------------------------------------------------------------------------------

RECORDS = {
    "absolute path": b"/etc/passwd,sha256=x,1\nvllm/__init__.py,,\n",
    "dots": b"../../../etc/passwd,,\n..,,\nvllm/__init__.py,,\n",
    "duplicates": b"vllm/__init__.py,,\n" * 3,
    "missing lines": b"",
    "no final newline": b"vllm/__init__.py,,\nvllm-0.8.4.dist-info/RECORD,,",
    "crlf": b"vllm/__init__.py,,\r\nvllm-0.8.4.dist-info/RECORD,,\r\n",
    "crlf, no final newline": b"vllm/__init__.py,,\r\nvllm-0.8.4.dist-info/RECORD,,",
    "lone carriage returns": b"a,,\rb,,\rc,,",
    "one line, no newline": b"vllm/__init__.py,,",
    "only newlines": b"\n\n\n",
    "quotes": b'"a,\nb",,\n"vllm-0.8.4.dist-info/x",,\n"open,,\n',
    "not utf-8": b"\xff\xfe,,\n\x00\x00\n",
    "a very long line": b"x" * 300_000 + b",,\n",
    "byte order mark": b"\xef\xbb\xbfvllm/__init__.py,,\n",
    "no commas": b"vllm\nglmpatch\n",
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_any_record_comes_back_byte_for_byte(tree: Site, record: bytes) -> None:
    tree.record.write_bytes(record)
    before = tree.tree()
    assert glmpatch(tree, "apply").code == 0
    listed = tree.record.read_bytes()
    assert listed.endswith(record)
    for path in (tree.receipt, tree.original):
        assert listed.count(f"{path.parent.name}/{path.name},sha256=".encode()) == 1
    assert glmpatch(tree, "apply").code == 0
    assert tree.record.read_bytes() == listed
    assert glmpatch(tree, "revert").code == 0
    assert tree.tree() == before


def test_a_missing_record_stays_missing(tree: Site) -> None:
    tree.record.unlink()
    before = tree.tree()
    assert glmpatch(tree, "apply").code == 0
    assert not tree.record.exists()
    assert glmpatch(tree, "revert").code == 0
    assert tree.tree() == before


def test_a_record_of_gigabytes_is_refused(tree: Site) -> None:
    os.truncate(tree.record, 8 * 2**30)
    run = glmpatch(tree, "apply")
    assert run.code == 3
    assert "File too large; the model file is as it was" in run.output


# -- receipts; tests/site/test_receipt.py has those that make no sense ---------------------------


def test_a_forged_receipt_makes_no_broken_file_pass(tree: Site, released_file: bytes) -> None:
    assert glmpatch(tree, "apply").code == 0
    receipt = json.loads(tree.receipt.read_bytes())
    tree.model.write_bytes(released_file)
    receipt["before"], receipt["after"] = receipt["after"], receipt["before"]
    tree.receipt.write_text(json.dumps(receipt))
    assert state(tree) == "needed"
    assert glmpatch(tree, "status", "--check").code == 1
    assert glmpatch(tree, "revert").code == 5
    assert tree.model.read_bytes() == released_file
    assert glmpatch(tree, "apply").code == 0
    assert state(tree) == "applied"


def test_an_original_that_was_changed_is_not_put_back(tree: Site) -> None:
    assert glmpatch(tree, "apply").code == 0
    tree.original.write_text("import os; os.system('true')\n")
    patched = tree.model.read_bytes()
    run = glmpatch(tree, "revert", "--force")
    assert run.code == 5
    assert "the original is gone" in run.output
    assert tree.model.read_bytes() == patched


def test_nothing_that_is_read_is_executed(tree: Site, tmp_path: Path) -> None:
    """Were any of it imported, evaluated or run, it would leave a mark."""
    mark = tmp_path / "mark"
    code = f"open({str(mark)!r}, 'w').close()\n".encode()
    (tree.root / "vllm" / "__init__.py").write_bytes(code)
    (tree.root / "sitecustomize.py").write_bytes(code)
    (tree.root / "evil.pth").write_bytes(b"import os; " + code)
    tree.model.write_bytes(code + tree.model.read_bytes())
    codes = {"status": 0, "diff": 5, "apply": 5, "revert": 0}
    for python in [None, *interpreters()[:2]]:
        owner = ("--python", python) if python else ()
        assert {name: glmpatch(tree, name, *owner).code for name in COMMANDS} == codes
    assert not mark.exists()


# -- metadata ------------------------------------------------------------------------------------


def test_two_metadata_folders_are_named_and_nothing_is_written(tree: Site) -> None:
    other = tree.root / "vllm-0.8.5.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Name: vllm\nVersion: 0.8.5\n")
    before = tree.tree()
    run = glmpatch(tree, "apply")
    assert run.code == 3
    assert str(other) in run.output
    assert str(tree.dist_info) in run.output
    assert tree.tree() == before


def test_metadata_of_another_version_stops_apply(tree: Site) -> None:
    (tree.dist_info / "METADATA").write_text("Name: vllm\nVersion: 0.8.5\n")
    before = tree.tree()
    assert glmpatch(tree, "apply").code == 4
    assert tree.tree() == before
