"""Lines, diffs and errors: what is printed where."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from glmpatch.command.report import Report, unified_diff
from glmpatch.errors import Exit, Failure
from glmpatch.patches.glm4_residual.patch import PATCH
from glmpatch.words import Words

FILE = PATCH.path()


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
    file = tmp_path / FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(before)
    text = unified_diff(FILE, before, after)
    subprocess.run(
        ["git", "apply", "-p1", "--whitespace=nowarn", "-"],
        input=text.encode(),
        cwd=tmp_path,
        check=True,
    )
    assert file.read_bytes() == after


def test_equal_files_have_no_diff() -> None:
    assert unified_diff(FILE, b"a\n", b"a\n") == ""


def test_hints_name_the_same_vllm() -> None:
    assert Words().next("apply --verify") == "glmpatch apply --verify"
    on = ("--python", "'/opt/my venv'")
    assert Words("uvx glmpatch", on).next("apply") == "uvx glmpatch apply --python '/opt/my venv'"


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


def test_a_step_in_a_pipe_is_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Report("verify").progress()
    assert progress is not None
    for text in ("importing", "importing", "asking", ""):
        progress(text)
    assert capsys.readouterr() == ("", "importing\nasking\n")


def test_a_step_on_a_terminal_is_drawn_over_the_one_before(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = Report("verify").progress()
    assert progress is not None
    progress.terminal = True
    for text in ("importing", "importing", "asking"):
        progress(text)
    progress.began -= 60
    progress("asking")
    progress("")
    # Escape codes that move the cursor are for terminals; Click takes them away here.
    assert capsys.readouterr().err == "\rimporting (0 s)\rasking (0 s)\rasking (60 s)\r"


def test_steps_are_not_shown_with_quiet_and_json() -> None:
    assert Report("verify", quiet=True).progress() is None
    assert Report("verify", as_json=True).progress() is None
