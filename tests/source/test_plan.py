"""The planner: what it proposes in every dress of a file; bad input is refused, never a crash."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import libcst as cst
import pytest

from glmpatch.patch import Patch, PatchState, Place, Rewrite, RewriteState, Unrecognized
from glmpatch.patches.glm4_residual.patch import PATCH
from glmpatch.source import form, sha256
from glmpatch.source import plan as planning
from glmpatch.source.plan import STUMBLED, Plan, make_plan
from glmpatch.source.snippets import Snippet, replace
from tests.support.model import NEOX, RELEASED, TWICE, model
from tests.support.sources import REWRITES, proper_subsets

BROKEN = model(RELEASED, TWICE + NEOX).encode()
RIGHT = make_plan(PATCH, BROKEN).after


def plan_of(source: bytes | str) -> Plan:
    return make_plan(PATCH, source.encode() if isinstance(source, str) else source)


# -- the toy in every dress ---------------------------------------------------------------------


def test_the_toy_has_all_defects_and_is_mended_once_and_for_all() -> None:
    plan = plan_of(BROKEN)
    assert plan.state is PatchState.NEEDED
    assert plan.broken == REWRITES
    assert all(finding.line for finding in plan.findings)
    again = plan_of(plan.after)
    assert (again.state, again.after, again.broken) == (PatchState.FIXED, plan.after, ())
    assert form.read(RIGHT) != form.read(BROKEN)


@pytest.mark.parametrize("subset", list(proper_subsets()), ids=lambda s: "+".join(s) or "none")
def test_some_of_the_rewrites_and_then_the_rest(subset: tuple[str, ...]) -> None:
    half = make_plan(PATCH, BROKEN, only=subset).after
    plan = plan_of(half)
    assert plan.broken == tuple(rewrite for rewrite in REWRITES if rewrite not in subset)
    assert form.read(plan.after).digest == form.read(RIGHT).digest


def _recoded(encoding: str) -> Callable[[bytes], bytes]:
    def recode(source: bytes) -> bytes:
        return f"# -*- coding: {encoding} -*-\n# Zhìpǔ Ä\n".encode(encoding, "replace") + source

    return recode


DRESSES: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda source: source,
    "CRLF": lambda source: source.replace(b"\n", b"\r\n"),
    "mixed line ends": lambda source: source.replace(b"\n\n", b"\r\n\n"),
    "CRLF in the methods only": lambda source: source.replace(b"):\n", b"):\r\n"),
    "BOM": lambda source: b"\xef\xbb\xbf" + source,
    "BOM and CRLF": lambda source: b"\xef\xbb\xbf" + source.replace(b"\n", b"\r\n"),
    "tabs": lambda source: source.replace(b"    ", b"\t"),
    "two spaces": lambda source: source.replace(b"    ", b"  "),
    "no newline at the end": lambda source: source.rstrip(b"\n"),
    "blank lines at the end": lambda source: source + b"\n\n\n",
    "trailing spaces": lambda source: source.replace(b"\n", b"  \n"),
    "lines of spaces at the end": lambda source: source.rstrip() + b"\n  \n\t\n    \n ",
    "latin-1": _recoded("latin-1"),
    "cp1252": _recoded("cp1252"),
    "utf-8 with a cookie": _recoded("utf-8"),
    "no layout at all": lambda source: ast.unparse(ast.parse(source)).encode(),
    "the old lines as comments": lambda source: source.replace(
        b"        return hidden_states, residual\n",
        b"        # hidden_states = residual + hidden_states\n"
        b"        # hidden_states = self.post_attention_layernorm(hidden_states, residual)\n"
        b"        return hidden_states, residual\n",
    ),
}


@pytest.mark.parametrize("dress", DRESSES.values(), ids=DRESSES)
def test_line_ends_encodings_and_indentation_are_kept(dress: Callable[[bytes], bytes]) -> None:
    source = dress(BROKEN)
    plan = plan_of(source)
    assert plan.state is PatchState.NEEDED, plan
    assert form.read(plan.after).digest == form.read(RIGHT).digest
    before, after = source.splitlines(keepends=True), plan.after.splitlines(keepends=True)
    assert len(set(before) - set(after)) <= 4
    assert len(set(after) - set(before)) <= 4
    assert plan_of(plan.after).state is PatchState.FIXED
    if source.count(b"\r\n") == source.count(b"\n"):
        assert plan.after.count(b"\r\n") == plan.after.count(b"\n")


# -- bad input ----------------------------------------------------------------------------------

BAD = {
    "empty": b"",
    "white space": b" \n\t\n",
    "syntax error": b"x = 1\ny = = 2\n",
    "an open bracket": b"x = 1\ny = (\n",
    "bad indentation": b"if 1:\n    x\n  y\n",
    "Python 2": b"\nprint 'x'\n",
    "not UTF-8": b"x = 1\n# \xff\n",
    "half a character": b"x = 1\n\n# \xc3",
    "UTF-16": "x = 1\n".encode("utf-16"),
    "a binary": b"\x7fELF\x02\x01\x01\x00",
    "NUL": b"x = 1\ny = 2\0\n",
    "a form feed": b"x = 1\n\x0cy = 2\n",
    "lone carriage returns": b"x = 1\ry = 2\r",
    "an unknown cookie": b"# coding: klingon\nx = 1\n",
    "a cookie for bytes": b"# coding: hex\nx = 1\n",
    "a codec that writes less than it reads": b"# coding: idna\nx = 0x" + b"1" * 99 + b"\n",
    "a cookie that is wrong": "# coding: ascii\n# ä\n".encode(),
    "a cookie against the BOM": b"\xef\xbb\xbf" + b"# coding: latin-1\n",
    "nested brackets": b"x = " + b"(" * 90_000 + b")" * 90_000,
    "nested lists": b"\nx = " + b"[" * 150 + b"]" * 150,
    "nested calls": b"f(" * 190 + b")" * 190,
    "nested signs": b"x = " + b"-" * 90_000 + b"1",
    "nested nots": b"x = " + b"not " * 3_000 + b"1",
    "a long sum": b"x = 1" + b" + 1" * 90_000,
    "a long chain": b"x" + b".a" * 90_000,
    "many indices": b"x" + b"[0]" * 90_000,
    "many elifs": b"if 1:\n  x\n" + b"elif 1:\n  x\n" * 20_000,
    "nested lambdas": b"lambda: " * 20_000 + b"1",
    "nested powers": b"2" + b"**2" * 20_000,
    "nested conditions": b"1" + b" if 1 else 1" * 20_000,
}
"""What form.py refuses with line and reason before anybody plans; here it must do no harm."""


@pytest.mark.parametrize("source", BAD.values(), ids=BAD)
def test_bad_input_is_drift(source: bytes) -> None:
    plan = plan_of(source)
    assert plan.state is PatchState.DRIFTED
    assert plan.after == source
    assert plan.problem or all(finding.reason for finding in plan.findings)
    assert [finding.rewrite for finding in plan.findings] == list(REWRITES)


@pytest.mark.parametrize(
    "line",
    [
        " and ".join(["a"] * 50_000),
        "import a" + ".a" * 50_000,
        "from a" + ".a" * 50_000 + " import b",
    ],
    ids=["and", "import", "from"],
)
def test_a_chain_that_is_flat_to_python_alone_is_refused(line: str) -> None:
    """LibCST's parser overflows the stack of the process on it."""
    source = BROKEN + line.encode() + b"\n"
    plan = make_plan(PATCH, source)
    assert plan.problem == "nested too deeply"
    assert plan.line == source.count(b"\n")


def test_what_a_deeply_nested_line_is_added_to_is_refused() -> None:
    plan = plan_of(BROKEN + b"x = " + b"-" * 2_000 + b"1\n")
    assert plan.state is PatchState.DRIFTED
    assert plan.problem == "nested too deeply"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (BROKEN.replace(b"\nclass Glm4Dec", b"\n\x0cclass Glm4Dec"), b"class Glm4Dec"),
        (BROKEN.replace(b"\n", b"\r"), b"import logging"),
    ],
)
def test_what_would_not_survive_is_refused_with_its_line(source: bytes, line: bytes) -> None:
    """LibCST drops form feeds and alters files with lone carriage returns."""
    plan = plan_of(source)
    assert plan.state is PatchState.DRIFTED
    assert "form feed or lone carriage return" in plan.problem
    assert plan.line == source[: source.index(line)].count(b"\n") + 1
    assert plan.after == source


def test_valid_python_without_the_classes_is_drift() -> None:
    plan = plan_of("# nothing\n")
    assert plan.state is PatchState.DRIFTED
    assert not plan.problem
    assert {finding.reason for finding in plan.findings} == {
        "no class named Glm4DecoderLayer",
        "no class named Glm4Attention",
    }


# -- rewrites, by a patch of the test's own -----------------------------------------------------


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Patch]:
    """A patch of the functions that are given, by the names of its rewrites."""

    def make(places: int = 1, versions: str = "", **rewrites: object) -> Patch:
        module = ModuleType("glmpatch.patches.toy.rewrites")
        for name, function in rewrites.items():
            setattr(module, name, function)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        named = tuple(Rewrite(name, name, places, versions) for name in rewrites)
        return dataclasses.replace(PATCH, id="toy", rewrites=named, versions=">=0.8,<0.9")

    return make


SUM = Snippet("A + B")


def sums(module: cst.Module) -> list[Place]:
    return [Place(f.node, True, replace(f, "A - B")) for f in SUM.find(module)] or [Place(module)]


def test_a_rewrite_that_stumbles_has_not_recognised_its_place(toy: Callable[..., Patch]) -> None:
    def stumbles(module: cst.Module) -> list[Place]:
        raise IndexError("no such thing")

    plan = make_plan(toy(stumbles=stumbles), b"x = 1\n")
    assert plan.state is PatchState.DRIFTED
    assert [f.reason for f in plan.findings] == [f"{STUMBLED}: IndexError: no such thing"]


def test_another_number_of_places_than_expected_is_not_recognised(
    toy: Callable[..., Patch],
) -> None:
    plan = make_plan(toy(sums=sums), b"x = 1\ny = a + b + c\n")
    assert plan.state is PatchState.DRIFTED
    assert [(f.reason, f.line) for f in plan.findings] == [("2 places found, expected 1", 2)]
    assert make_plan(toy(places=0, sums=lambda _: []), b"x = 1\n").state is PatchState.DRIFTED


def test_a_mend_that_leaves_its_defect_is_no_plan(toy: Callable[..., Patch]) -> None:
    def more(module: cst.Module) -> list[Place]:
        return [Place(f.node, True, replace(f, "A + (A + B)")) for f in SUM.find(module)]

    plan = make_plan(toy(more=more), b"x = a + b\n")
    assert plan.state is PatchState.DRIFTED
    assert plan.after == plan.before
    assert "mended" in plan.findings[0].reason


def test_an_edit_without_a_place_is_no_plan(toy: Callable[..., Patch]) -> None:
    def nowhere(module: cst.Module) -> list[Place]:
        return [Place(module, True, {cst.Name("elsewhere"): cst.Name("x")})]

    plan = make_plan(toy(nowhere=nowhere), b"x = 1\n")
    assert plan.state is PatchState.DRIFTED
    assert "1 edits find no place" in plan.findings[0].reason


def test_what_one_does_not_find_keeps_the_others_from_being_made(
    toy: Callable[..., Patch],
) -> None:
    def lost(module: cst.Module) -> list[Place]:
        raise Unrecognized("not here", module.body[-1])

    plan = make_plan(toy(sums=sums, lost=lost), b"x = a + b\ny = 1\n")
    assert plan.state is PatchState.DRIFTED
    assert plan.after == plan.before
    assert [(f.state, f.line) for f in plan.findings] == [
        (RewriteState.BROKEN, 1),
        (RewriteState.UNRECOGNIZED, 2),
    ]


def test_a_rewrite_is_looked_for_in_its_own_releases_alone(toy: Callable[..., Patch]) -> None:
    patch = toy(versions="<0.8.5", sums=sums)
    source = b"x = a + b\n"
    assert make_plan(patch, source, "0.8.4").broken == ("sums",)
    assert make_plan(patch, source, "0.8.5").findings == ()
    assert make_plan(patch, source, None).broken == ("sums",)
    assert make_plan(patch, source, "0.9").broken == ("sums",), "a release that it is not for"


def test_a_part_of_a_file_is_planned_as_the_whole(toy: Callable[..., Patch]) -> None:
    source = b"import a\n\n\ndef f():\n    pass\n\n\ndef g():\n    return a + b\n\n\nx = 1\n"
    whole = toy(sums=sums)
    part = dataclasses.replace(whole, within=("g",))
    assert make_plan(part, source) == make_plan(whole, source)
    assert make_plan(part, source).findings[0].line == 9
    broken = source.replace(b"x = 1", b"x = = 1")
    assert make_plan(part, broken).line == 12


# -- speed --------------------------------------------------------------------------------------


def test_planning_imports_none_of_the_matchers() -> None:
    code = """\
import sys
from glmpatch.source.plan import make_plan
from glmpatch.patches.glm4_residual.patch import PATCH
assert make_plan(PATCH, sys.stdin.buffer.read()).state.value == "needed"
assert "libcst.matchers" not in sys.modules
assert "libcst.codemod" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], input=BROKEN, check=True)


def test_a_result_of_known_sha256_is_not_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    parse = planning._parse

    def counted(data: bytes) -> cst.Module:
        parsed.append(data)
        return parse(data)

    monkeypatch.setattr(planning, "_parse", counted)
    assert make_plan(PATCH, BROKEN, right=[sha256(RIGHT)]).after == RIGHT
    assert [len(source.rstrip()) for source in parsed] == [len(BROKEN.rstrip())]
    assert make_plan(PATCH, BROKEN, right=["0" * 64]).after == RIGHT
    assert [len(source.rstrip()) for source in parsed[2:]] == [len(RIGHT.rstrip())]
