"""glm4-moe-tool-parser on real releases, asked through their own serving class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from glmpatch.patch import Patch
from glmpatch.patches.glm4_moe_tool_parser.patch import PATCH
from glmpatch.patches.glm4_moe_tool_parser.questions import QUESTIONS
from glmpatch.proof.driver import Candidate, verify
from glmpatch.proof.result import Result
from glmpatch.source.plan import make_plan
from tests.support import light, releases
from tests.support.environment import glmpatch
from tests.support.sources import replace

pytestmark = pytest.mark.real

RELEASES = ("0.10.1", "0.14.1", "0.16.0", "0.19.1", "0.20.2", "0.23.0")
"""The lowest and the highest, and one of each way in which streams were made between."""
ALONE = ("0.10.1", "0.16.0", "0.23.0")
"""Those in which each rewrite is tried alone too, and not only left out."""
TWICE = r"{\"city\": \"Paris\",\"days\": 3{\"city\": \"Paris\", \"days\": 3}"
"""What 42167 tells of 0.19.1."""
NO_FUNCTION = "AttributeError: 'FunctionTool' object has no attribute 'function'"
LOST = '"calls": []'
SYMPTOMS = {
    "0.10.1": ("optional strings by anyOf", '["f", {"a": 10001, '),
    "0.14.1": ("no arguments", LOST),
    "0.16.0": ("two calls", LOST),
    "0.19.1": ("a string and a number", TWICE),
    "0.20.2": ("two calls", NO_FUNCTION),
    "0.23.0": ("no arguments", LOST),
}
"""What a user of a release asks, and what is among the answers then."""


def never_apart(right: bytes) -> bytes:
    """Everything as one message, whatever the serving layer makes of its first entry."""
    start = right.index(b"    apart = is_chat and ")
    end = right.index(b"\n", start)
    return right[:start] + b"    apart = False" + right[end:]


def first_event(right: bytes) -> bytes:
    """One event a delta, as it was released."""
    return replace(right, "        while event and (", "        if event and (")


def never_later(right: bytes) -> bytes:
    """All that a delta holds for the Responses API, too, which loses what it does not take."""
    start = right.index(b"while parts and (is_chat or ")
    end = right.index(b"\n", start)
    return right[:start] + b"while parts:" + right[end:]


OF_THE_TOOL = """\
            if getattr(getattr(tool, "function", tool), "name", None) != tool_name:
                continue
"""
OF_ANY_TOOL = """\
            of_tool = getattr(getattr(tool, "function", tool), "parameters", None) or {}
            if arg_name not in (of_tool.get("properties") or {}):
                continue
"""
ENTRY = '"id": named[index].id, "type": "function"}'
KEY = "key = self._buffer[len(self.arg_key_start) : key_end]"
NAME = "tool_name = self._buffer[:cut].strip()"
READ = "            return json.loads(value)\n"
WAITING = 'parts = self.__dict__.setdefault("_waiting", [])'
WAITING_OF_ALL = 'parts = type(self)._waiting = getattr(self, "_waiting", [])'
FOUND = "        matched_tool_calls = self.func_call_regex.findall(model_output)\n"
CALLED = "        if self.tool_call_start_token in model_output:\n    "
ENDED = CALLED + "        model_output.split(self.tool_call_end_token)[1]\n" + FOUND
ALL_ENDED = (
    "        if model_output.count('<tool_call>') > model_output.count('</tool_call>'):\n"
    "            model_output = model_output.replace('<', '(')\n" + FOUND
)
SENT = "self.streamed_args_for_tool: list[str] = []"
SENT_OF_ALL = f'{SENT[:-2]}type(self).__dict__.get("sent", [])\n        type(self).sent = '
SENT_OF_ALL += "self.streamed_args_for_tool"
UNKNOWN = """logger.{level}("No tool named '%s'.", tool_name)"""
CUT = {"a call that is cut": (FOUND, ENDED), "calls before one that is cut": (FOUND, ALL_ENDED)}
OF_0_10_1 = {
    **CUT,
    "one list for all requests": (WAITING, WAITING_OF_ALL),
    "a tool that was not offered": (UNKNOWN.format(level="warning"), "raise KeyError(tool_name)"),
}
OF_0_23_0 = {
    **CUT,
    "what was sent, for all requests": (SENT, SENT_OF_ALL),
    "a tool that was not offered": (
        "    tool_properties = find_tool_properties",
        "    assert tool_name in [tool.function.name for tool in self.tools]\n"
        "        tool_properties = find_tool_properties",
    ),
}
OF_0_19_1 = {
    **CUT,
    "one list for all requests": (WAITING, WAITING_OF_ALL),
    "what was sent, for all requests": (SENT, SENT_OF_ALL),
    "a tool that was not offered": (UNKNOWN.format(level="debug"), "raise KeyError(tool_name)"),
    "the first tool's schema": (OF_THE_TOOL, ""),
    "any tool's schema": (OF_THE_TOOL, OF_ANY_TOOL),
    "no ids": (ENTRY, '"type": "function"}'),
    "one id for all": (ENTRY, '"id": "call", "type": "function"}'),
    "names of letters": (r"<tool_call>([^\n]*)\n", r"<tool_call>(\w+)\n"),
    "parameters of letters": ("<arg_key>(.*?)</arg_key>", r"<arg_key>(\w+)</arg_key>"),
    "names made small": (NAME, f"{NAME}.lower()"),
    "parameters made small": (KEY, f"{KEY}.lower()"),
    "booleans as numbers": (READ, READ.replace("json.loads(value)", "json.loads(value) * 1")),
    "whole numbers as others": (READ, READ.replace("(value)", "(value, parse_int=float)")),
}
SPOILED = {"0.10.1": OF_0_10_1, "0.19.1": OF_0_19_1, "0.23.0": OF_0_23_0}
"""What a reader of a release's mended file would hardly see, or take for the same."""


NEAREST: Mapping[str, tuple[Callable[[bytes], bytes], tuple[str, ...]]] = {
    "never apart": (never_apart, ("0.10.1", "0.14.1", "0.16.0", "0.19.1", "0.20.2")),
    "never later": (never_later, ("0.19.1", "0.20.2")),
    "one event": (first_event, ("0.10.1", "0.14.1", "0.16.0", "0.19.1")),
}
"""Files that are nearly right, and the releases in which their difference shows."""


def source_of(patch: Patch, release: str, *only: str) -> tuple[bytes, tuple[str, ...]]:
    """The file mended by these rewrites, or by all; and which it needs."""
    data = releases.read(release, patch.path(release))
    assert data is not None
    plan = make_plan(patch, data, release, only or None)
    return plan.after, plan.broken


def prove(release: str, files: Mapping[str, bytes], folder: Path) -> dict[str, Result]:
    """What the proof says of each file of a release, all asked in one process."""
    env = light.install(release, folder)
    file = PATCH.path(release)
    candidates = [
        Candidate(PATCH.id, name, PATCH.proof, file, data) for name, data in files.items()
    ]
    found = verify(env.python, env.site, [], candidates, device="cpu")
    return {result.file: result for result in found.results}


@pytest.mark.parametrize("release", RELEASES)
def test_the_released_file_fails_and_only_the_whole_repair_passes(
    release: str, tmp_path: Path
) -> None:
    right, needed = source_of(PATCH, release)
    released = releases.read(release, PATCH.path(release))
    assert released is not None
    files = {"released": released, "right": right}
    for rewrite in needed:
        rest = [each for each in needed if each != rewrite]
        files[f"without {rewrite}"] = source_of(PATCH, release, *rest)[0]
        if release in ALONE:
            files[f"only {rewrite}"] = source_of(PATCH, release, rewrite)[0]
    for name, (spoil, shown) in NEAREST.items():
        if release in shown:
            files[name] = spoil(right)
    found = prove(release, files, tmp_path / "env")
    assert len(found["right"].answers) == len(QUESTIONS)
    assert {name for name, result in found.items() if result.passed} == {"right"}
    asked, words = SYMPTOMS[release]
    wrong = found["released"].wrong_answers
    assert any(f": {asked}, " in each.question and words in each.answer for each in wrong)


@pytest.mark.parametrize("release", SPOILED)
def test_a_file_that_differs_in_one_place_fails(release: str, tmp_path: Path) -> None:
    right, _needed = source_of(PATCH, release)
    files = {words: replace(right, old, new) for words, (old, new) in SPOILED[release].items()}
    found = prove(release, {"right": right, **files}, tmp_path / "env")
    assert {name for name, result in found.items() if result.passed} == {"right"}


def test_an_error_of_the_parser_is_told_as_it_is(tmp_path: Path) -> None:
    right, _needed = source_of(PATCH, "0.12.0")
    raising = replace(
        right,
        '    content, named, arguments, last = ""',
        "    raise KeyError(1234)\n" + '        content, named, arguments, last = ""',
    )
    found = prove("0.12.0", {"raising": raising}, tmp_path / "env")
    told = [each.answer for each in found["raising"].wrong_answers]
    assert told
    assert all("1234" in answer for answer in told)


def test_a_user_mends_0_19_1_and_takes_it_back(tmp_path: Path) -> None:
    env = light.install("0.19.1", tmp_path / "env")
    before = env.tree()
    python = str(env.python)
    shown = glmpatch("verify", PATCH.id, "--python", python)
    assert shown.returncode == 6
    assert TWICE in shown.stdout
    done = glmpatch("apply", PATCH.id, "--verify", "--python", python)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (env.site / PATCH.path("0.19.1")).read_bytes() == source_of(PATCH, "0.19.1")[0]
    assert glmpatch("revert", PATCH.id, "--python", python).returncode == 0
    assert env.tree() == before
