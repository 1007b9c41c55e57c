"""A cluster in Chinese: whoever orders names the language, and every node answers in it."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from glmpatch import catalogue, language
from glmpatch.errors import Exit, Failure
from glmpatch.fleet import lines, many, node, phases
from glmpatch.fleet.archive import Unsound
from glmpatch.fleet.phases import Fate, Machine
from glmpatch.width import columns
from glmpatch.words import Words
from tests.fleet.conftest import repair
from tests.fleet.stand_in import APPLY, SECOND, STATUS, TABLE, StandIn, apply, make
from tests.fleet.test_ray import APPLIED, NEEDED, patch, said, seen

CHINESE = re.compile("[\u4e00-\u9fff]")


@pytest.fixture(autouse=True)
def _chinese() -> Iterator[None]:
    with language.speaking("zh_CN"):
        yield


@pytest.fixture
def fleet(_table: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    monkeypatch.setattr(catalogue, "table", lambda patch: TABLE)
    return StandIn({name: make(tmp_path / name).root for name in "ab"})


# -- the order ----------------------------------------------------------------------------------


class Cluster:
    """Notes the order, and has no nodes."""

    machines, interrupted, at, version = (), False, "h:1", "2.43.0"
    orders: list[Mapping[str, Any]]

    def __init__(self, address: str, progress: object) -> None:
        pass

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def ordered(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Any]:
    """The order that a command sends now."""
    orders: list[Mapping[str, Any]] = []
    monkeypatch.setattr(many, "Cluster", Cluster)
    monkeypatch.setitem(many.COMMANDS, "status", lambda _fleet, _all, order: orders.append(order))
    many.run("status", "auto", [], Words(), None, {"check": False})
    (order,) = orders
    return order


def test_an_order_says_in_which_language_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ordered(monkeypatch)["language"] == "zh-CN"
    language.speak_english()  # as --json does
    assert ordered(monkeypatch)["language"] == "en"


def test_the_first_order_of_a_process_is_in_its_language_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing need have been printed before."""
    language._catalogue = None
    monkeypatch.setenv("GLMPATCH_LANG", "zh_CN")
    assert ordered(monkeypatch)["language"] == "zh-CN"


# -- the answer ---------------------------------------------------------------------------------


def drifted(fleet: StandIn, language: str) -> tuple[str, str]:
    """What a node says of a file that it does not know."""
    (fleet.nodes["b"] / SECOND).write_bytes(b"(")
    answer = fleet.obey("b", {**APPLY, "do": "prepare", "language": language})
    (failure,) = answer["failures"]
    assert failure["code"] == Exit.DRIFT
    return failure["message"], answer["patches"][1]["problem"]


def test_a_node_answers_in_the_language_of_its_order_and_then_speaks_its_own(
    fleet: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    language.speak_english()
    # What its own terminal can show does not matter: nothing is printed there.
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    for _again in range(2):
        for message in drifted(fleet, "zh-CN"):
            assert "语法错误：" in message
        assert language.spoken() == "en"
        for message in drifted(fleet, "en"):
            assert "syntax error: " in message
            assert message.isascii()
    with language.speaking("zh_CN"):
        assert drifted(fleet, "en")[1].isascii()
        assert language.spoken() == "zh-CN"


def test_warnings_hints_and_faults_are_in_it_too(fleet: StandIn, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    fleet.nodes["b"] = tmp_path / "empty"
    for spoken, message, hint in (
        ("zh-CN", "其中没有 vllm/__init__.py", "--path 填包含"),
        ("en", "no vllm/__init__.py in it", "--path takes"),
    ):
        (failure,) = fleet.obey("b", {**STATUS, "do": "status", "language": spoken})["failures"]
        assert message in failure["message"]
        assert hint in failure["hint"]
    for spoken, message in (
        ("zh-CN", "glmpatch 自身的错误：KeyError: 'dance'"),
        ("en", "a fault of glmpatch itself: KeyError: 'dance'"),
    ):
        (failure,) = node.obey({"do": "dance", "language": spoken})["failures"]
        assert failure["message"] == message


def test_every_order_of_a_command_carries_the_language(fleet: StandIn) -> None:
    given = []
    obey = fleet.obey
    fleet.obey = lambda name, order: given.append(order) or obey(name, order)  # type: ignore
    apply(fleet, language="zh-CN")
    phases.status(fleet, fleet.machines(), {**STATUS, "language": "zh-CN"})
    assert len(given) == 8
    assert {order["language"] for order in given} == {"zh-CN"}


def test_what_a_node_keeps_is_english(fleet: StandIn) -> None:
    apply(fleet, language="zh-CN")
    for root in fleet.nodes.values():
        kept = list(root.glob("*.dist-info/*"))
        assert len(kept) == 6
        assert all(file.read_bytes().isascii() for file in kept)


# -- what is said -------------------------------------------------------------------------------


def test_columns_stand_under_each_other_where_characters_are_wide() -> None:
    found = said(
        "status",
        Machine("1", "10.0.0.1", seen("0.8.4", NEEDED, patch("q", "applied"), plugins=("plug",))),
        Machine("2", "10.0.0.2:40001", seen("0.8.4", patch("g", "needed", advised=False))),
        Machine("3", "10.0.0.3", fate=Fate.UNKNOWN, lost="节点已失效"),
    )
    assert found.title == "the Ray cluster at h:1 (Ray 2.43.0)：3 个节点"
    assert list(found.table) == [
        "节点            vLLM   补丁                                         插件",
        "10.0.0.1        0.8.4  needed（需要修复）：p；applied（已修复）：q  plug 1",
        "10.0.0.2:40001  0.8.4  不建议应用：g",
        "10.0.0.3        -      状态未知：节点已失效",
    ]
    heading, first = found.table[:2]
    assert columns(heading.partition("插件")[0]) == columns(first.partition("plug 1")[0])


def test_the_table_of_no_plugins_has_no_column_for_them() -> None:
    found = said("status", Machine("1", "a", seen("0.8.4", NEEDED)))
    assert list(found.table) == ["节点  vLLM   补丁", "a     0.8.4  needed（需要修复）：p"]


def test_where_nodes_differ_and_what_failed() -> None:
    found = said(
        "apply",
        Machine("1", "a", seen("0.8.4", APPLIED)),
        Machine(
            "2", "b", seen("0.9.0", NEEDED), failures=[{"code": 3, "message": "x", "hint": ""}]
        ),
        Machine("3", "c", fate=Fate.UNKNOWN, lost="节点已失效"),
    )
    assert [text for text, _hint in found.warnings] == [
        "版本不一致：a 上是 vLLM 0.8.4；b 上是 vLLM 0.9.0",
        "状态不一致：p 在 a 上是 正确；b 上是 needed（需要修复）",
    ]
    assert found.failure is not None
    assert found.failure.message.split("\n") == [
        "b：x",
        "c：状态未知：节点已失效",
        "所有已答复的节点上都未写入",
    ]
    assert "glmpatch apply --ray" in found.failure.hint
    assert CHINESE.search(language._(lines.JOIN))
    assert language._(lines.JOIN) in found.messages


def test_a_damaged_wheel_and_what_to_do(source: Path, out: Path) -> None:
    source.write_bytes(source.read_bytes()[:-100])
    with pytest.raises(Failure) as caught:
        repair(source, out)
    assert isinstance(caught.value.__cause__, Unsound)
    assert caught.value.message == f"{source.name} 被截断或已损坏：没有成员列表；未写入"
    command = "pip download --no-deps --only-binary=:all: vllm==0.8.4"
    assert caught.value.hint == f"请重新下载：{command}"


def test_a_wheel_is_the_same_in_every_language(source: Path, tmp_path: Path) -> None:
    made = []
    for spoken in ("zh_CN", "en"):
        out = tmp_path / spoken
        out.mkdir()
        with language.speaking(spoken):
            path = repair(source, out).path
        assert path is not None
        made.append(path.read_bytes())
    assert made[0] == made[1]
