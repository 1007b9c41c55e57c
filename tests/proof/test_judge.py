"""What the limits make of what was measured: no vLLM is needed to judge."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from glmpatch.errors import Exit, Failure
from glmpatch.patch import Answers
from glmpatch.patches.glm4_float16_guard.patch import PATCH as GUARD
from glmpatch.patches.glm4_float16_guard.questions import QUESTIONS
from glmpatch.proof.driver import Result
from glmpatch.proof.judge import judge
from glmpatch.proof.kinds import answers, numbers
from glmpatch.proof.questions import OneOf, Question, Refused
from tests.proof.made import CRASH, GOOD, PROOF, SPECIFICATION, measured, measured_low


def judged(**changed: Any) -> Result:
    return numbers.judge(measured(**changed), SPECIFICATION, "module")


def test_float32_may_be_ten_times_the_noise_away_and_no_more() -> None:
    assert judged(distance=1.99e-5).passed
    assert not judged(distance=2.01e-5).passed
    assert not judged(distance=None).passed
    (figure,) = judged(distance=1e-5).statistics
    assert figure.share == pytest.approx(0.5)
    assert judged().wrong == 300.0


def test_noise_below_the_spacing_of_numbers_is_no_measure() -> None:
    (figure,) = judged(noise=0.0).statistics
    assert figure.limit == pytest.approx(10 * 8 * 2**-23)


@pytest.mark.parametrize(
    ("changed", "passed", "nearest"),
    [
        ({}, True, "rms / noise"),
        ({"rms": 2.01}, False, "rms / noise"),
        ({"position": 7.01}, False, "worst position / noise"),
        ({"theta x1.01": 0.51}, False, "theta x1.01"),
        ({"rms": 2.0, "position": 7.0, "theta x1.01": 0.5}, True, "rms / noise"),
    ],
)
def test_bfloat16_must_keep_each_of_its_limits(
    changed: dict[str, float], passed: bool, nearest: str
) -> None:
    result = numbers.judge(measured_low(**changed), SPECIFICATION, "module")
    assert result.passed == passed
    assert result.nearest is not None
    assert result.nearest.name == nearest
    assert result.line == pytest.approx(7 * 0.01)


def test_a_crash_is_no_pass() -> None:
    result = judged(crash=CRASH)
    assert not result.passed
    assert result.statistics == ()


@pytest.mark.parametrize("noise", [None, float("nan"), 1.1e-3])
def test_too_noisy_a_reference_proves_nothing(noise: float | None) -> None:
    with pytest.raises(Failure, match="proves nothing") as caught:
        judged(noise=noise)
    assert caught.value.code is Exit.PROOF_NOT_RUN


def test_no_numbers_are_no_pass() -> None:
    nothing = replace(PROOF, results=())
    assert not nothing.passed
    assert not nothing.passed_file("some-patch", "planned")


def test_a_file_must_be_right_in_every_way_in_which_it_was_asked() -> None:
    bad = replace(GOOD, mode="compiled", passed=False)
    proof = replace(PROOF, results=(GOOD, bad, replace(GOOD, file="installed")))
    assert not proof.passed_file("some-patch", "planned")
    assert proof.passed_file("some-patch", "installed")
    assert proof.failed == ("some-patch",)
    assert not proof.passed


def report(**changed: Any) -> dict[str, Any]:
    return {
        "way": "module",
        "device": "CPU",
        "versions": {},
        "seconds": 1.0,
        "results": [measured(), {**measured(file="backend"), "impl": "transformers"}],
        **changed,
    }


def test_the_wrong_file_that_is_known_is_told_of_our_weights_alone() -> None:
    for ours, told in ((True, 300.0), (False, None)):
        proof = judge(report(), {"some-patch": SPECIFICATION}, ours)
        assert [each.wrong for each in proof.results] == [told]
        assert [each.file for each in proof.witnesses] == ["backend"]


# -- answers --------------------------------------------------------------------------------------


def test_an_answer_is_right_by_equality_or_by_what_the_question_says() -> None:
    assert Question("", {}, {"a": [1]}).is_right({"a": [1]})
    assert not Question("", {}, {"a": [1]}).is_right({"a": [2]})
    either = Question("", {}, OneOf("bfloat16", "float32"))
    assert either.is_right("float32")
    assert not either.is_right("float16")
    refused = Question("", {}, Refused("does not support"))
    of_two_kinds = Question("", {}, OneOf("float16", Refused("float16")))
    assert of_two_kinds.is_right("float16")
    assert of_two_kinds.is_right("refused: no float16")
    assert not of_two_kinds.is_right("bfloat16")
    assert refused.is_right("refused: float16: does not support it")
    assert not refused.is_right("refused: another reason")
    assert not refused.is_right("does not support")
    assert not refused.is_right({"raised": "refused: does not support"})


def answered(given: list[Any], crash: Any = None) -> Result:
    assert isinstance(GUARD.proof, Answers)
    found = {"proof": GUARD.id, "file": "planned", "crash": crash, "answers": given}
    return answers.judge(found, GUARD.proof, None)


RIGHT = [
    "refused: The model type 'glm4' does not support float16. Reason: ..."
    if isinstance(q.right, Refused)
    else q.right.answers[0]
    if isinstance(q.right, OneOf)
    else q.right
    for q in QUESTIONS
]


def test_every_answer_must_be_right() -> None:
    assert answered(RIGHT).passed
    for number in range(len(RIGHT)):
        wrong = [*RIGHT[:number], "float8", *RIGHT[number + 1 :]]
        result = answered(wrong)
        assert not result.passed
        (told,) = result.wrong_answers
        assert told.question == QUESTIONS[number].words


def test_a_crash_or_too_few_answers_are_no_pass() -> None:
    assert not answered([], CRASH).passed
    with pytest.raises(ValueError, match="shorter"):
        answered(RIGHT[:-1])


def test_the_first_wrong_answers_are_told_and_the_others_counted() -> None:
    lines = list(answers.lines([answered(["float8"] * len(RIGHT))]))
    assert lines[0] == f"  right answers  0 of {len(RIGHT)}"
    assert (
        lines[1]
        == "  dtype float16 for Glm4ForCausalLM in bfloat16: float8, and right is refused: "
        "does not support float16"
    )
    assert lines[-1] == f"  and {len(RIGHT) - 5} more wrong answers"
    assert len(lines) == 7


def test_a_long_answer_is_cut_and_stays_one_line() -> None:
    result = answered([{"text": "line\nline " * 100}, *RIGHT[1:]])
    (told,) = result.wrong_answers
    assert len(told.answer) == answers.LENGTH
    assert "\n" not in told.answer


def test_what_is_right_is_never_told_to_the_one_who_is_asked() -> None:
    assert isinstance(GUARD.proof, Answers)
    order = answers.order(GUARD.proof)
    assert order["questions"] == [each.asked for each in QUESTIONS]
    assert "does not support" not in json.dumps(order)
