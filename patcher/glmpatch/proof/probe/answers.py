"""Puts the questions of each patch to each of its files, through the asker that the patch names."""

from __future__ import annotations

import importlib
import json
from typing import Any

from .language import N_, Message
from .outcome import CannotRun, asking, check_root, describe


def measure(request: dict[str, Any], report: dict[str, Any], step: Any) -> None:
    """Fill ``report`` with the answers of each file, or the error in which it ended.

    Raises:
        CannotRun: an asker says that it is the environment's, and no file's.
    """
    for proof in request["answers"]:
        asker = importlib.import_module(f"{__package__}.askers.{proof['asker']}")
        for file in proof["files"]:
            who, which = Message(proof["about"]), Message(file["id"])
            step(N_("asking {who} ({file})", who=who, file=which))
            found = {"proof": proof["id"], "file": file["id"], "kind": "answers"}
            with asking(request, proof["id"], file["id"]):
                try:
                    # Copies: one file must not see what another made of its questions.
                    questions = json.loads(json.dumps(proof["questions"]))
                    answers = asker.answer(proof["module"], file["path"], questions)
                    if len(answers) != len(questions):
                        raise ValueError(f"{len(answers)} answers to {len(questions)} questions")
                    report["results"].append({**found, "crash": None, "answers": _plain(answers)})
                except CannotRun:
                    raise
                except (Exception, SystemExit) as error:
                    report["results"].append({**found, "crash": describe(error), "answers": []})
            check_root(request["root"])


def _plain(answers: Any) -> Any:
    """As JSON has it; an answer that it cannot carry is a crash, and no fault of the report."""
    return json.loads(json.dumps(answers))
