"""Lines, diffs and errors: what is printed where."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from patcher.errors import Exit, Failure
from patcher.report import Report, unified_diff
from patcher.rewriting import Plan
from patcher.verify.driver import Answer, Behaved, Result, Verification
from patches.glm4_residual import PATCH


def plan(before: bytes, after: bytes) -> Plan:
    return Plan(before, after, ())


@pytest.mark.skipif(shutil.which("git") is None, reason="no git to apply a diff with")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"a\nb\n", b"a\nc\n"),
        (b"a\r\nb\r\n", b"a\r\nc\r\n"),
        (b"a\nb", b"a\nc"),
        (b"a\nb", b"a\nb\n"),
        (b"a\nb\n", b"a\nb"),
        (b"# \x0b \x1c \xc2\x85 \xe2\x80\xa8 x\nb\n", b"# \x0b \x1c \xc2\x85 \xe2\x80\xa8 x\nc\n"),
        ("# größe 日本\nb\n".encode(), "# größe 日本\nc\n".encode()),
        (b"", b"a\n"),
    ],
)
def test_a_diff_is_one_that_git_applies_byte_for_byte(
    tmp_path: Path, before: bytes, after: bytes
) -> None:
    file = tmp_path / PATCH.file
    file.parent.mkdir(parents=True)
    file.write_bytes(before)
    text = unified_diff(PATCH, plan(before, after))
    subprocess.run(
        ["git", "apply", "-p1", "--whitespace=nowarn", "-"],
        input=text.encode(),
        cwd=tmp_path,
        check=True,
    )
    assert file.read_bytes() == after


def test_equal_files_have_no_diff() -> None:
    assert unified_diff(PATCH, plan(b"a\n", b"a\n")) == ""


def test_hints_name_the_same_vllm() -> None:
    assert Report("status").next("apply --verify") == "glmpatch apply --verify"
    on = ("--python", "'/opt/my venv'")
    assert Report("status", on=on).next("apply") == "glmpatch apply --python '/opt/my venv'"


def test_an_error_says_what_and_what_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert Report("apply", quiet=True).fail(Failure(Exit.DRIFT, "what", "next")) == 5
    assert capsys.readouterr() == ("", "error: what\nhint: next\n")
    assert Report("apply").fail(Failure(Exit.TARGET, "what")) == 3
    assert capsys.readouterr() == ("", "error: what\n")


def test_json_is_one_object_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("apply", as_json=True, verbose=True)
    report.data("data")
    report.message("message")
    report.detail("detail")
    report.warn("warning", "hint")
    assert report.finish(Exit.OK) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out)["warnings"] == ["warning; hint"]


def test_lines_go_where_they_belong(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("status")
    report.data("data")
    report.detail("not shown")
    report.message("message")
    report.warn("warning", "do")
    assert capsys.readouterr() == ("data\n", "message\nwarning: warning\nhint: do\n")
    Report("status", verbose=True).detail("detail")
    assert capsys.readouterr() == ("detail\n", "")
    quiet = Report("status", quiet=True, verbose=True)
    for say in (quiet.data, quiet.detail, quiet.message, quiet.hint):
        say("nothing")
    assert capsys.readouterr() == ("", "")


def test_a_step_is_drawn_once_over_the_one_before(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("verify")
    assert not report.shows_steps  # no terminal here
    for text in ("importing", "importing", "asking", ""):
        report.step(text)
    out, err = capsys.readouterr()
    assert out == ""
    # Escape codes that move the cursor are for terminals; Click takes them away here.
    assert err == "\rimporting\rasking\r"


def test_a_verification_says_what_was_proved_and_what_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    passed = Result("glm4-residual", "planned", True, 2e-5, 2e-5, 2e-4, 87, 87, None)
    crash = {"type": "TypeError", "message": "boom", "place": "linear.py:1", "traceback": "deep"}
    crashed = Result("glm4-residual", "installed", False, None, 2e-5, 2e-4, None, None, crash)
    infinite = Result("glm4-residual", "installed", False, None, 2e-5, 2e-4, 0, 87, None)
    report = Report("verify")
    report.show_verification(
        Verification("module", "CPU", "float32", {}, 1.0, (passed, crashed, infinite))
    )
    out, err = capsys.readouterr()
    assert err == ""
    assert "vLLM's model file on the CPU in float32" in out
    assert "not the engine" in out
    assert "glm4-residual: passed (planned file)" in out
    assert "worst log-probability difference  2.0e-05" in out
    assert "limit                             2.0e-04" in out
    assert "87 of 87 positions" in out
    assert "glm4-residual: FAILED (installed file)\n  TypeError: boom\n  at linear.py:1\n" in out
    assert "worst log-probability difference  not finite" in out
    assert "deep" not in out
    assert report.verification is not None
    assert report.verification["outcome"] == "failed"


def test_the_heading_tells_a_proof_by_numbers_from_one_by_answers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    passed = Result("glm4-residual", "planned", True, 2e-5, 2e-5, 2e-4, 87, 87, None)
    wrong = Answer("dtype half", "float16", False)
    failed = Behaved("glm4-float16-guard", "installed", False, (wrong,), None)
    by_answers = "glm4-float16-guard: by the answers of vLLM's configuration; no model was run"
    for results, behaviours, heading in (
        ((passed,), (), ["proof: vLLM's model file on", "       not the engine: "]),
        ((), (failed,), [f"proof: {by_answers}\n"]),
        (
            (passed,),
            (failed,),
            ["proof: vLLM's", "       not the engine: ", f"       {by_answers}"],
        ),
    ):
        verification = Verification("module", "CPU", "float32", {}, 1.0, results, behaviours)
        Report("verify").show_verification(verification)
        lines = capsys.readouterr().out.splitlines(keepends=True)
        for line, start in zip(lines, heading, strict=False):
            assert line.startswith(start)
        assert all(" proof" not in line for line in lines[len(heading) :])
        assert verification.failed == tuple(each.patch for each in behaviours)
        assert ("  dtype half: float16  (wrong)\n" in lines) == bool(behaviours)
