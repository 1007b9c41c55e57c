"""What a client must get from what GLM-4.5, 4.6 and 4.7 write, made from descriptions of calls.

The texts are written as the models' chat templates write a call: the value of a parameter that is a
string as it is, every other one as JSON. What is right is the description itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from glmpatch.language import N_
from glmpatch.proof.probe.askers.tool_parser import NO_PARSER, ONE_PART, TAG
from glmpatch.proof.questions import Question

PIECE = re.compile(rf"({TAG.pattern})|\w+|\s+|[^\w\s]")
"""About what a model's tokens are; a tag is always one."""

TEXT = {"type": "string"}
OPTIONAL = {"anyOf": [TEXT, {"type": "null"}]}
NUMBER = {"type": "integer"}
TREE = {
    "type": "object",
    "properties": {"children": {"type": "array", "items": {"$ref": "#/properties/tree"}}},
}
NAMES = ("a", "user-id", "Größe", "c.d", "$e", "two words", "g", "h")
"""A parameter may have any name, a function letters, digits, ``_``, ``-`` and what servers add."""
CODE = '    def f(x):\n\tif x < 1 and "a" != \'b\':\n        return "\\n" \\ x\n\n'


@dataclass(frozen=True)
class Case:
    """What the model says: ``before`` the calls, ``between`` them, and the calls.

    A call's values are Python's; ``parameters`` are the JSON schemas of every function's.
    """

    words: str
    calls: tuple[tuple[str, dict[str, Any]], ...]
    parameters: Any = None
    before: str = ""
    between: str = ""
    compact: bool = False
    """JSON without spaces: it is JSON as well."""


def one(words: str, schema: Any, *values: Any, compact: bool = False) -> Case:
    """A call whose parameters all have one schema."""
    names = NAMES[: len(values)]
    calls = (("f", dict(zip(names, values, strict=True))),)
    return Case(words, calls, {"properties": dict.fromkeys(names, schema)}, compact=compact)


PARIS = ("get_weather", {"city": "Paris", "days": 3})
ROME = ("get_weather", {"city": "Rome", "days": 10})
TIME: tuple[str, dict[str, Any]] = ("mcp__Clock-2.now", {})
WEATHER = {"type": "object", "properties": {"city": TEXT, "days": NUMBER}, "required": ["city"]}

CASES = (
    Case(N_("a string and a number"), (PARIS,), WEATHER),
    Case(N_("content before a call"), (PARIS,), WEATHER, before="Sure, if 1 < 2."),
    Case(N_("no arguments"), (TIME,), WEATHER),
    Case(N_("content before a call without arguments"), (TIME,), {}, before="A moment."),
    Case(N_("two calls"), (PARIS, ROME), WEATHER),
    Case(N_("two calls, the last without arguments"), (PARIS, TIME), WEATHER, before="Both."),
    Case(N_("three calls, the first without arguments"), (TIME, PARIS, PARIS), WEATHER),
    Case(N_("content between two calls"), (PARIS, ROME), WEATHER, before="One.", between="Two."),
    one(N_("code with its indentation"), TEXT, CODE, "  ", "\n"),
    one(N_("quotes, backslashes and signs"), TEXT, '"', "\\", "a <b> c</d> & {e}", "</", "<arg"),
    one(N_("other scripts"), TEXT, "東京、明日", "naïve ☃ 🙂", "\u2028"),
    one(N_("an empty string"), TEXT, "", "x", ""),
    one(
        N_("strings that look like JSON"),
        TEXT,
        "10001",
        "true",
        "null",
        '{"a": 1}',
        "[1, 2]",
        "1.0",
    ),
    one(N_("optional strings by anyOf"), OPTIONAL, "10001", "  x", "[1]"),
    one(N_("optional strings by oneOf"), {"oneOf": [{"type": "null"}, TEXT]}, "10001", "true"),
    one(N_("optional strings by a list of types"), {"type": ["string", "null"]}, "10001", "1e3"),
    one(N_("an optional string in an optional string"), {"anyOf": [OPTIONAL]}, "10001"),
    one(N_("one of some strings"), {"enum": ["1", "2", None]}, "1", "2"),
    one(N_("a string that is one of some"), {"type": "string", "enum": ["1"]}, "1"),
    one(N_("integers"), NUMBER, 0, -7, 12345678901234567890),
    one(N_("a number that may be none"), {"anyOf": [NUMBER, {"type": "null"}]}, 5, None),
    one(N_("numbers and booleans"), {"type": ["number", "boolean"]}, 1.5, -0.25, 1e30, True, False),
    one(N_("arrays"), {"type": "array"}, [], [1, 2], ["a", "b, c"], [[1], {"x": None}]),
    one(N_("compact arrays"), {"type": "array"}, [1, 2], ["a", "b"], compact=True),
    one(N_("objects"), {"type": "object"}, {}, {"a": {"b": [1, "東 <"]}, "c": '"'}),
    one(N_("compact objects"), {"type": "object"}, {"a": {"b": [1, 2]}, "c": "d"}, 3, compact=True),
    one(N_("a schema that is true"), True, "Paris now", "x y"),
    one(N_("an empty schema"), {}, "Paris now"),
    one(
        N_("a schema of itself"), {"anyOf": [{"$ref": "#"}, TREE]}, {"children": [{"children": []}]}
    ),
    Case(N_("a tool without parameters"), (("f", {"a": "Paris now"}),)),
    Case(N_("parameters that are empty"), (("f", {"a": "Paris now"}),), {}),
    Case(N_("properties that are null"), (("f", {"a": "Paris now"}),), {"properties": None}),
    Case(N_("a parameter that the tool has not"), (("f", {"a": "Paris now", "b": 2}),), WEATHER),
    Case(N_("no call"), (), WEATHER, before="if a < b:\n    print('<tool>')  # no call\n"),
)
FOR_RESPONSES = ("a string and a number", "two calls", "no arguments", "optional strings by anyOf")
WAYS = ((0, "last"), *((size, finish) for size in (1, 2, 4, 100) for finish in ("own", "last")))
BUILT_IN = {"type": "web_search_preview"}
"""A tool of the Responses API that is no function."""


def text(case: Case, parser: str) -> str:
    """What the model writes; GLM-4.5 and 4.6 put each part on a line of its own."""
    line = "\n" if parser == "glm45" else ""
    written = []
    for name, arguments in case.calls:
        pairs = [
            f"<arg_key>{key}</arg_key>{line}<arg_value>{_value(case, value)}</arg_value>{line}"
            for key, value in arguments.items()
        ]
        written.append(f"<tool_call>{name}{line}{''.join(pairs)}</tool_call>")
    return case.before + line * bool(written) + f"{line}{case.between}{line}".join(written)


def _value(case: Case, value: Any) -> str:
    if isinstance(value, str):
        return value
    separators = (",", ":") if case.compact else None
    return json.dumps(value, ensure_ascii=False, separators=separators)


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


def chat_tools(case: Case) -> list[Any]:
    """The functions that are called, between two that have the same parameters, of other types."""
    names = dict.fromkeys([name for name, _ in case.calls] or ["f"])
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


def responses_ways(case: Case) -> Iterator[tuple[int, str]]:
    """How it streams: a call that begins and ends in the last delta is more than it takes."""
    yield from ((0, "last"), (1, "own"), (2, "own"), (4, "own"), (8, "own"), (100, "last"))
    if case.calls[-1][1]:
        yield from ((2, "last"), (4, "last"))


def _questions(case: Case, parser: str, api: str, tools: Any, ways: Any) -> Iterator[Question]:
    written = [match.group() for match in PIECE.finditer(text(case, parser))]
    for size, finish in ways:
        end = N_("the end with the last") if finish == "last" else N_("the end after it")
        how = N_("whole")
        if size == 1:
            how = N_("1 token a delta, {end}", end=end)
        elif size:
            how = N_("{tokens} tokens a delta, {end}", tokens=size, end=end)
        asked = {
            "parser": parser,
            "api": api,
            "pieces": written,
            "tools": tools,
            "delta": size,
            "finish": finish,
        }
        words = N_(
            "{parser}, {api}: {case}{beside}, {how}",
            parser=parser,
            api=api,
            case=case.words,
            beside=N_(" beside a built-in tool") if BUILT_IN in tools else "",
            how=how,
        )
        # Up to 0.22 the Responses API does not take that, whatever the parser hands over.
        other = (ONE_PART,) if api == "responses" and size >= len(written) else ()
        yield Question(words, asked, Heard(case, parser, *other))


QUESTIONS = tuple(questions())
