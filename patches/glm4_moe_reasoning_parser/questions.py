"""Conversations as GLM-4.5's chat template writes them, and where the thinking of the answer ends.

The template: each past answer begins with ``<think>…</think>`` after ``<|assistant|>``, empty but
for those since the user spoke last; with thinking switched off, the prompt ends in an empty one.
The model begins its answer with ``<think>`` of its own. Thinking is what stands between the two
tags, content what stands after them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from glmpatch.language import N_
from glmpatch.proof.questions import Question

TAG = re.compile(r"(<\|\w+\|>|\[gMASK\]<sop>|</?think>)")
THOUGHT = "The sum is 2 + 2."
CONTENT = "It is 4, or <b>four</b>."
SYSTEM = "[gMASK]<sop><|system|>\nBe brief."
ANSWERED = "\n<think></think>\nIt was 3."
CALLED = "\n<think>Look it up.</think>\n<tool_call>look\n</tool_call>"
SEEN = "<|observation|>\n<tool_response>\n2 + 2\n</tool_response>"


def pieces(text: str) -> list[str]:
    """The tokens: tags are tokens of their own, words and signs stand for the others."""
    parts = TAG.split(text)
    found = [[part] if TAG.fullmatch(part) else re.findall(r"\w+|\W", part) for part in parts]
    return [piece for each in found for piece in each]


def prompt(turns: int, thinking: bool, called: int = 0) -> str:
    """A conversation in which the user speaks for the ``turns``-th time, and tools have been
    called ``called`` times since."""
    said = "<|user|>\nAnd now?" + ("" if thinking else "/nothink")
    before = f"{said}<|assistant|>{ANSWERED}" * (turns - 1)
    since = f"<|assistant|>{CALLED}{SEEN}" * called
    return f"{SYSTEM}{before}{said}{since}<|assistant|>" + ("" if thinking else "\n<think></think>")


def ask(words: str, given: str, thinking: bool) -> Iterator[Question]:
    """The questions about one prompt."""
    output = f"\n<think>{THOUGHT}</think>\n{CONTENT}" if thinking else f"\n{CONTENT}"
    thought = THOUGHT if thinking else ""
    asked = {"prompt": pieces(given), "output": pieces(output)}
    right: dict[str, Any]
    for where in ("chat", "tools"):
        for delta in (0, 1, 4, 100):
            right = {"reasoning": thought, "content": CONTENT}
            if where == "tools":
                right["read"] = CONTENT
            how = N_("streamed by {tokens}", tokens=delta) if delta else N_("whole")
            told = N_("{turn}, {where}, {how}", turn=words, where=where, how=how)
            yield Question(told, {**asked, "where": where, "delta": delta}, right)
    free, end, held = output.rpartition("</think>") if thinking else ("", "", output)
    right = {"free": free + end, "held": held}
    told = N_("{turn}, structured", turn=words)
    yield Question(told, {**asked, "where": "grammar", "delta": 1}, right)


def every() -> Iterator[Question]:
    for turns in range(1, 6):
        for thinking in (True, False):
            words = N_("turn {turn}, not thinking", turn=turns)
            if thinking:
                words = N_("turn {turn}, thinking", turn=turns)
            yield from ask(words, prompt(turns, thinking), thinking)
        for called in (1, 2):
            words = N_("turn {turn}, after {calls} tool calls", turn=turns, calls=called)
            if called == 1:
                words = N_("turn {turn}, after 1 tool call", turn=turns)
            yield from ask(words, prompt(turns, True, called), True)


QUESTIONS = tuple(every())
