"""glm4-moe-reasoning-parser: what it makes of a parser in our own words, and what it asks."""

from __future__ import annotations

from typing import Any

import pytest

from glmpatch.patch import PatchState
from glmpatch.patches.glm4_moe_reasoning_parser.patch import PATCH
from glmpatch.patches.glm4_moe_reasoning_parser.questions import (
    CONTENT,
    QUESTIONS,
    THOUGHT,
    pieces,
    prompt,
)
from glmpatch.proof.questions import Question
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


ANYWHERE = (
    "return bool(self.think_end_token_id in ids)",
    "return any(each == self.think_end_token_id for each in ids)",
    "return any(map(lambda each: each == self.think_end_token_id, ids))",
    "return self.think_end_token_id in list(ids)",
    "return self.think_end_token_id in set(ids[1:])",
    "return ids.count(self.think_end_token_id) >= 1",
    "if self.think_end_token_id in ids:\n            return True\n        return False",
    "for each in reversed(ids):\n            if each == self.think_end_token_id:\n"
    "                return True\n        return False",
    "end = self.think_end_token_id\n        return end in ids",
    "return True if self.think_end_token_id in ids else False",
    "return not self.think_end_token_id not in ids",
)


@pytest.mark.parametrize("words", ANYWHERE)
def test_whoever_knows_no_other_token_does_not_find_the_last_answer(words: str) -> None:
    plan = make_plan(PATCH, PARSER.replace(WRONG, f"        {words}\n").encode())
    assert plan.state is PatchState.NEEDED
    body = MENDED.replace("        # as for other models\n", "").replace("  # anywhere", "")
    assert plan.after.decode() == body
    assert make_plan(PATCH, plan.after).state is PatchState.FIXED


def test_a_method_of_one_line_is_mended_too() -> None:
    line = (
        "class Glm4MoeModelReasoningParser:\n    def is_reasoning_end(self, ids): return 2 in ids\n"
    )
    plan = make_plan(PATCH, line.replace("2", "self.think_end_token_id").encode())
    assert plan.state is PatchState.NEEDED
    assert "if token_id == assistant_token_id" in plan.after.decode()


@pytest.mark.parametrize(
    "words",
    [
        "return bool(LAST.search(ids))",
        "return '<|assistant|>' not in self.think_end_token_id",
        "return ids[::-1].index(self.think_end_token_id) < ids[::-1].index(151337)",
        "return super().is_reasoning_end(ids)",
        "return ids.count(self.think_end_token_id) > ids.count(self.assistant)",
        "return self.think_end_token_id in self.since(ids)",
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
    told = [question for question in QUESTIONS if question.asked["where"] != "ids"]
    turns = {question.asked["prompt"].count("<|user|>") for question in told}
    assert turns == {1, 2, 3, 4, 5}
    assert {question.asked["delta"] for question in told} == {0, 1, 4, 100}
    assert len({question.words for question in QUESTIONS}) == len(QUESTIONS)
    for question in told:
        output = "".join(question.asked["output"])
        right: Any = question.right
        if question.asked["where"] == "grammar":
            assert right["free"] + right["held"] == output
        elif "beside" not in question.asked and not question.asked.get("cut"):
            assert right["content"] == output.rpartition("</think>")[2].strip()


def of(*words: str) -> list[Question]:
    return [each for each in QUESTIONS if all(word in each.words for word in words)]


def test_an_answer_that_is_cut_is_thinking_or_left_as_it_is() -> None:
    thought = {"reasoning": THOUGHT, "content": ""}
    whole, streamed = (
        of("turn 1, cut", "chat, whole")[0],
        of("turn 1, cut", "chat, streamed by 4")[0],
    )
    left = {"reasoning": "", "content": f"<think>{THOUGHT}"}
    for question, right in ((whole, [thought, left]), (streamed, [thought])):
        assert all(question.is_right(each) for each in right)
    assert not streamed.is_right(left)
    assert not whole.is_right({"reasoning": "", "content": ""})


def test_of_two_requests_each_gets_its_own() -> None:
    for question in of("two at once"):
        right: Any = question.right
        first, second = right
        assert first["reasoning"] != second["reasoning"]
        assert not question.is_right([second, first])


def test_the_tokens_of_the_content_are_those_after_the_thinking() -> None:
    asked = {"".join(each.asked["output"]): each.right for each in of("which tokens are content")}
    assert asked[f"\n<think>{THOUGHT}</think>\n{CONTENT}"] == f"\n{CONTENT}"
    assert asked[f"\n<think>{THOUGHT}"] == asked["</think>"] == ""


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
