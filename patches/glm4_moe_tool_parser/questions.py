"""What a client must get from what GLM-4.5, 4.6 and 4.7 write.

The texts are made from descriptions of calls (``cases``), and what is right is the description
itself (``answers``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from glmpatch.language import N_
from glmpatch.patches.glm4_moe_tool_parser.answers import Begun, Each, Heard
from glmpatch.patches.glm4_moe_tool_parser.cases import (
    BESIDE,
    CASES,
    CUT,
    LONG,
    NUMBER,
    TEXT,
    Case,
    pieces,
)
from glmpatch.proof.probe.askers.tool_parser import ONE_PART
from glmpatch.proof.questions import Question

FOR_RESPONSES = ("a string and a number", "two calls", "no arguments", "optional strings by anyOf")
WAYS = ((0, "last"), *((size, finish) for size in (1, 2, 4, 100) for finish in ("own", "last")))
CUT_WAYS = (0, 1, 4, 100)
BESIDE_WAYS = {
    "chat": ((1, "last"), (4, "last"), (4, "own"), (12, "last")),
    "responses": ((1, "own"), (4, "own"), (8, "own"), (12, "own")),
}
BUILT_IN = {"type": "web_search_preview"}
"""A tool of the Responses API that is no function."""


def chat_tools(case: Case) -> list[Any]:
    """The functions that are called, between two that have the same parameters, of other types."""
    called = [name for name, _ in case.calls if name not in case.missing]
    names = dict.fromkeys(called or ["f"])
    given = {} if case.parameters is None else {"parameters": case.parameters}
    tools = [{"name": name, **given} for name in names]
    properties = (case.parameters or {}).get("properties")
    if properties:
        first, last = (
            {"name": name, "parameters": {"properties": dict.fromkeys(properties, schema)}}
            for name, schema in (("first", TEXT), ("last", NUMBER))
        )
        tools = [first, *tools, last]
    return [{"type": "function", "function": tool} for tool in tools]


def responses_tools(case: Case) -> list[Any]:
    return [{"type": "function", **tool["function"]} for tool in chat_tools(case)]


def questions() -> Iterator[Question]:
    for parser in ("glm45", "glm47"):
        for case in CASES:
            yield from _questions(case, parser, "chat", chat_tools(case), WAYS)
        for case in (case for case in CASES if case.words in FOR_RESPONSES):
            for tools in (responses_tools(case), [BUILT_IN, *responses_tools(case)]):
                yield from _questions(case, parser, "responses", tools, responses_ways(case))
        for case in CUT:
            for size in CUT_WAYS:
                if size > 1 and case.nameless:
                    continue
                asked = _asked(case, parser, "chat", chat_tools(case), size, "last")
                words = _words(asked, case.words)
                yield Question(words, {**asked, "cut": True}, Begun(case, parser))
        yield from _beside(parser)


def responses_ways(case: Case) -> Iterator[tuple[int, str]]:
    """How it streams: a call that begins and ends in the last delta is more than it takes."""
    yield from ((0, "last"), (1, "own"), (2, "own"), (4, "own"), (8, "own"), (100, "last"))
    if case.calls[-1][1]:
        yield from ((2, "last"), (4, "last"))


def _asked(case: Case, parser: str, api: str, tools: Any, size: int, finish: str) -> dict[str, Any]:
    return {
        "parser": parser,
        "api": api,
        "pieces": pieces(case, parser),
        "tools": tools,
        "delta": size,
        "finish": finish,
    }


def _words(asked: dict[str, Any], case: str) -> str:
    end = N_("the end with the last") if asked["finish"] == "last" else N_("the end after it")
    how = N_("whole")
    if asked["delta"] == 1:
        how = N_("1 token a delta, {end}", end=end)
    elif asked["delta"]:
        how = N_("{tokens} tokens a delta, {end}", tokens=asked["delta"], end=end)
    return N_(
        "{parser}, {api}: {case}{beside}, {how}",
        parser=asked["parser"],
        api=asked["api"],
        case=case,
        beside=N_(" beside a built-in tool") if BUILT_IN in asked["tools"] else "",
        how=how,
    )


def _questions(case: Case, parser: str, api: str, tools: Any, ways: Any) -> Iterator[Question]:
    for size, finish in ways:
        asked = _asked(case, parser, api, tools, size, finish)
        # Up to 0.22 the Responses API does not take that, whatever the parser hands over.
        other = (ONE_PART,) if api == "responses" and size >= len(asked["pieces"]) else ()
        yield Question(_words(asked, case.words), asked, Heard(case, parser, *other))


def _beside(parser: str) -> Iterator[Question]:
    """Two requests at once, of which each must get its own."""
    first, second = BESIDE
    both = Case("", first.calls + second.calls, LONG)
    right = Each(Heard(first, parser), Heard(second, parser))
    for api, tools in (("chat", chat_tools(both)), ("responses", responses_tools(both))):
        for size, finish in BESIDE_WAYS[api]:
            asked = _asked(first, parser, api, tools, size, finish)
            words = _words(asked, N_("two requests at once"))
            yield Question(words, {**asked, "beside": [pieces(second, parser)]}, right)


QUESTIONS = tuple(questions())
