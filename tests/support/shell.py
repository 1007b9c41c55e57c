"""A real interactive shell at a terminal, in which somebody types."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import shutil
import struct
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support import cache

START: Mapping[str, list[str]] = {
    "bash": ["bash", "--noprofile", "--norc", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
TAB, LINE_START, DISCARD = "\t", "\x01", "\x15"
PATIENCE = 60
"""Seconds after which a shell that shows nothing more is taken for dead."""


class Shell:
    """Somebody at the terminal of one shell; ``shown`` is all that it has shown."""

    def __init__(self, terminal: int) -> None:
        self._terminal, self.shown, self._lines = terminal, "", 0

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def wait_for(self, pattern: str, start: int) -> re.Match[str]:
        """Read until the pattern stands in what was shown from ``start`` on."""
        until = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.shown[start:])):
            ready, _, _ = select.select([self._terminal], [], [], until - time.monotonic())
            assert ready, f"no {pattern!r} in {self.shown[start:]!r}"
            self.shown += os.read(self._terminal, 65536).decode(errors="replace")
        return found

    def run(self, line: str) -> str:
        """What the shell shows of a line and while it runs."""
        self._lines += 1
        start = len(self.shown)
        # Quoted so that the line as it is typed is not the answer.
        self.type(f"{line}; echo 'do'ne{self._lines}\r")
        self.wait_for(rf"done{self._lines}\b", start)
        return self.shown[start:]

    def completed(self, line: str) -> list[str]:
        """The words that the shell makes of a line when TAB is pressed at its end."""
        start = len(self.shown)
        # The completed line is not run but becomes the arguments of a command that shows them.
        self.type(f"{line}{TAB}{LINE_START}printf '<%s>' \r")
        self.run("true")
        found = re.search("<glmpatch>(<[^>]*>)*", self.shown[start:])
        assert found, self.shown[start:]
        return re.findall("<([^>]*)>", found[0])

    def offered(self, line: str, words: Sequence[str]) -> str:
        """What is shown where TAB does not decide, up to all words that must be in it."""
        start = len(self.shown) + len(line)
        self.type(line + TAB + TAB)
        for word in words:
            self.wait_for(re.escape(word), start)
        self.type(DISCARD)
        self.run("true")
        return self.shown[start:]


@contextlib.contextmanager
def shell(name: str, home: Path, path: str) -> Iterator[Shell]:
    """A shell that has read nothing of the user's own, in which every line has room."""
    if shutil.which(name) is None:
        assert os.geteuid() == 0, f"install {name}: a test types into it"
        cache.apt(name)
    environment = {"HOME": str(home), "PATH": path, "TERM": "xterm", "LANG": "C.UTF-8"}
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(home)
        os.execvpe(name, START[name], environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 50, 200, 0, 0))
    try:
        yield Shell(terminal)
    finally:
        os.close(terminal)  # the shell hears that its terminal is gone
        os.waitpid(child, 0)
