"""A command that runs on its own, watched by what it says."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 600
"""Seconds for what hangs to be given up; a machine may be very busy with other things."""


class Command:
    """It writes what it says to files in a folder."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(arguments, stdout=out, stderr=err, env=env)

    def until(self, what: str) -> None:
        """Wait for words of its progress; that it ends without them is a failure of the test."""
        until = time.monotonic() + PATIENCE
        while True:
            goes_on = self._process.poll() is None and time.monotonic() < until
            said = self._err.read_text()
            if what in said:
                return
            assert goes_on, f"never said {what!r}:\n{said}{self._out.read_text()}"
            time.sleep(0.05)

    def end(self, seconds: float = PATIENCE) -> Done:
        """Wait for its end; one that never comes is a failure of the test."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no end in {seconds} s:\n{self._err.read_text()}") from None
        return Done(code, self._out.read_text(), self._err.read_text())

    def kill(self) -> None:
        """It ends now, if it has not."""
        self._process.kill()
        self._process.wait()


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.out)
        return answer
