"""What real shells make of TAB, once they have read what glmpatch gives them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import glmpatch as package
from glmpatch.catalogue import load_patches
from tests.command.test_cli import COMMANDS, imported
from tests.support.environment import glmpatch
from tests.support.shell import START, Shell, shell

IDS = [patch.id for patch in load_patches()]
SCRIPTS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
SWITCH_ON = {
    "bash": 'eval "$(_GLMPATCH_COMPLETE=bash_source glmpatch)"',
    "zsh": 'autoload -U compinit; compinit -u; eval "$(_GLMPATCH_COMPLETE=zsh_source glmpatch)"',
    "fish": "_GLMPATCH_COMPLETE=fish_source glmpatch | source",
}


@pytest.fixture(scope="module", params=START)
def at(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Somebody at a shell in which completion is switched on."""
    home = tmp_path_factory.mktemp("home")
    (home / "ü b" / "环境").mkdir(parents=True)
    (home / "ü b" / "report, one.html").touch()
    with shell(request.param, home, SCRIPTS) as shell_:
        shell_.run(SWITCH_ON[request.param])
        yield shell_


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("glmpatch app", ["apply"]),
        ("glmpatch explain glm4-re", ["explain", "glm4-residual"]),
        ("glmpatch apply glm4-residual glm-r", ["apply", "glm4-residual", "glm-rope"]),
        ("glmpatch diff glm4-residual glm4-f", ["diff", "glm4-residual", "glm4-float16-guard"]),
        ("glmpatch apply --verify --an", ["apply", "--verify", "--any-version"]),
        ("glmpatch verify --device cu", ["verify", "--device", "cuda"]),
        ("glmpatch list gl", ["list", "gl"]),
        ("glmpatch frob", ["frob"]),
    ],
)
def test_tab_ends_the_word(typed: str, words: list[str], at: Shell) -> None:
    assert at.completed(typed) == ["glmpatch", *words]


@pytest.mark.parametrize("option", ["status --path", "diff --python", "verify --model"])
def test_tab_finds_folders_whatever_their_names(option: str, at: Shell) -> None:
    *_, found = at.completed(rf"glmpatch {option} ü\ b/环")
    assert found.rstrip("/") == "ü b/环境"


@pytest.mark.parametrize(
    ("option", "found"),
    [
        ("diff --python", "ü b/report, one.html"),
        ("verify --report", "ü b/report, one.html"),
        ("status --path", "ü b/re"),
        ("verify --model", "ü b/re"),
    ],
)
def test_tab_finds_files_where_one_may_be_named(option: str, found: str, at: Shell) -> None:
    assert at.completed(rf"glmpatch {option} ü\ b/re")[-1] == found


def test_tab_shows_what_may_come_next(at: Shell) -> None:
    assert "--check" not in at.offered("glmpatch ", COMMANDS)
    assert at.offered("glmpatch revert glm", IDS)
    assert at.offered("glmpatch status -", ["--check", "--python", "--path", "--json", "--help"])


def test_without_the_script_tab_ends_nothing(tmp_path: Path) -> None:
    with shell("bash", tmp_path, SCRIPTS) as bare:
        assert bare.completed("glmpatch app") == ["glmpatch", "app"]


def ask(words: str, position: int, shell: str = "bash") -> list[str]:
    """What Click's script would be told, as the script asks."""
    done = glmpatch(
        env={
            "_GLMPATCH_COMPLETE": f"{shell}_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(position),
        }
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.split()


@pytest.mark.parametrize("command", ["explain", "diff", "apply", "revert"])
def test_every_command_that_takes_patches_offers_them(command: str) -> None:
    assert ask(f"glmpatch {command} ", 2) == [f"plain,{name}" for name in IDS]
    assert ask(f"glmpatch {command} --json glm4-", 3) == [
        f"plain,{name}" for name in IDS if name.startswith("glm4-")
    ]


@pytest.mark.parametrize(
    "asked",
    [
        {"_GLMPATCH_COMPLETE": "bash_complete"},
        {"_GLMPATCH_COMPLETE": "zsh_complete", "COMP_WORDS": "glmpatch", "COMP_CWORD": "one"},
        {"_GLMPATCH_COMPLETE": "tcsh_source"},
        {"_GLMPATCH_COMPLETE": "1"},
    ],
)
def test_what_cannot_be_answered_is_no_answer(asked: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "theirs" / "patches").mkdir(parents=True)
    (tmp_path / "theirs" / "patches" / "__init__.py").write_text("print('not ours')\n")
    home = str(Path(package.__file__).parent.parent)
    path = os.pathsep.join([asked.get("PYTHONPATH", ""), home])
    done = glmpatch(cwd=tmp_path, env={**asked, "PYTHONPATH": path})
    assert (done.stdout, done.stderr) == ("", "")
    assert done.returncode != 0


def test_the_patches_are_read_only_to_be_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_GLMPATCH_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "glmpatch apply --verify --")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert "glmpatch.patch" not in imported("-m", "glmpatch")
    monkeypatch.setenv("COMP_WORDS", "glmpatch apply --verify gl")
    assert "glmpatch.patch" in imported("-m", "glmpatch")
