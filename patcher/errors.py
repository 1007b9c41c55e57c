"""Failures that a user meets, each with its exit code and the next command to type."""

from __future__ import annotations

import enum


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


class Failure(Exception):
    """Ends a command: what went wrong and where, and what to do next."""

    def __init__(self, code: Exit, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint
