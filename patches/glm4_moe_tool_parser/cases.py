"""What GLM-4.5, 4.6 and 4.7 write, made from descriptions of calls.

The texts are written as the models' chat templates write a call: the value of a parameter that is a
string as it is, every other one as JSON.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from glmpatch.language import N_
from glmpatch.proof.probe.askers.tool_parser import TAG

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
    missing: tuple[str, ...] = ()
    """Functions that are called although the client has not offered them."""
    cut: str = ""
    """With what ``max_tokens`` ends the text, inside of the last call."""

    @property
    def nameless(self) -> bool:
        """Whether nothing is known of a call that is cut after another one.

        From 0.16 on the serving layer spoils the other one's arguments where the last delta holds
        the end of one and such a beginning of the next: what is right is not asked for then.
        """
        return len(self.calls) > 1 and self.cut in ("<tool_call>", "get_w")


def one(words: str, schema: Any, *values: Any, compact: bool = False) -> Case:
    """A call whose parameters all have one schema."""
    names = NAMES[: len(values)]
    calls = (("f", dict(zip(names, values, strict=True))),)
    return Case(words, calls, {"properties": dict.fromkeys(names, schema)}, compact=compact)


PARIS = ("get_weather", {"city": "Paris", "days": 3})
ROME = ("get_weather", {"city": "Rome", "days": 10})
SELL = ("sell", {"city": "Rome", "days": 10})
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
    Case(
        N_("a tool that was not offered, between two that were"),
        (PARIS, SELL, ROME),
        WEATHER,
        missing=("sell",),
    ),
    Case(N_("no call"), (), WEATHER, before="if a < b:\n    print('<tool>')  # no call\n"),
)

CUTS = {
    N_("a call that is cut after its tag"): "<tool_call>",
    N_("a call that is cut in its name"): "get_w",
    N_("a call that is cut before a value"): "</arg_key>",
    N_("a call that is cut in a value"): "Ro",
    N_("a call that is cut after a value"): "</arg_value>",
}
CUT = tuple(
    Case(N_("{cut}, {which}", cut=words, which=which), calls, WEATHER, before=before, cut=cut)
    for which, before, calls in (
        (N_("the first"), "", (ROME,)),
        (N_("after content"), "Sure.", (ROME,)),
        (N_("the second"), "Both.", (PARIS, ROME)),
    )
    for words, cut in CUTS.items()
)
LONG = {"properties": {"a": TEXT, "city": TEXT, "days": NUMBER}}
BESIDE = (
    Case("", (TIME, TIME, ("f", {"a": CODE * 3})), LONG, before="Sure."),
    Case("", (("zone", {}), PARIS, ("f", {"a": "Some other user's text, and more. " * 6})), LONG),
)
"""Two requests at once, of calls that end in one delta, and so long a last one that what the
Responses API takes later has been taken when it ends."""


def pieces(case: Case, parser: str) -> list[str]:
    """What the model writes, token by token."""
    return [match.group() for match in PIECE.finditer(text(case, parser))]


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
    whole = case.before + line * bool(written) + f"{line}{case.between}{line}".join(written)
    return whole[: whole.rindex(case.cut) + len(case.cut)]


def _value(case: Case, value: Any) -> str:
    if isinstance(value, str):
        return value
    separators = (",", ":") if case.compact else None
    return json.dumps(value, ensure_ascii=False, separators=separators)
