"""vLLM's answers to questions whose right answers are known."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from glmpatch.language import Message, _
from glmpatch.patch import Answers
from glmpatch.proof.questions import Question
from glmpatch.proof.result import Answer, Result, Verification

LENGTH = 200
"""Characters of an answer that are shown."""
SHOWN = 5
"""How many wrong answers are shown."""


def questions(specification: Answers) -> tuple[Question, ...]:
    """The questions, with their right answers; imported only when a proof is made."""
    module = importlib.import_module(f"glmpatch.patches.{specification.questions}")
    found = tuple(module.QUESTIONS)
    if not found:
        raise ValueError(f"{specification.questions} asks nothing")
    return found


def order(specification: Answers) -> dict[str, Any]:
    """What the probe is told: the questions, and not what is right."""
    asked = [question.asked for question in questions(specification)]
    return {**asdict(specification), "questions": asked}


def judge(measured: Mapping[str, Any], specification: Answers, way: str | None) -> Result:
    """The result of one file."""
    crash = measured["crash"]
    answers = tuple(
        Answer(
            question.words,
            _text(answer),
            question.is_right(answer),
            told(question.right),
        )
        for question, answer in zip(
            questions(specification), measured["answers"], strict=crash is None
        )
    )
    return Result(
        patch=measured["proof"],
        file=measured["file"],
        kind="answers",
        passed=crash is None and bool(answers) and all(answer.right for answer in answers),
        crash=crash,
        answers=answers,
    )


def told(right: Any) -> str:
    """What is right, in words or as an answer; a message is short, and stays one."""
    words = str(right) if callable(right) else right
    return words if isinstance(words, Message) else _text(words)


def _text(answer: Any) -> str:
    """An answer as one line of bounded length."""
    text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    line = " ".join(text.split())
    return line if len(line) <= LENGTH else line[: LENGTH - 3] + "..."


def heading(verification: Verification) -> list[str]:
    """Who was asked; that no model was run."""
    asked: dict[str, list[str]] = {}
    for each in verification.results:
        if each.kind == "answers" and each.patch not in asked.setdefault(
            verification.about.get(each.patch, "vLLM"), []
        ):
            asked[verification.about.get(each.patch, "vLLM")].append(each.patch)
    return [
        _(
            "{patches}: by the answers of {who}; no model was run",
            patches=", ".join(patches),
            who=_(who),
        )
        for who, patches in asked.items()
    ]


def lines(results: Sequence[Result]) -> Iterator[str]:
    """How many answers are right, and the first of those that are not."""
    for result in results:
        if result.crash is not None:
            crash = result.crash
            yield "  " + _("{type}: {message}", type=crash["type"], message=crash["message"])
            if crash["place"]:
                yield "  " + _("at {place}", place=crash["place"])
            continue
        wrong, every = result.wrong_answers, len(result.answers)
        yield "  " + _("right answers  {right} of {number}", right=every - len(wrong), number=every)
        for each in wrong[:SHOWN]:
            yield "  " + _(
                "{question}: {answer}, and right is {expected}",
                question=_(each.question),
                answer=each.answer,
                expected=_(each.expected),
            )
        if len(wrong) > SHOWN:
            yield "  " + _("and {number} more wrong answers", number=len(wrong) - SHOWN)
