"""Which answers are right: the description of the calls, and nothing that some release prints."""

from __future__ import annotations

import json
from typing import Any

from glmpatch.patches.glm4_moe_tool_parser.cases import Case
from glmpatch.proof.probe.askers.tool_parser import NO_PARSER


class Heard:
    """What a client must get: ``before``, the calls, and how it ended.

    What is said between two calls has no place in the template. Some releases keep it, some lose
    it, some keep a part: any of that is right.
    """

    def __init__(self, case: Case, parser: str, *other: str) -> None:
        self.before, self.between = case.before, case.between
        calls = [[name, arguments] for name, arguments in case.calls]
        self.rest = {"calls": calls, "finish": "tool_calls" if calls else "stop"}
        self.text = json.dumps(self.rest, sort_keys=True)
        self.other = (*other, NO_PARSER) if parser == "glm47" else other
        """In vLLM 0.10 to 0.13 there is no parser for GLM-4.7."""

    def __call__(self, answer: Any) -> bool:
        if not isinstance(answer, dict):
            return answer in self.other
        rest = dict(answer)
        content = rest.pop("content", None)
        # As JSON: Python takes true for 1, and 1 for 1.0.
        if json.dumps(rest, sort_keys=True) != self.text or not isinstance(content, str):
            return False
        return content[: len(self.before)] == self.before and (
            content[len(self.before) :].strip() in self.between
        )

    def __str__(self) -> str:
        return json.dumps({"content": self.before, **self.rest}, ensure_ascii=False)


class Begun:
    """What a client must get where ``max_tokens`` has cut the last call off.

    The calls before it are whole. Of the call that is cut, a release hands over nothing, its raw
    text where there is no other call, or what there is of it: any of that is right, and so is any
    reason to finish.
    """

    def __init__(self, case: Case, parser: str) -> None:
        *whole, cut = case.calls
        self.before, self.cut = case.before, cut
        self.whole = [[name, arguments] for name, arguments in whole]
        self.other = (NO_PARSER,) if parser == "glm47" else ()

    def __call__(self, answer: Any) -> bool:
        if not isinstance(answer, dict):
            return answer in self.other
        if "raised" in answer or "ids" in answer:
            return False
        content, calls = answer["content"], answer["calls"]
        count = len(self.whole)
        if json.dumps(calls[:count]) != json.dumps(self.whole) or len(calls) > count + 1:
            return False
        if content[: len(self.before)] != self.before:
            return False
        rest = content[len(self.before) :].strip()
        return all(self._is_begun(call) for call in calls[count:]) and (
            not rest or (not self.whole and rest.startswith("<tool_call>"))
        )

    def _is_begun(self, call: Any) -> bool:
        """Whether a call is the one that was cut, with no more than was said of it."""
        name, arguments = call
        if name != self.cut[0]:
            return False
        if isinstance(arguments, dict):
            return all(item in self.cut[1].items() for item in arguments.items())
        return isinstance(arguments, str)

    def __str__(self) -> str:
        told = {"content": self.before, "calls": self.whole}
        return f"{json.dumps(told, ensure_ascii=False)} + ..."


class Each:
    """Each of several requests at once gets its own."""

    def __init__(self, *right: Heard) -> None:
        self.right = right

    def __call__(self, answer: Any) -> bool:
        if not isinstance(answer, list):
            return answer in self.right[0].other
        return len(answer) == len(self.right) and all(
            right(each) for right, each in zip(self.right, answer, strict=True)
        )

    def __str__(self) -> str:
        return json.dumps([json.loads(str(each)) for each in self.right], ensure_ascii=False)
