"""What is found on a disk, said in Chinese: the words change, and nothing else does."""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from glmpatch import language
from glmpatch.errors import Failure
from glmpatch.patch import PatchState
from glmpatch.site import interpreter, surroundings
from glmpatch.site import receipt as receipts
from glmpatch.site.examination import Examination
from glmpatch.site.examine import examine
from glmpatch.site.install import Change, install
from glmpatch.site.target import find_target
from glmpatch.site.undo import revert
from tests.site.conftest import make
from tests.support import toy
from tests.support.site import Site
from tests.support.toy import PATCH, RELEASED, REPAIRED


@pytest.fixture(autouse=True)
def _chinese() -> Iterator[None]:
    with language.speaking("zh_CN"):
        yield


def look(root: Path, owner: bool = True) -> Examination:
    return examine(find_target(sys.executable if owner else None, str(root)), PATCH)


def fail(act: Callable[[], object]) -> Failure:
    with pytest.raises(Failure) as caught:
        act()
    return caught.value


def test_no_vllm_in_a_folder(tmp_path: Path) -> None:
    failure = fail(lambda: find_target(path=str(tmp_path)))
    assert failure.message == f"--path {tmp_path}：其中没有 vllm/__init__.py"
    assert failure.hint == "--path 填包含 vllm 包的目录，例如 site-packages"


def test_an_option_in_a_hint_can_be_pasted(tmp_path: Path) -> None:
    site = make(tmp_path / "a b" / "site")
    failure = fail(lambda: find_target(path=str(site.root / "vllm")))
    assert failure.message == f"--path {site.root}/vllm：这是 vllm 包本身，不是包含它的目录"
    option, folder = shlex.split(failure.hint)
    assert find_target(**{option.removeprefix("--"): folder}).root == site.root


def test_what_a_python_says_is_passed_on() -> None:
    failure = fail(lambda: interpreter.ask(Path("/dev/null")))
    words = os.strerror(errno.EACCES)
    assert failure.message == f"--python /dev/null：不是能在这里运行的 Python 解释器：{words}"


def test_a_file_that_was_edited_since(tree: Site) -> None:
    target = find_target(path=str(tree.root))
    install(target, Change(PATCH.id, toy.FILE, RELEASED, REPAIRED))
    tree.model.write_bytes(b"# mine\n")
    failure = fail(lambda: revert(target, PATCH.id, toy.FILE, []))
    assert failure.message == f"{tree.model} 在 glmpatch 修复之后又被编辑过"
    assert failure.hint == "加上 --force 可还原原文件，但会丢失这些编辑"


def test_a_receipt_that_cannot_be_read(tree: Site) -> None:
    target = find_target(path=str(tree.root))
    install(target, Change(PATCH.id, toy.FILE, RELEASED, REPAIRED))
    tree.receipt.write_text("{}")
    failure = fail(lambda: receipts.read(target, PATCH.id, toy.FILE))
    assert failure.message == (
        f"此 glmpatch 无法读取记录 {tree.receipt}：它不是带 schema 的 JSON 对象；未作任何修改"
    )


def test_what_is_found_does_not_depend_on_the_language(tree: Site) -> None:
    """State and line are not read out of a message."""
    for data, owner in (
        (RELEASED + b"SPEED = 3\n", True),
        (RELEASED.replace(b"-total", b"total"), False),
        (RELEASED.replace(b"hidden - residual", b"hidden * residual"), True),
        (b"def", True),
    ):
        tree.model.write_bytes(data)
        chinese = look(tree.root, owner)
        with language.speaking("en"):
            english = look(tree.root, owner)
        assert (chinese.state, chinese.line) == (english.state, english.line)
        assert len(chinese.differs) == len(english.differs)
        assert chinese.state in (PatchState.UNPROVEN, PatchState.DRIFTED)


def test_where_a_file_differs(tree: Site) -> None:
    tree.model.write_bytes(RELEASED + b"SPEED = 3\n")
    found = look(tree.root)
    assert found.problem == "它在别处与所有已知文件都不同"
    assert (found.line, found.differs) == (9, ("SPEED 第 9 行",))
    (tree.root / toy.BESIDE).unlink()
    tree.model.write_bytes(RELEASED)
    assert look(tree.root).problem == f"它依赖 {toy.BESIDE}，而该文件缺失"


def test_python_says_what_is_wrong_with_a_source(tree: Site) -> None:
    tree.model.write_bytes(b"def")
    with language.speaking("en"):
        (_kind, words) = look(tree.root).problem.split(": ", 1)
    assert look(tree.root).problem == f"语法错误：{words}"


def test_a_command_in_a_hint_stays_as_it_is(tmp_path: Path) -> None:
    target = find_target(sys.executable, str(make(tmp_path / "site").root))
    with language.speaking("en"):
        command = surroundings.restore(target).partition(": ")[2]
    assert "vllm==0.8.4" in command
    assert surroundings.restore(target) == f"重装发行版的文件：{command}"


def test_a_receipt_is_the_same_in_every_language(tmp_path: Path) -> None:
    written = []
    for spoken in ("zh_CN", "en"):
        site = make(tmp_path / spoken)
        with language.speaking(spoken):
            install(
                find_target(path=str(site.root)), Change(PATCH.id, toy.FILE, RELEASED, REPAIRED)
            )
        written.append(re.sub(rb'"time": ".*"', b"", site.receipt.read_bytes()))
    assert written[0] == written[1]
    assert written[0].isascii()
