"""Conversations as GLM-4.5's chat template writes them, and where the thinking of the answer ends.

The template: each past answer begins with ``<think>…</think>`` after ``<|assistant|>``, empty but
for those since the user spoke last; with thinking switched off, the prompt ends in an empty one.
The model begins its answer with ``<think>`` of its own. Thinking is what stands between the two
tags, content what stands after them. What ``max_tokens`` cuts off before ``</think>`` is thinking
alone; a whole answer that is cut there is content with its ``<think>`` in all of these releases,
which is none of the patch's defects, so that either is right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from glmpatch.language import N_
from glmpatch.proof.questions import OneOf, Question

TAG = re.compile(r"(<\|\w+\|>|\[gMASK\]<sop>|</?think>)")
THOUGHT = "The sum is 2 + 2."
CONTENT = "It is 4, or <b>four</b>."
SYSTEM = "[gMASK]<sop><|system|>\nBe brief."
ANSWERED = "\n<think></think>\nIt was 3."
CALLED = "\n<think>Look it up.</think>\n<tool_call>look\n</tool_call>"
OTHER = ("Three and 3, add them.", "That makes 6.")
"""What the user of another request reads, who must not read the first one's thoughts."""
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


class Either(OneOf):
    """One of several values, told as they are: they are no words, and the same in any language."""

    def __str__(self) -> str:
        return " | ".join(map(json.dumps, self.answers))


def answer(where: str, thought: str, content: str) -> dict[str, str]:
    """What a client gets, and with tools what their parser reads."""
    told = {"reasoning": thought, "content": content}
    return {**told, "read": content} if where == "tools" else told


def ways() -> Iterator[tuple[str, int, str]]:
    """Who reads the output, by how many tokens it comes, and the words for that."""
    for where in ("chat", "tools"):
        for delta in (0, 1, 4, 100):
            how = N_("streamed by {tokens}", tokens=delta) if delta else N_("whole")
            yield where, delta, how


def ask(words: str, given: str, thinking: bool) -> Iterator[Question]:
    """The questions about one prompt."""
    output = f"\n<think>{THOUGHT}</think>\n{CONTENT}" if thinking else f"\n{CONTENT}"
    thought = THOUGHT if thinking else ""
    asked = {"prompt": pieces(given), "output": pieces(output)}
    for where, delta, how in ways():
        told = N_("{turn}, {where}, {how}", turn=words, where=where, how=how)
        right = answer(where, thought, CONTENT)
        yield Question(told, {**asked, "where": where, "delta": delta}, right)
    free, end, held = output.rpartition("</think>") if thinking else ("", "", output)
    right = {"free": free + end, "held": held}
    told = N_("{turn}, structured", turn=words)
    yield Question(told, {**asked, "where": "grammar", "delta": 1}, right)


def cut(words: str, given: str) -> Iterator[Question]:
    """An answer that ``max_tokens`` ends while the model thinks."""
    output = f"\n<think>{THOUGHT}"
    asked = {"prompt": pieces(given), "output": pieces(output), "cut": True}
    for where, delta, how in ways():
        told = N_("{turn}, cut while thinking, {where}, {how}", turn=words, where=where, how=how)
        right: Any = answer(where, THOUGHT, "")
        if not delta:
            right = Either(right, answer(where, "", output.strip()))
        yield Question(told, {**asked, "where": where, "delta": delta}, right)
    told = N_("{turn}, cut while thinking, structured", turn=words)
    right = {"free": output, "held": ""}
    yield Question(told, {**asked, "where": "grammar", "delta": 1}, right)


def beside(words: str, given: str) -> Iterator[Question]:
    """Two requests at once, of which each must get its own."""
    said = ((THOUGHT, CONTENT), OTHER)
    output, other = (f"\n<think>{thought}</think>\n{content}" for thought, content in said)
    asked = {"prompt": pieces(given), "output": pieces(output), "beside": [pieces(other)]}
    for where, delta, how in ways():
        if delta in (1, 4):
            told = N_("{turn}, two at once, {where}, {how}", turn=words, where=where, how=how)
            right = [answer(where, thought, content) for thought, content in said]
            yield Question(told, {**asked, "where": where, "delta": delta}, right)


def content_alone() -> Iterator[Question]:
    """Which tokens are content, where an answer or a delta begins or ends anywhere."""
    asked = [
        (f"{begun}{thought}</think>", content)
        for begun in ("\n<think>", "")
        for thought in (THOUGHT, "")
        for content in (f"\n{CONTENT}", "\n", "")
    ]
    for number, (before, content) in enumerate([*asked, (f"\n<think>{THOUGHT}", "")], 1):
        told = N_("which tokens are content, output {number}", number=number)
        yield Question(told, {"where": "ids", "output": pieces(before + content)}, content)


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
    for turns in (1, 3):
        words = N_("turn {turn}", turn=turns)
        yield from cut(words, prompt(turns, True))
        yield from beside(words, prompt(turns, True))
    yield from content_alone()


QUESTIONS = tuple(every())
