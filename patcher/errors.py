"""Failures that a user meets, each with its exit code and the next command to type."""

from __future__ import annotations

import enum
from collections.abc import Mapping


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
    Exit.OK: "the state that was asked for holds",
    Exit.NEEDED: "status --check: a patch is needed",
    Exit.USAGE: "wrong usage",
    Exit.TARGET: "vLLM not found, ambiguous, or not writable",
    Exit.VERSION: "this version of vLLM is not covered",
    Exit.DRIFT: "drift: the code has a form that no patch knows; nothing written",
    Exit.PROOF_FAILED: "verification failed; apply --verify has left the file as it was",
    Exit.PROOF_NOT_RUN: "verification could not run",
    Exit.INTERNAL: "a fault of glmpatch itself",
    Exit.INTERRUPTED: "interrupted",
}


class Failure(Exception):
    """Ends a command: what went wrong and where, and what to do next."""

    def __init__(self, code: Exit, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint
