"""Questions of a proof by answers, with their right answers: what ``patches/NAME/questions.py``
is made of.

A patch lists them as data::

    QUESTIONS = (
        Question("a call with two arguments", {"text": "..."}, {"name": "f", "arguments": {}}),
        Question("dtype float16", {"dtype": "float16"}, Refused("does not support")),
        Question("dtype auto", {"dtype": "auto"}, OneOf("bfloat16", "float32")),
    )

Only ``asked`` travels to the interpreter that owns vLLM: what is right is never told to the code
that is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from glmpatch.language import N_, joined

REFUSED = "refused: "
"""How an asker begins the answer of code that refuses, before the error's message."""


class OneOf:
    """Any of several answers is right; each is an answer, or a function that tells right ones."""

    def __init__(self, *answers: Any) -> None:
        self.answers = answers

    def __call__(self, answer: Any) -> bool:
        return any(_is(right, answer) for right in self.answers)

    def __str__(self) -> str:
        return joined(map(str, self.answers), N_("{one} or {other}"))


class Refused:
    """The code must refuse, with an error that says this."""

    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, answer: Any) -> bool:
        return isinstance(answer, str) and answer.startswith(REFUSED) and self.word in answer

    def __str__(self) -> str:
        return f"{REFUSED}{self.word}"


@dataclass(frozen=True)
class Question:
    """One question.

    ``words`` tell a person what is asked (a message, ``N_("...")``, where they are to be
    translated), ``asked`` is put to the asker and travels as JSON.
    ``right`` is the right answer, or a function that says whether one is right; ``str`` of that
    function tells a person what was expected.
    """

    words: str
    asked: Any
    right: Any | Callable[[Any], bool]

    def is_right(self, answer: Any) -> bool:
        """Whether an answer, as it came back through JSON, is right."""
        return _is(self.right, answer)


def _is(right: Any, answer: Any) -> bool:
    return bool(right(answer) if callable(right) else answer == right)
