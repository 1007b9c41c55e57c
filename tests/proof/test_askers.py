"""The means of an asker: another file in the place of a module, and everything back afterwards."""

from __future__ import annotations

import importlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glmpatch.proof.probe import answers
from glmpatch.proof.probe.askers import attempt, beside, candidate, refusal
from glmpatch.proof.probe.outcome import CannotRun


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package ``vllm_like`` with a module that registers itself, and one that imports it."""
    folder = tmp_path / "vllm_like"
    folder.mkdir()
    (folder / "__init__.py").write_text("REGISTERED = {}\n")
    (folder / "parser.py").write_text(
        "import vllm_like\nWHO = 'installed'\nvllm_like.REGISTERED['parser'] = WHO\n"
    )
    (folder / "serving.py").write_text(
        "def who():\n    from vllm_like.parser import WHO\n    return WHO\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("vllm_like")]:
        del sys.modules[name]


def planned(folder: Path) -> str:
    path = folder / "planned.py"
    path.write_text("import vllm_like\nWHO = 'planned'\nvllm_like.REGISTERED['parser'] = WHO\n")
    return str(path)


@pytest.mark.parametrize("imported", [True, False])
def test_a_candidate_stands_in_the_place_of_the_installed_file(
    package: Path, imported: bool
) -> None:
    serving = importlib.import_module("vllm_like.serving")
    own = importlib.import_module("vllm_like.parser") if imported else None
    with candidate("vllm_like.parser", planned(package)) as loaded:
        assert loaded.WHO == serving.who() == "planned"
        assert sys.modules["vllm_like"].REGISTERED["parser"] == "planned"
    assert serving.who() == "installed"
    if own is not None:
        assert sys.modules["vllm_like.parser"] is own
        assert sys.modules["vllm_like"].parser is own
    with candidate("vllm_like.parser", None) as loaded:
        assert loaded.WHO == serving.who() == "installed"
        assert sys.modules["vllm_like"].REGISTERED["parser"] == "installed"


def test_a_candidate_that_raises_leaves_nothing(package: Path) -> None:
    (package / "broken.py").write_text("raise RuntimeError('broken')\n")
    finders = list(sys.meta_path)
    with (
        pytest.raises(RuntimeError, match="broken"),
        candidate("vllm_like.parser", str(package / "broken.py")),
    ):
        pass
    assert sys.meta_path == finders
    assert importlib.import_module("vllm_like.parser").WHO == "installed"


def test_a_copy_beside_changes_nothing_for_the_others(package: Path) -> None:
    serving = importlib.import_module("vllm_like.serving")
    with beside("vllm_like.parser", planned(package)) as loaded:
        assert loaded.WHO == "planned"
        assert serving.who() == "installed"
    with beside("vllm_like.parser", None) as loaded:
        assert loaded is sys.modules["vllm_like.parser"]


def test_an_error_can_be_an_answer_of_either_kind() -> None:
    assert refusal(ValueError("no")) == "refused: no"

    def ask(question: Any) -> Any:
        return 1 / question

    assert attempt(ask, 2) == 0.5
    told = attempt(ask, 0)
    assert told["raised"] == "ZeroDivisionError: division by zero"
    json.dumps(told)


ASKER = """
import json, pathlib

def answer(module, path, questions):
    assert json.loads(pathlib.Path(ASKED).read_text()) == {"proof": "some-patch", "file": str(path)}
    made = [question.pop("x") for question in questions]
    if path == "deadly":
        raise SystemExit("no")
    if path == "short":
        return made[1:]
    if path == "strange":
        return [object() for _ in made]
    return [(x, {1: x}) for x in made]
"""


def request(folder: Path, paths: list[Any]) -> dict[str, Any]:
    """Two questions to each of these files."""
    return {
        "root": "",
        "asked": str(folder / "asked"),
        "answers": [
            {
                "id": "some-patch",
                "asker": "made_up",
                "about": "the made-up",
                "module": "vllm.made",
                "questions": [{"x": 1}, {"x": 2}],
                "files": [{"id": str(path), "path": path} for path in paths],
            }
        ],
    }


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a source in the place of an asker."""

    def put(source: str) -> None:
        (tmp_path / "made_up.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "made_up", raising=False)
        asker = importlib.import_module("made_up")
        monkeypatch.setitem(sys.modules, "glmpatch.proof.probe.askers.made_up", asker)
        monkeypatch.setattr(answers, "check_root", lambda root: None)

    return put


def test_each_file_is_asked_anew_and_an_error_is_a_crash(tmp_path: Path, made_up: Any) -> None:
    made_up(ASKER.replace("ASKED", repr(str(tmp_path / "asked"))))
    paths = [None, "deadly", "short", "strange", "fine"]
    steps: list[str] = []
    report: dict[str, Any] = {"results": []}
    answers.measure(request(tmp_path, paths), report, steps.append)
    assert not (tmp_path / "asked").exists()
    assert steps == [f"asking the made-up ({path})" for path in paths]
    crashes = [each["crash"] and each["crash"]["type"] for each in report["results"]]
    assert crashes == [None, "SystemExit", "ValueError", "TypeError", None]
    for fine in (report["results"][0], report["results"][-1]):
        assert fine["answers"] == [[1, {"1": 1}], [2, {"1": 2}]]


ENDLESS = """
from glmpatch.proof.probe.askers import attempt

def ask(question):
    while True:
        pass

def answer(module, path, questions):
    return [1, 2] if path == "fine" else [attempt(ask, each) for each in questions]
"""


def test_a_file_that_never_answers_is_given_up_and_those_before_it_stand(
    tmp_path: Path, made_up: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up(ENDLESS)
    assert answers.SECONDS <= 600
    monkeypatch.setattr(answers, "SECONDS", 1)
    before = signal.getsignal(signal.SIGALRM)
    report: dict[str, Any] = {"results": []}
    started = time.monotonic()
    with pytest.raises(CannotRun, match="the endless file gave no answer within 1 s"):
        answers.measure(request(tmp_path, ["fine", "endless"]), report, [].append)
    assert time.monotonic() - started < 5
    assert [each["file"] for each in report["results"]] == ["fine"]
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.alarm(0) == 0
    assert not (tmp_path / "asked").exists()
