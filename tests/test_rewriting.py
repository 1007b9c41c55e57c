"""The released file, in every dress, becomes the right one; bad input is refused, never a crash."""

from __future__ import annotations

import ast
import difflib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import libcst as cst
import pytest

from patcher import rewriting
from patcher.patch import PatchState
from patcher.rewriting import Plan, make_plan, sha256
from patches.glm4_residual import PATCH
from tests.support.sources import REWRITES, expected, proper_subsets, repaired, replace

COOKIE = b"# -*- coding: %s -*-\n"


def tree(source: bytes) -> str:
    return ast.dump(ast.parse(source))


def plan_of(source: bytes | str) -> Plan:
    return make_plan(PATCH, source.encode() if isinstance(source, str) else source)


# -- the released file --------------------------------------------------------------------------


def test_the_released_file_becomes_the_upstream_one_and_no_other_line_changes(
    released_file: bytes,
) -> None:
    plan = plan_of(released_file)
    assert plan.state is PatchState.NEEDED
    assert plan.broken == REWRITES
    assert plan.after == expected(released_file)
    lines = difflib.ndiff(released_file.decode().splitlines(), plan.after.decode().splitlines())
    changed = [line for line in lines if line[0] in "+-"]
    assert len(changed) == 8, changed
    assert PATCH.known[sha256(released_file)] is PatchState.NEEDED
    assert PATCH.known[sha256(plan.after)] is PatchState.FIXED


@pytest.mark.parametrize("subset", list(proper_subsets()), ids=lambda s: "+".join(s) or "none")
def test_each_subset_of_the_rewrites_is_that_subset_of_the_changes(
    released_file: bytes, subset: tuple[str, ...]
) -> None:
    half = repaired(released_file, subset)
    assert half == expected(released_file, subset)
    plan = plan_of(half)
    assert plan.broken == tuple(rewrite for rewrite in REWRITES if rewrite not in subset)
    assert plan.after == expected(released_file)


def test_a_second_plan_finds_nothing_to_do(released_file: bytes) -> None:
    after = repaired(released_file) + b"# not a hash that is known\n"
    plan = plan_of(after)
    assert plan.state is PatchState.FIXED
    assert plan.after == after


def _recoded(encoding: str) -> Callable[[bytes], bytes]:
    def recode(source: bytes) -> bytes:
        text = (COOKIE % encoding.encode()).decode() + "# Zhìpǔ Ä\n" + source.decode()
        return text.encode(encoding, errors="replace")

    return recode


DRESSES: dict[str, Callable[[bytes], bytes]] = {
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
    "latin-1": _recoded("latin-1"),
    "cp1252": _recoded("cp1252"),
    "utf-8 with a cookie": _recoded("utf-8"),
    "old lines as comments": lambda source: source.replace(
        b"        return hidden_states, residual\n",
        b"        # hidden_states = residual + hidden_states\n"
        b"        # hidden_states = self.post_attention_layernorm(hidden_states, residual)\n"
        b"        return hidden_states, residual\n",
    ),
    "an invalid escape": lambda source: source + b"PATTERN = '\\d'\n",
}


@pytest.mark.parametrize("dress", DRESSES.values(), ids=DRESSES)
@pytest.mark.filterwarnings("ignore:invalid escape")
def test_line_ends_encodings_and_indentation_are_kept(
    released_file: bytes, dress: Callable[[bytes], bytes]
) -> None:
    source = dress(released_file)
    plan = plan_of(source)
    assert plan.state is PatchState.NEEDED, plan
    assert tree(plan.after) == tree(expected(released_file) + source[len(source) :]) or (
        tree(plan.after) == tree(dress(expected(released_file)))
    )
    before, after = source.splitlines(keepends=True), plan.after.splitlines(keepends=True)
    assert len(set(before) - set(after)) <= 4
    assert len(set(after) - set(before)) <= 4
    assert plan_of(plan.after).state is PatchState.FIXED


def test_the_added_lines_end_as_the_others(released_file: bytes) -> None:
    after = repaired(released_file.replace(b"\n", b"\r\n"))
    assert after == expected(released_file).replace(b"\n", b"\r\n")


FORMATTERS = {
    "black": ["black", "-q"],
    "black, 79 columns": ["black", "-q", "-l", "79"],
    "black, one element a line": ["black", "-q", "-l", "40"],
    "ruff": ["ruff", "format", "-q", "--isolated"],
    "ruff, 200 columns": ["ruff", "format", "-q", "--isolated", "--line-length", "200"],
    "yapf, pep8": ["yapf", "-i", "--style", "pep8"],
    "yapf, google": ["yapf", "-i", "--style", "google"],
    "yapf, facebook": ["yapf", "-i", "--style", "facebook"],
    "yapf, tabs": ["yapf", "-i", "--style", "{based_on_style: pep8, use_tabs: true}"],
    "autopep8": ["autopep8", "-i"],
    "autopep8, aggressive": ["autopep8", "-i", "-a", "-a", "--max-line-length", "60"],
}


@pytest.mark.parametrize("formatter", FORMATTERS.values(), ids=FORMATTERS)
def test_every_formatting_is_recognised_and_patched(
    released_file: bytes, formatter: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "glm4.py"
    path.write_bytes(released_file)
    subprocess.run([sys.executable, "-m", *formatter, str(path)], check=True, cwd=tmp_path)
    source = path.read_bytes()
    if "pep8" not in " ".join(formatter):  # vLLM's own
        assert source != released_file
    plan = plan_of(source)
    assert plan.state is PatchState.NEEDED
    assert tree(plan.after) == tree(expected(released_file))
    assert plan_of(plan.after).state is PatchState.FIXED
    # Nothing but the five places changes, whatever lines they take.
    kept = difflib.SequenceMatcher(None, source.splitlines(), plan.after.splitlines(), False)
    blocks = [code for code in kept.get_opcodes() if code[0] != "equal"]
    assert len(blocks) <= 5


# -- forms met in forks -------------------------------------------------------------------------

FUSED = """\
        hidden_states, residual = self.post_attention_layernorm(
            hidden_states, residual)
"""
MLP = "        hidden_states = self.post_mlp_layernorm(hidden_states)\n"


def test_a_fork_that_still_multiplies_twice_gets_that_one_rewrite(released_file: bytes) -> None:
    right = expected(released_file)
    fork = expected(released_file, tuple(r for r in REWRITES if r != "rotary-dim-once"))
    plan = plan_of(fork)
    assert plan.broken == ("rotary-dim-once",)
    assert plan.after == right


def test_a_fork_that_keeps_the_old_lines_as_comments_is_left_alone(released_file: bytes) -> None:
    kept = {"old": "        # hidden_states = residual + hidden_states\n"}
    fork = replace(expected(released_file), FUSED, kept["old"] + FUSED)
    fork = replace(fork, MLP, MLP + kept["old"])
    fork = replace(
        fork,
        "        positions: torch.Tensor,\n        hidden_states: torch.Tensor,\n        residual",
        "        positions: torch.Tensor,\n        hidden_states: torch.Tensor,\n"
        "        kv_cache: torch.Tensor,\n        attn_metadata: object,\n        residual",
    )
    plan = plan_of(fork)
    assert plan.state is PatchState.FIXED
    assert plan.after == fork


CASTS = {
    "the norm in float32": (
        FUSED,
        FUSED.replace("hidden_states, residual)", "hidden_states.float(), residual.float())"),
        "post_attention_layernorm",
    ),
    "the result clamped": (
        MLP,
        MLP + "        hidden_states = torch.clamp(hidden_states, -65504, 65504)\n",
        "torch.clamp",
    ),
    "the residual cast back": (
        FUSED,
        FUSED + "        residual = residual.to(hidden_states.dtype)\n",
        "residual.to(",
    ),
    "clamped under a test": (
        MLP,
        MLP
        + "        if self.layer > 60:\n            hidden_states = hidden_states.clamp(-1, 1)\n",
        "hidden_states.clamp",
    ),
}


@pytest.mark.parametrize(("old", "new", "where"), CASTS.values(), ids=CASTS)
def test_a_fork_with_casts_and_clamps_is_refused_at_that_line(
    released_file: bytes, old: str, new: str, where: str
) -> None:
    """Whether such a value still is what it was is not for a reader of the source to say."""
    fork = replace(expected(released_file), old, new)
    plan = plan_of(fork)
    assert plan.state is PatchState.DRIFTED
    assert plan.after == fork
    lines = fork.decode().splitlines()
    unknown = [finding for finding in plan.findings if finding.state.value == "unrecognized"]
    assert {finding.rewrite for finding in unknown} == {"unpack-fused-norm", "drop-double-residual"}
    for finding in unknown:
        assert finding.line is not None
        assert where in lines[finding.line - 1]


# -- bad input ----------------------------------------------------------------------------------

BAD: dict[str, tuple[bytes, str, int | None]] = {
    "empty": (b"", "the file is empty", 1),
    "white space": (b" \n\t\n", "the file is empty", 1),
    "syntax error": (b"x = 1\ny = = 2\n", "syntax error", 2),
    "an open bracket": (b"x = 1\ny = (\n", "syntax error", 2),
    "bad indentation": (b"if 1:\n    x\n  y\n", "syntax error", 3),
    "Python 2": (b"\nprint 'x'\n", "syntax error", 2),
    "not UTF-8": (b"x = 1\n# \xff\n", "not utf-8", 2),
    "half a character": (b"x = 1\n\n# \xc3", "not utf-8", 3),
    "UTF-16": ("x = 1\n".encode("utf-16"), "NUL byte", 1),
    "a binary": (b"\x7fELF\x02\x01\x01\x00", "NUL byte", 1),
    "NUL": (b"x = 1\ny = 2\0\n", "NUL byte", 2),
    "a form feed": (b"x = 1\n\x0cy = 2\n", "form feed", 2),
    "lone carriage returns": (b"x = 1\ry = 2\r", "carriage return", 1),
    "an unknown cookie": (COOKIE % b"klingon" + b"x = 1\n", "klingon", 1),
    "a cookie for bytes": (COOKIE % b"hex" + b"x = 1\n", "", 1),
    "a cookie that is wrong": (COOKIE % b"ascii" + "# ä\n".encode(), "not ascii", 2),
    "a cookie against the BOM": (b"\xef\xbb\xbf" + COOKIE % b"latin-1", "", 1),
    "nested brackets": (b"x = " + b"(" * 90_000 + b")" * 90_000, "", 1),
    "nested lists": (b"\nx = " + b"[" * 150 + b"]" * 150, "nested too deeply", 2),
    "nested calls": (b"f(" * 190 + b")" * 190, "nested too deeply", 1),
    "nested signs": (b"x = " + b"-" * 90_000 + b"1", "nested too deeply", None),
    "nested nots": (b"x = " + b"not " * 3_000 + b"1", "nested too deeply", None),
    "a long sum": (b"x = 1" + b" + 1" * 90_000, "nested too deeply", None),
    "a long chain": (b"x" + b".a" * 90_000, "nested too deeply", None),
    "many indices": (b"x" + b"[0]" * 90_000, "nested too deeply", None),
    "many elifs": (b"if 1:\n  x\n" + b"elif 1:\n  x\n" * 20_000, "nested too deeply", None),
    "nested lambdas": (b"lambda: " * 20_000 + b"1", "", None),
    "nested powers": (b"2" + b"**2" * 20_000, "nested too deeply", None),
    "nested conditions": (b"1" + b" if 1 else 1" * 20_000, "nested too deeply", None),
}


@pytest.mark.parametrize(("source", "problem", "line"), BAD.values(), ids=BAD)
def test_bad_input_is_drift_with_problem_and_line(
    source: bytes, problem: str, line: int | None
) -> None:
    plan = plan_of(source)
    assert plan.state is PatchState.DRIFTED
    assert plan.after == source
    assert plan.problem
    assert problem in plan.problem
    assert [finding.rewrite for finding in plan.findings] == list(REWRITES)
    if line is not None:
        assert plan.line == line


def test_what_a_deeply_nested_line_is_added_to_is_refused(released_file: bytes) -> None:
    plan = plan_of(released_file + b"x = " + b"-" * 2_000 + b"1\n")
    assert plan.state is PatchState.DRIFTED
    assert plan.problem == "nested too deeply"


def test_valid_python_without_the_classes_is_drift() -> None:
    plan = plan_of("# nothing\n")
    assert plan.state is PatchState.DRIFTED
    assert not plan.problem
    assert {finding.reason for finding in plan.findings} == {
        "RMSNorm is not imported from vllm.model_executor.layers.layernorm",
        "get_rope is not imported from vllm.model_executor.layers.rotary_embedding",
    }


def test_planning_imports_none_of_the_matchers(released_file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "glm4.py"
    path.write_bytes(released_file)
    code = """\
import sys
from pathlib import Path
from patcher.rewriting import make_plan
from patches.glm4_residual import PATCH
assert not any(name.startswith("libcst.") for name in sys.modules)
assert make_plan(PATCH, Path(sys.argv[1]).read_bytes()).state.value == "needed"
assert "libcst.matchers" not in sys.modules
assert "libcst.codemod" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_a_result_of_known_sha256_is_not_read_anew(
    released_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []
    parse = rewriting._parse

    def counted(data: bytes) -> cst.Module:
        parsed.append(data)
        return parse(data)

    monkeypatch.setattr(rewriting, "_parse", counted)
    assert make_plan(PATCH, released_file).state is PatchState.NEEDED
    assert parsed == [released_file]
    other = released_file + b"# one more line\n"
    plan = make_plan(PATCH, other)
    assert parsed[1:] == [other, plan.after]
