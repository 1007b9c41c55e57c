"""What a proof finds is English to whoever stores it, and said in the language of the user."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest

from glmpatch.catalogue import load_patches
from glmpatch.errors import Failure
from glmpatch.language import N_, Message, _, packed, unpacked
from glmpatch.patch import Answers, Numbers
from glmpatch.proof import lines, process
from glmpatch.proof.driver import Candidate, Result, Statistic, Throughput, Verification, verify
from glmpatch.proof.kinds import answers
from glmpatch.proof.page import page
from glmpatch.proof.probe import faults
from glmpatch.proof.probe.choose import GIB, Device, Model, Wish, choose
from glmpatch.proof.probe.outcome import CannotRun, Steps, describe
from tests.proof.made import ANSWERED, CRASH, GOOD, PROOF, SPECIFICATION
from tests.support import pseudo

PROOFS = Path(lines.__file__).parent
NAMES = re.compile(
    r"""glmpatch(\ verify)? | (some|another)-patch | /models/some | vllm/linear\.py | vllm | vLLM
    | transformers | python | \w+ForCausalLM | model(\.\w+)*\b | b?float16 | float32
    | FP8 | NVFP4 | eager | compiled | graphs | V[01] | CPU | native | prefill | decode | SEGV
    | TypeError | <b>not</b>\ a\ &\ tuple | refused:\ does\ not\ support | dtype\ \w+ | auto | half
    | glm4[57] | chat | tools | responses""",
    re.VERBOSE,
)
"""What is called so in every language."""
LOOKED_UP = ("_", "N_", "Message")
SAYING = ("Failure", "CannotRun", "NotHonoured", "NotServable", "_not", "step")
"""What is given a text that a user reads."""
CHINESE = re.compile("[\u4e00-\u9fff]")


def unsaid(text: str) -> list[str]:
    """Words of the language that the user does not read."""
    return re.findall(r"[A-Za-z]{2,}", NAMES.sub("", pseudo.outside(click.unstyle(text))))


def everything() -> Verification:
    """Every kind of result, passed, wrong and crashed, and all that may stand beside it."""
    died = {"type": N_("the process died"), "message": _died(), "place": None, "traceback": ""}
    wrong = replace(
        GOOD,
        norms="in place",
        passed=False,
        statistics=(Statistic("rms / noise", None, 2.0), Statistic("worst difference", 9.0, 1e-4)),
    )
    crashed = replace(GOOD, mode="compiled", passed=False, statistics=(), crash=CRASH, wrong=None)
    plan = choose(
        Device("cuda", "H100", (9, 0), free=78 * GIB, total=80 * GIB),
        ("V1", "V0"),
        (Model("some-patch", "planned", "SomeForCausalLM"),),
        Wish(("compiled",), "bfloat16"),
        (0, 8, 4),
    )
    answered = replace(
        ANSWERED,
        answers=tuple(replace(a, question=N_("the eager mode")) for a in ANSWERED.answers * 4),
    )
    return replace(
        PROOF,
        results=(
            GOOD,
            wrong,
            crashed,
            Result("some-patch", "installed", "numbers", False, died),
            answered,
            replace(answered, file="installed", answers=answered.answers[1:2], passed=True),
            Result("another-patch", "as it stands", "answers", False, CRASH),
        ),
        witnesses=(replace(GOOD, file="transformers backend"),),
        throughput=(
            Throughput("some-patch", "native", "eager", "V0", 2817.4, 739.2, None),
            Throughput("some-patch", "native", "compiled", "V0", None, None, died),
        ),
        load=N_("{batch} prompts", batch=16),
        about={"another-patch": N_("vLLM's configuration")},
        left_out=plan.left_out,
        weights=N_("the weights of {model}", model="/models/some"),
    )


def _died() -> str:
    step = N_("asking vLLM ({file}, {precision})", file=Message("planned"), precision="float32")
    return N_(
        "{how} while {step}: {last}", how=N_("signal {name}", name="SEGV"), step=step, last=""
    )


def told(verification: Verification) -> Iterator[str]:
    for part in (lines.heading, lines.verdicts, lines.witnesses, lines.throughput):
        yield from part(verification)


def test_every_line_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    proofs = [everything(), replace(everything(), way="module")]
    assert [each for proof in proofs for each in map(unsaid, told(proof)) if each] != []
    pseudo.speak(monkeypatch)
    for proof in proofs:
        assert [line for line in told(proof) if unsaid(line)] == []


class Shown(HTMLParser):
    """What a page shows, and says to whoever cannot see it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.style = tag == "style"
        self.texts += [str(value) for name, value in attrs if name == "aria-label"]

    def handle_data(self, data: str) -> None:
        if not self.style:
            self.texts.append(data)


def test_every_text_of_the_page_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pseudo.speak(monkeypatch)
    shown = Shown(page(everything(), "vLLM 0.8.4"))
    assert len(shown.texts) > 200
    assert [text for text in shown.texts if unsaid(text)] == []


def test_a_page_says_which_language_it_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    pseudo.speak_as(monkeypatch, "zh_CN")
    text = page(everything(), "vLLM")
    assert '<html lang="zh-CN">' in text
    assert 'class="failed">未通过</span>' in text
    assert "证明：" in text


def test_columns_stand_below_each_other_in_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    from glmpatch.width import columns

    pseudo.speak_as(monkeypatch, "zh_CN")
    _verdict, head, first, second = lines.verdicts(
        replace(PROOF, results=(GOOD, replace(GOOD, norms="in place")))
    )
    for start in ("2.0e-05", "2.0e-04", "103/103"):
        (at,) = {columns(line[: line.index(start)]) for line in (first, second)}
        assert any(columns(head[: m.start()]) == at for m in re.finditer(r"(?<= )\S", head)), start


def test_what_is_stored_is_english_whatever_is_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    english = json.dumps(everything().to_dict())
    pseudo.speak_as(monkeypatch, "zh_CN")
    assert json.dumps(everything().to_dict()) == english
    assert not CHINESE.search(json.dumps(json.loads(english), ensure_ascii=False))


def test_a_message_comes_through_json_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    report = {"died": _died(), "numbers": [1.5, None], "plain": "as it was", "none": N_("none")}
    back = unpacked(json.loads(json.dumps(packed(report))))
    assert back == report
    pseudo.speak_as(monkeypatch, "zh_CN")
    assert _(back["died"]) == "信号 SEGV，当时正在询问 vLLM（修复后，float32）："
    assert (back["plain"], _(back["none"])) == ("as it was", "无")


def test_a_step_comes_through_its_file_whole(tmp_path: Path) -> None:
    step = Steps(str(tmp_path / "steps"), 0.0)
    asking = N_("asking vLLM ({file}, {precision})", file=Message("planned"), precision="float32")
    step(asking)
    step(N_("importing vLLM"))
    heard = process._steps(tmp_path / "steps")
    assert heard == [process.STARTING, asking, "importing vLLM"]
    assert isinstance(heard[1], Message)
    assert heard[1].values == {"file": "planned", "precision": "float32"}


def test_all_that_is_left_out_and_refused_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: set[str] = set()
    for device in (
        Device("cpu", count=1),
        Device("cuda", "H100", (9, 0), free=78 * GIB, total=80 * GIB),
        Device("cuda", "H100", (9, 0), free=1 * GIB, total=80 * GIB),
        Device("cuda", "T4", (7, 5), free=14 * GIB, total=15 * GIB),
        Device("cuda", "Radeon", (11, 0), amd=True, free=23 * GIB, total=24 * GIB),
    ):
        for engines in ((), ("V1",), ("V1", "V0")):
            for wish in (
                Wish(),
                Wish(("eager",), "bfloat16"),
                Wish(("compiled",), "float32"),
                Wish(pipeline=2),
                Wish(tensor=2),
                Wish(parameters=20 * GIB),
            ):
                models = (Model("p", "planned", "One"), Model("q", "planned", "Two", True))
                try:
                    said.update(choose(device, engines, models, wish).left_out)
                except CannotRun as error:
                    said.update((error.reason, error.hint))
    assert len(said) > 30
    pseudo.speak(monkeypatch)
    plain = re.compile(r"\b(H100|T4|Radeon|One|Two)\b")
    assert [text for text in said if unsaid(plain.sub("", _(text)))] == []
    for words, what, hint in faults.FAULTS:
        assert unsaid(_(what)) == unsaid(_(hint)) == [], words


def test_what_an_asker_says_of_a_file_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours is told as a message; one of vLLM or Python as it is."""
    ours = describe(CannotRun(N_("vLLM's registry has no {name}", name="Some"), ""))
    assert ours["message"] == "vLLM's registry has no Some"
    pseudo.speak_as(monkeypatch, "zh_CN")
    assert _(ours["message"]) == "vLLM 的注册表中没有 Some"
    assert _(describe(ValueError("no numbers"))["message"]) == "no numbers"


def test_no_text_is_given_to_a_user_past_the_catalogue() -> None:
    found = [
        f"{file.relative_to(PROOFS)}:{text.lineno}"
        for file in sorted(PROOFS.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.Call) and _name(node) in SAYING
        for argument in node.args
        for text in plain(argument)
    ]
    assert found == []


def _name(call: ast.Call) -> str:
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def plain(node: ast.AST) -> Iterator[ast.Constant]:
    """Texts of more than a word that are not looked up."""
    if isinstance(node, ast.Call) and _name(node) in LOOKED_UP:
        return
    if isinstance(node, ast.Constant) and re.search(r"[a-z] [a-z]", str(node.value)):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from plain(child)


def test_the_questions_and_answers_of_every_patch_can_be_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pseudo.speak(monkeypatch)
    asked = worded = 0
    for patch in load_patches():
        assert isinstance(patch.proof, Answers | Numbers)
        if not isinstance(patch.proof, Answers):
            assert all(isinstance(why, Message) for why in patch.proof.refused.values())
            continue
        assert isinstance(patch.proof.about, Message)
        for question in answers.questions(patch.proof):
            asked += 1
            assert isinstance(question.words, Message), question.words
            assert not unsaid(_(question.words))
            right = answers.told(question.right)
            assert "object at 0x" not in right
            worded += isinstance(right, Message)
            assert not (isinstance(right, Message) and unsaid(_(right)))
    assert asked > 500
    assert worded > 30


@pytest.mark.parametrize("patch", load_patches(), ids=lambda each: each.id)
def test_a_patch_says_in_chinese_what_it_is_about(
    patch: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from glmpatch.patch import Patch

    assert isinstance(patch, Patch)
    pseudo.speak_as(monkeypatch, "zh_CN")
    texts = [patch.title, patch.why, patch.how, patch.removal, *patch.afterwards]
    texts += [each.title for each in patch.rewrites]
    texts += [each for each in patch.symptoms if each.startswith("silent:")]
    texts += [patch.caution] if patch.caution else []
    for text in texts:
        said = _(text)
        assert CHINESE.search(said), text
        assert "\n" not in said
    errors = [each for each in patch.symptoms if not each.startswith("silent:")]
    assert [_(each) for each in errors] == errors


def test_the_probe_is_heard_in_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts in an interpreter that has no torch, and says so."""
    (site,) = {path for path in sys.path if path.endswith("site-packages")}
    candidate = Candidate("some-patch", "planned", SPECIFICATION, "vllm/some.py", b"")
    pseudo.speak_as(monkeypatch, "zh_CN")
    steps: list[str] = []
    with pytest.raises(Failure, match=r"证明无法运行：.* 无法导入 torch：没有安装") as caught:
        verify(Path(sys.executable), Path(site), [], [candidate], on_step=steps.append)
    assert caught.value.hint.startswith("在 ")
    assert set(steps) <= {"正在启动解释器", "正在导入 torch 和 transformers"}
    assert steps[0] == "正在启动解释器"
