"""Puts the questions of each patch to each of its files, through the asker that the patch names."""

from __future__ import annotations

import contextlib
import importlib
import json
import signal
from typing import Any

from .language import N_, Message
from .outcome import CannotRun, asking, check_root, describe

SECONDS = 300
"""The answers of one file take seconds, and a minute with the import of what it needs."""


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
            with asking(request, proof["id"], file["id"]), ending(which):
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


class _Late(BaseException):
    """No Exception: neither vLLM nor an asker may take it for an answer."""


@contextlib.contextmanager
def ending(file: Message) -> Any:
    """End a block of Python that goes on for ever, long before the one who waits for the probe
    gives up. Code that is stuck elsewhere than in Python is left to them."""

    def late(*_: Any) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    except _Late as error:
        raise CannotRun(
            N_("the {file} file gave no answer within {seconds} s", file=file, seconds=SECONDS),
            N_("run it again on a machine that is less busy"),
        ) from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _plain(answers: Any) -> Any:
    """As JSON has it; an answer that it cannot carry is a crash, and no fault of the report."""
    return json.loads(json.dumps(answers))
