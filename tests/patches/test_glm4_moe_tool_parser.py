"""glm4-moe-tool-parser: its rewrites, on parsers in our own words that are run; its questions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from glmpatch.patch import PatchState
from glmpatch.patches.glm4_moe_tool_parser import questions as asked
from glmpatch.patches.glm4_moe_tool_parser.answers import Begun, Each, Heard
from glmpatch.patches.glm4_moe_tool_parser.cases import BESIDE, CASES, CUT, PARIS, ROME, Case, text
from glmpatch.patches.glm4_moe_tool_parser.patch import PATCH
from glmpatch.patches.glm4_moe_tool_parser.questions import QUESTIONS
from glmpatch.proof.probe.askers.tool_parser import NO_PARSER
from glmpatch.source.plan import Plan, make_plan

OLD = """\
class Glm4MoeModelToolParser:
    def extract_tool_calls(self, output, request):
        def _is_string_type(tool_name, arg_name, tools):
            for tool in tools or ():
                if tool.function.name == tool_name:
                    if tool.function.parameters is None:
                        return False
                    kind = tool.function.parameters.get("properties", {}).get(arg_name, {}).get(
                        "type", None)
                    return kind == "string"
            return False

        def _deserialize(value):
            return eval(value)

        found = {}
        for key, value in self.pairs(output):
            key = key.strip()
            read = value.strip()
            if not _is_string_type("f", key, request.tools):
                read = _deserialize(read)
            found[key] = read
        return found

    def extract_tool_calls_streaming(
        self, previous_text, current_text, delta_text, previous_ids, current_ids, ids, request
    ):
        self.waiting += [*delta_text]
        return self.waiting and self.event(self.waiting.pop(0)) or None

    pairs = staticmethod(lambda output: [each.split("=", 1) for each in output.split(";")])
"""
"""As 0.10.1 has it."""
NEWER = """\
class Glm4MoeModelToolParser:
    @staticmethod
    def _is_string_type(tool_name, arg_name, tools):
        for tool in tools or ():
            if tool.function.name != tool_name:
                continue
            if tool.function.parameters is None:
                return False
            kind = (
                tool.function.parameters.get("properties", {})
                .get(arg_name, {})  # its schema
                .get("type", None)
            )
            return kind == "string"
        return False

    def _deserialize(self, value):
        return eval(value)

    def extract_tool_calls(self, output, request):
        found = {}
        for detail in self.func_detail_regex.findall(output):
            for key, value in self.func_arg_regex.findall(detail):
                read = value.strip()
                if not self._is_string_type("f", key, request.tools):
                    read = self._deserialize(read)
                found[key] = read
        return found

    def extract_tool_calls_streaming(self, text):
        return None

    def _fragment(self, key, value, begun):
        if value is None:
            return "," + key + ':"' if begun else "{" + key + ':"'
        return "," + key + ":" + value if begun else "{" + key + ":" + value
"""
"""What 0.14 and 0.16 to 0.19 have."""
DIFFING = """\
class Glm4MoeModelToolParser:
    def _is_string_type(self, tool_name, arg_name):
        properties = self.properties[tool_name]
        schema = properties.get(arg_name)
        return schema == "string"

    def _extract_tool_name_from_region(self, text):
        return text.partition("\\n")[0] if "\\n" in text else None

    def _build_args_json_so_far(self, key, part, is_complete):
        parts = []
        if is_complete:
            parts.append(f"{key}: {part}")
        elif self._is_string_type("f", key):
            escaped = self._json_escape_string_content(part)
            parts.append(f'{key}: "{escaped}')
        else:
            # no wrapping
            parts.append(f"{key}: {part}")
        return ", ".join(parts)

    def _json_escape_string_content(self, part):
        return part

    def extract_tool_calls_streaming(self, regions):
        names = []
        for region, is_complete in regions:
            names.append(self._extract_tool_name_from_region(region))
        return names
"""
"""What 0.20 to 0.23 have."""


def plan_of(source: str, release: str, *rewrites: str) -> Plan:
    """The plan of these rewrites; of all that the release has, without any."""
    named = tuple(each for each in PATCH.rewrites if each.id in rewrites) or PATCH.rewrites
    return make_plan(replace(PATCH, rewrites=named), source.encode(), release)


@functools.cache
def mended(source: str, release: str, *rewrites: str) -> str:
    """With these rewrites made, which are found anew and right."""
    after = plan_of(source, release, *rewrites).after.decode()
    assert after != source
    assert plan_of(after, release, *rewrites).state is PatchState.FIXED
    return after


def run(source: str, **names: Any) -> Any:
    """The class that a source defines."""
    space: dict[str, Any] = dict(names)
    exec(source, space)
    return space["Glm4MoeModelToolParser"]


def tool(schema: Any, name: str = "f") -> SimpleNamespace:
    return SimpleNamespace(function=SimpleNamespace(name=name, parameters=schema))


def test_the_oldest_form_is_mended_and_right_then() -> None:
    plan = plan_of(OLD, "0.10.1")
    assert plan.state is PatchState.NEEDED
    assert plan.broken == (
        "whole-calls",
        "keep-indentation",
        "optional-strings",
        "tools-of-any-api",
    )
    assert plan_of(plan.after.decode(), "0.10.1").state is PatchState.FIXED
    parser = run(mended(OLD, "0.10.1"))()
    properties = {"s": {"type": "string"}, "o": {"anyOf": [{"type": "string"}, {"type": "null"}]}}
    request = SimpleNamespace(tools=[tool({"properties": properties})])
    found = parser.extract_tool_calls("s=  1 ;o=  1 ;n= 1 ", request)
    assert found == {"s": "  1 ", "o": "  1 ", "n": 1}


@pytest.mark.parametrize(
    ("schema", "is_string"),
    [
        ({"type": "string"}, True),
        ({"type": ["string", "null"]}, True),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, True),
        ({"oneOf": [{"type": "null"}, {"anyOf": [{"type": "string"}]}]}, True),
        ({"enum": ["a", None]}, True),
        ({"enum": ["a", 1]}, False),
        ({"type": "integer"}, False),
        ({"type": ["string", "integer"]}, False),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, False),
        ({"type": "null"}, False),
        ({"anyOf": [{"$ref": "#"}]}, False),
        ({"type": {}, "enum": 3, "anyOf": True, "oneOf": {"a": 1}}, False),
        ({"type": [{}], "anyOf": [True, None, []]}, False),
        ({}, False),
        (True, False),
        (None, False),
        ("string", False),
    ],
    ids=str,
)
def test_what_is_a_string(schema: Any, is_string: bool) -> None:
    parser = run(mended(NEWER, "0.19.1", "optional-strings"))
    assert parser._is_string_type("f", "a", [tool({"properties": {"a": schema}})]) is is_string


@pytest.mark.parametrize("parameters", [None, {}, {"properties": None}, {"properties": True}])
def test_parameters_of_any_shape_hold_no_string(parameters: Any) -> None:
    parser = run(mended(NEWER, "0.19.1", "optional-strings"))
    assert parser._is_string_type("f", "a", [tool(parameters)]) is False
    newest = run(mended(DIFFING, "0.22.0", "schemas-of-any-shape"))()
    newest.properties = {"f": (parameters or {}).get("properties")}
    assert newest._is_string_type("f", "a") is False


def test_tools_of_the_responses_api() -> None:
    parser = run(mended(NEWER, "0.19.1", "tools-of-any-api"))
    schema = {"properties": {"a": {"type": "string"}}}
    built_in = SimpleNamespace(type="web_search_preview")
    tools = [built_in, SimpleNamespace(name="f", parameters=schema), tool(schema, "g")]
    assert parser._is_string_type("f", "a", tools) is True
    assert parser._is_string_type("g", "a", tools) is True
    assert parser._is_string_type("h", "a", tools) is False
    assert parser._is_string_type("f", "a", [SimpleNamespace(name="f", parameters=None)]) is False


def test_separators_are_those_of_json() -> None:
    parser = run(mended(NEWER, "0.19.1", "separators"))()
    made = [parser._fragment('"a"', value, begun) for value in ("1", None) for begun in (0, 1)]
    assert made == ['{"a": 1', ', "a": 1', '{"a": "', ', "a": "']
    assert "separators" not in plan_of(NEWER, "0.15.1").broken


def test_a_call_without_arguments() -> None:
    parser = run(mended(NEWER, "0.14.1", "no-arguments"))()
    parser.func_detail_regex = SimpleNamespace(findall=lambda _: [None, "x"])
    parser.func_arg_regex = SimpleNamespace(findall=lambda each: [(each.strip(), "1")])
    request = SimpleNamespace(tools=None)
    assert parser.extract_tool_calls("", request) == {"x": 1}


def test_a_name_ends_with_its_call_and_a_part_of_a_number_is_not_sent() -> None:
    parser = run(mended(DIFFING, "0.23.0", "names-alone", "values-whole"))()
    parser.properties = {"f": {"s": "string"}}
    assert parser.extract_tool_calls_streaming([("f", True), ("g\nx", True), ("h", False)]) == [
        "f",
        "g",
        None,
    ]
    assert parser._build_args_json_so_far("s", "1", False) == 's: "1'
    assert parser._build_args_json_so_far("n", "1", False) == ""
    assert parser._build_args_json_so_far("n", "1", True) == "n: 1"


# -- one message a delta ------------------------------------------------------------------------


class Part(SimpleNamespace):
    """Stands for any message of vLLM's protocol: what was not given is None, and not sent."""

    def __getattr__(self, name: str) -> Any:
        return [] if name == "tool_calls" else None

    def sent(self) -> Any:
        return {
            key: value.sent()
            if isinstance(value, Part)
            else [each.sent() for each in value]
            if isinstance(value, list)
            else value
            for key, value in vars(self).items()
        }


def event(letter: str) -> Part | None:
    """A capital begins a call, a digit is an argument of the last one, the rest is content."""
    if letter == ".":
        return None
    if letter.isupper():
        function = Part(name=letter, arguments="")
        return Part(tool_calls=[Part(index=ord(letter) - 65, id=f"id{letter}", function=function)])
    if letter.isdigit():
        return Part(tool_calls=[Part(index=int(letter), function=Part(arguments=letter))])
    return Part(content=letter)


WHOLE = ("whole-calls", "whole-deltas", "whole-entries")


def streaming(release: str) -> Callable[..., Any]:
    """What the method in front makes of deltas that follow each other, in a release and an API."""
    names = dict.fromkeys(("DeltaMessage", "DeltaToolCall", "DeltaFunctionCall"), Part)
    parser = run(mended(OLD, release, *WHOLE), **names)()
    parser.waiting, parser.event = [], event

    def ask(delta: str, request: Any = None) -> Any:
        chat = SimpleNamespace(messages=[]) if request is None else request
        made = parser.extract_tool_calls_streaming("", delta, delta, [], [], [], chat)
        return made and made.sent()

    return ask


def head(letter: str, **arguments: str) -> Any:
    return {
        "index": ord(letter) - 65,
        "id": f"id{letter}",
        "type": "function",
        "function": {"name": letter, **arguments},
    }


def rest(index: int, arguments: str) -> Any:
    return {"index": index, "function": {"arguments": arguments}}


@pytest.mark.parametrize("release", ["0.10.1", "0.19.1", "0.22.1"])
@pytest.mark.parametrize(
    ("delta", "sent"),
    [
        ("", None),
        ("xyz", {"content": "xyz"}),
        ("0", {"tool_calls": [rest(0, "0")]}),
        ("000", {"tool_calls": [rest(0, "000")]}),
        ("xA0", {"content": "x", "tool_calls": [head("A"), rest(0, "0")]}),
        ("A00B1", {"tool_calls": [head("A"), rest(0, "00"), head("B", arguments="1")]}),
        (
            "0B1",
            {"tool_calls": [{"index": 0, "function": {}}, rest(0, "0"), head("B", arguments="1")]},
        ),
        ("0x", {"content": "x", "tool_calls": [{"index": 0, "function": {}}, rest(0, "0")]}),
    ],
)
def test_one_message_holds_all_of_a_delta(release: str, delta: str, sent: Any) -> None:
    assert streaming(release)(delta) == sent


def test_one_call_is_one_entry_unless_its_name_would_get_lost() -> None:
    assert streaming("0.19.1")("A00") == {"tool_calls": [head("A", arguments="00")]}
    assert streaming("0.10.1")("A00") == {"tool_calls": [head("A"), rest(0, "00")]}


HEAD, ARGUMENTS = head("A", arguments=""), {"tool_calls": [rest(0, "00")]}
CONTENT, BOTH = {"content": "x"}, {"tool_calls": [head("A", arguments="00")]}
NEXT = {"tool_calls": [head("B", arguments="1")]}


@pytest.mark.parametrize(
    ("release", "sent"),
    [
        ("0.10.1", [CONTENT, BOTH, NEXT, None]),
        ("0.20.0", [CONTENT, {"tool_calls": [HEAD]}, ARGUMENTS]),
        ("0.22.0", [CONTENT, BOTH, NEXT, None]),
    ],
)
def test_the_responses_api_gets_what_it_takes_and_the_rest_later(release: str, sent: Any) -> None:
    ask = streaming(release)
    responses = SimpleNamespace(input="x")
    assert [ask(delta, responses) for delta in ("xA00B1", "", "", "")[: len(sent)]] == sent


# -- what is not recognised ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("class Glm4Moe", "class Other", "no class named"),
        ("    def extract_tool_calls_streaming", "    def other", "extract_tool_calls_streaming"),
        ("return kind ==", "return kind !=", ""),
        (".strip()\n            if", "\n            if", "neither kept nor read"),
        ('.get("properties", {})', '["properties"]', "type of a parameter"),
        ("tool.function.name", "name(tool)", "name of a tool"),
    ],
)
def test_what_is_unknown_is_no_proposal(old: str, new: str, reason: str) -> None:
    assert old in OLD
    plan = plan_of(OLD.replace(old, new), "0.10.1")
    if reason:
        assert plan.state is PatchState.DRIFTED
        assert reason in " ".join(finding.reason for finding in plan.findings)
    else:
        # Whatever stands there is replaced: the form of the whole file judges it.
        assert plan.state is PatchState.NEEDED


# -- the questions ------------------------------------------------------------------------------


def case(words: str) -> Case:
    return next(each for each in CASES if each.words == words)


def test_texts_are_as_the_chat_templates_write_them() -> None:
    both = case("two calls, the last without arguments")
    assert text(both, "glm45") == (
        "Both.\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n\n"
        "<tool_call>mcp__Clock-2.now\n</tool_call>"
    )
    assert text(both, "glm47") == (
        "Both.<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value>"
        "<arg_key>days</arg_key><arg_value>3</arg_value></tool_call><tool_call>mcp__Clock-2.now</tool_call>"
    )
    compact = case("compact objects")
    assert '<arg_value>{"a":{"b":[1,2]},"c":"d"}</arg_value>' in text(compact, "glm47")


def test_there_is_a_question_of_every_sort() -> None:
    assert len({question.words for question in QUESTIONS}) == len(QUESTIONS) > 600
    chat = [q.asked for q in QUESTIONS if q.asked["api"] == "chat"]
    for parser in ("glm45", "glm47"):
        ways = {(q["delta"], q["finish"]) for q in chat if q["parser"] == parser}
        assert ways == {*asked.WAYS, *asked.BESIDE_WAYS["chat"]}
        cuts = {q["delta"] for q in chat if q["parser"] == parser and q.get("cut")}
        assert cuts == set(asked.CUT_WAYS)


def test_a_tool_that_was_not_offered_is_called_all_the_same() -> None:
    missing = case("a tool that was not offered, between two that were")
    offered = [tool["function"]["name"] for tool in asked.chat_tools(missing)]
    assert "sell" not in offered
    assert "sell" in text(missing, "glm45")
    assert Heard(missing, "glm45").rest["calls"][1][0] == "sell"


def test_what_is_right_is_what_the_case_describes() -> None:
    between = Heard(case("content between two calls"), "glm45")
    calls = [list(call) for call in case("content between two calls").calls]
    said = {"calls": calls, "finish": "tool_calls"}
    for content in ("One.", "One. Two.", "One.Two."):
        assert between({"content": content, **said})
    for wrong in (
        {"content": "", **said},
        {"content": "One. Three.", **said},
        {"content": None, **said},
        {**said, "content": "One.", "finish": "stop"},
        {**said, "content": "One.", "calls": calls[:1]},
        {"raised": "x"},
        NO_PARSER,
        None,
    ):
        assert not between(wrong)
    assert Heard(case("no arguments"), "glm47")(NO_PARSER)
    assert "Paris" in str(between)


def test_a_text_that_is_cut_ends_inside_of_its_last_call() -> None:
    for each in CUT:
        for parser in ("glm45", "glm47"):
            written = text(each, parser)
            assert written.endswith(each.cut)
            assert written.count("<tool_call>") == len(each.calls)
            assert written.count("</tool_call>") == len(each.calls) - 1


def test_what_is_certain_of_a_call_that_is_cut() -> None:
    paris, name = [PARIS[0], PARIS[1]], ROME[0]
    first, second = Begun(CUT[3], "glm45"), Begun(CUT[-1], "glm45")
    assert (CUT[3].calls, CUT[-1].calls) == ((ROME,), (PARIS, ROME))
    for right in (
        {"content": "", "calls": []},
        {"content": "<tool_call>get_weather\n<arg", "calls": []},
        {"content": "", "calls": [[name, {}]]},
        {"content": "", "calls": [[name, {"city": "Rome"}]]},
        {"content": "", "calls": [[name, 'broken: {"city": "Ro']]},
    ):
        assert first({**right, "finish": "length"})
    for wrong in (
        {"raised": "IndexError"},
        {"content": "", "calls": [[name, {"city": "Paris"}]]},
        {"content": "", "calls": [["", {}]]},
        {"content": "", "calls": [[name, {}], [name, {}]]},
        {"content": "x", "calls": []},
        {"content": "", "calls": [], "ids": [None]},
        NO_PARSER,
    ):
        assert not first(wrong)
    whole: list[Any] = [[paris], [paris, [name, {}]]]
    for calls in whole:
        assert second({"content": "Both.", "calls": calls})
    lost: list[Any] = [[], [[name, {}]], [[PARIS[0], "broken: "]], [paris, paris]]
    for calls in lost:
        assert not second({"content": "Both.", "calls": calls})
    assert not second({"content": "Both.<tool_call>get_weather", "calls": [paris]})
    assert Begun(CUT[0], "glm47")(NO_PARSER)
    assert "Paris" in str(second)


def test_of_two_requests_each_gets_its_own() -> None:
    said = [
        {"content": each.before, "calls": [*map(list, each.calls)], "finish": "tool_calls"}
        for each in BESIDE
    ]
    right = Each(*(Heard(each, "glm45") for each in BESIDE))
    assert right(said)
    for wrong in (said[::-1], said[:1], {"raised": "KeyError"}, NO_PARSER):
        assert not right(wrong)
    assert Each(Heard(BESIDE[0], "glm47"))(NO_PARSER)
    assert "zone" in str(right)
