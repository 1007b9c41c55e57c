"""glm4-moe-reasoning-parser: what it makes of a parser in our own words, and what it asks."""

from __future__ import annotations

from typing import Any

import pytest

from glmpatch.patch import PatchState
from glmpatch.patches.glm4_moe_reasoning_parser.patch import PATCH
from glmpatch.patches.glm4_moe_reasoning_parser.questions import QUESTIONS, pieces, prompt
from glmpatch.source.plan import make_plan

PARSER = '''\
class Glm4MoeModelReasoningParser(Parser):
    def is_reasoning_end(self, ids):
        """Whether the model has thought enough."""
        # as for other models
        return self.think_end_token_id in ids  # anywhere

    def other(self, ids):
        return self.think_end_token_id in ids[:-1]
'''
MENDED = '''\
class Glm4MoeModelReasoningParser(Parser):
    def is_reasoning_end(self, ids):
        """Whether the model has thought enough."""
        # as for other models
        assistant_token_id = self.vocab.get("<|assistant|>")
        for token_id in ids[::-1]:
            if token_id == self.think_end_token_id:
                return True
            if token_id == assistant_token_id:
                return False
        return False  # anywhere

    def other(self, ids):
        return self.think_end_token_id in ids[:-1]
'''
WRONG = "        return self.think_end_token_id in ids  # anywhere\n"


def test_only_the_last_answer_counts() -> None:
    plan = make_plan(PATCH, PARSER.encode())
    assert plan.state is PatchState.NEEDED
    assert [finding.line for finding in plan.findings] == [5]
    assert plan.after.decode() == MENDED
    assert make_plan(PATCH, plan.after).state is PatchState.FIXED


def test_what_it_makes_tells_right_from_wrong() -> None:
    space: dict[str, type] = {}
    exec(MENDED.replace("(Parser)", ""), space)
    parser = space["Glm4MoeModelReasoningParser"]()
    parser.think_end_token_id, parser.vocab = 2, {"<|assistant|>": 7}
    asked = {(): 0, (1,): 0, (2,): 1, (7, 1): 0, (7, 1, 2, 5): 1, (7, 1, 2, 5, 7): 0}
    assert {ids: parser.is_reasoning_end(list(ids)) for ids in asked} == asked
    parser.vocab = {}  # a model without that token, as before
    assert parser.is_reasoning_end([7, 1, 2, 5, 7])


@pytest.mark.parametrize(
    "words",
    [
        "return self.last_of(ids) == self.think_end_token_id",
        "return any(each == self.think_end_token_id for each in self.since(ids))",
        "return self.think_end_token_id in self.since(ids) or self.is_off(ids)",
    ],
)
def test_other_words_are_left_alone(words: str) -> None:
    plan = make_plan(PATCH, PARSER.replace(WRONG, f"        {words}\n").encode())
    assert plan.state is PatchState.FIXED
    assert plan.after == plan.before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Glm4MoeModelReasoningParser", "Another"),
        ("is_reasoning_end", "has_ended"),
        (WRONG, "        pass\n"),
    ],
)
def test_a_parser_of_another_kind_is_not_recognised(old: str, new: str) -> None:
    plan = make_plan(PATCH, PARSER.replace(old, new).encode())
    assert plan.state is PatchState.DRIFTED


def test_its_questions_are_conversations_of_one_to_five_turns() -> None:
    turns = {question.asked["prompt"].count("<|user|>") for question in QUESTIONS}
    assert turns == {1, 2, 3, 4, 5}
    assert {question.asked["delta"] for question in QUESTIONS} == {0, 1, 4, 100}
    assert len({question.words for question in QUESTIONS}) == len(QUESTIONS)
    for question in QUESTIONS:
        told: Any = question.right
        output = "".join(question.asked["output"])
        if question.asked["where"] == "grammar":
            assert told["free"] + told["held"] == output
        else:
            assert told["content"] == output.rpartition("</think>")[2].strip()


def test_a_prompt_is_written_as_the_template_writes_it() -> None:
    assert prompt(2, thinking=False).endswith(
        "<|user|>\nAnd now?/nothink<|assistant|>\n<think></think>\nIt was 3."
        "<|user|>\nAnd now?/nothink<|assistant|>\n<think></think>"
    )
    assert pieces("<|user|>\nAnd<think></think>") == [
        "<|user|>",
        "\n",
        "And",
        "<think>",
        "</think>",
    ]
