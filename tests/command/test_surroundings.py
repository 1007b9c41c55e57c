"""Narrow and wide terminals, locales without Unicode, paths in any language."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glmpatch.command.cli import cli
from glmpatch.command.help import TOLD
from glmpatch.errors import MEANING, Exit
from tests.command.test_cli import alone
from tests.support.environment import glmpatch
from tests.support.terminal import terminal

COMMANDS = sorted(cli.commands)
C = {"LC_ALL": "C", "LANG": "C"}


@pytest.mark.parametrize("width", [60, 80, 132, 200])
def test_help_fits_the_terminal(width: int) -> None:
    for command in ([], *([name] for name in COMMANDS)):
        done = glmpatch(*command, "--help", env={"COLUMNS": str(width)})
        assert done.returncode == 0
        lines = done.stdout.splitlines()
        assert [line for line in lines if len(line) > width] == []
        assert [line for line in lines[1:] if line.endswith("...")] == [], "cut off"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_ends_with_examples_and_exit_codes(name: str) -> None:
    text = glmpatch(name, "--help", env={"COLUMNS": "200"}).stdout
    told = TOLD[name]
    assert 2 <= len(told.examples) <= 4
    for example, meaning in told.examples.items():
        assert example.startswith(f"glmpatch {name}")
        assert meaning in text
    codes = text.partition("Exit codes:\n")[2].splitlines()
    assert [line.split(maxsplit=1) for line in codes] == [
        [str(int(code)), MEANING[code]] for code in told.exits
    ]


def test_the_examples_can_be_typed() -> None:
    """Each as the parser reads it; what it then does is tried elsewhere."""
    for told in TOLD.values():
        for example in told.examples:
            words = example.partition(" | ")[0].split()[1:]
            command = cli.commands[words[0]]
            command.make_context(words[0], words[1:]).close()


@pytest.mark.parametrize("width", [60, 80, 100])
def test_an_explanation_fits_the_terminal(width: int) -> None:
    text = terminal("explain", "glm4-residual", env={"COLUMNS": str(width)})
    _, *lines = text.splitlines()  # the title is one line
    longest = max(len(line.rstrip()) for line in lines if "https:" not in line)
    assert width - 15 < longest <= width


def test_an_explanation_elsewhere_is_80_wide_whatever_the_surroundings_say() -> None:
    texts = {
        glmpatch("explain", "glm-rope", env={"COLUMNS": width}).stdout for width in ("60", "200")
    }
    (text,) = texts
    assert 70 < max(len(line) for line in text.splitlines()[1:]) <= 80


@pytest.mark.parametrize("surroundings", [{}, C], ids=["unicode", "C"])
def test_paths_in_any_language(
    surroundings: dict[str, str], tmp_path: Path, released_file: bytes
) -> None:
    env = alone(tmp_path / "mit Leerzeichen, ü und 环境", released_file)
    original = env.model.read_bytes()
    for option, where in (("--path", env.site), ("--python", env.root)):
        for command, code in (
            (["status", "--check"], Exit.NEEDED),
            (["diff"], Exit.OK),
            (["apply"], Exit.OK),
            (["status", "--check"], Exit.OK),
            (["revert"], Exit.OK),
        ):
            done = glmpatch(*command, option, str(where), env=surroundings)
            assert done.returncode == code, done.stderr
            assert "Traceback" not in done.stderr
        done = glmpatch("status", "--json", option, str(where), env=surroundings)
        assert json.loads(done.stdout)["vllm"]["path"] == str(env.site / "vllm")
        assert env.model.read_bytes() == original


def test_everything_that_is_said_can_be_said_in_ascii(tmp_path: Path, released_file: bytes) -> None:
    env = alone(tmp_path / "环境", released_file)
    for command in (["list"], ["explain", "glm4-residual"], ["status", "-v"], ["apply", "qwen"]):
        on = [] if command[0] in ("list", "explain") else ["--path", str(env.site)]
        plain = glmpatch(*command, *on)
        done = glmpatch(*command, *on, env={**C, "PYTHONIOENCODING": "ascii:strict"})
        assert done.returncode == plain.returncode
        assert "Traceback" not in done.stderr
        assert (done.stdout + done.stderr).isascii()


@pytest.mark.parametrize(
    ("typed", "meant"), [("aply", "apply"), ("verfiy", "verify"), ("stats", "status")]
)
def test_a_slip_of_the_keys_is_told(typed: str, meant: str) -> None:
    done = glmpatch(typed)
    assert done.returncode == Exit.USAGE
    assert meant in done.stderr
