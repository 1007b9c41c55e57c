"""Failures that a user meets, each with its exit code and the next command to type."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence

from glmpatch.language import N_


class Exit(enum.IntEnum):
    """Exit codes of the command; the README explains them."""

    OK = 0
    NEEDED = 1
    USAGE = 2
    TARGET = 3
    VERSION = 4
    DRIFT = 5
    PROOF_FAILED = 6
    PROOF_NOT_RUN = 7
    INTERNAL = 70
    INTERRUPTED = 130


MEANING: Mapping[Exit, str] = {
    Exit.OK: N_("the state that was asked for holds"),
    Exit.NEEDED: N_("status --check: a patch is needed, or no model can be loaded"),
    Exit.USAGE: N_("wrong usage"),
    Exit.TARGET: N_("vLLM not found, ambiguous, or not writable"),
    Exit.VERSION: N_("this version of vLLM is not covered, and its file has the defect"),
    Exit.DRIFT: N_("drift or unproven: nothing written; the hint says how to prove"),
    Exit.PROOF_FAILED: N_("the proof failed; nothing written"),
    Exit.PROOF_NOT_RUN: N_("the proof could not run"),
    Exit.INTERNAL: N_("a fault of glmpatch itself"),
    Exit.INTERRUPTED: N_("interrupted"),
}


class Failure(Exception):
    """Ends a command: what went wrong and where, and what to do next."""

    def __init__(self, code: Exit, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint


WORST = (
    Exit.INTERNAL,
    Exit.INTERRUPTED,
    Exit.TARGET,
    Exit.PROOF_FAILED,
    Exit.PROOF_NOT_RUN,
    Exit.DRIFT,
    Exit.VERSION,
    Exit.NEEDED,
)
"""Of several outcomes, the first of these is the exit code."""


def worst(codes: Iterable[Exit]) -> Exit:
    """The one exit code of several outcomes."""
    found = set(codes)
    return next((code for code in WORST if code in found), Exit.OK)


def combined(failures: Sequence[Failure]) -> Failure:
    """One Failure with all that several of them say; there must be one at least."""
    messages = dict.fromkeys(failure.message for failure in failures)
    hints = dict.fromkeys(failure.hint for failure in failures if failure.hint)
    return Failure(worst(f.code for f in failures), "\n".join(messages), "\n".join(hints))
