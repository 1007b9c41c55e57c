"""Printing: colour on terminals only, data and messages apart, progress for whoever waits."""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

import click

from glmpatch.errors import Exit, Failure
from glmpatch.language import _
from glmpatch.width import wrap


def echo(text: str, err: bool = False, nl: bool = True) -> None:
    """Print; colour on terminals that have it, and never with NO_COLOR (Click knows neither).

    A reader that went away (``glmpatch diff | head``) changes nothing about the exit code.

    Raises:
        Failure: the output cannot be written: what was to be read there is incomplete.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is None:  # closed by the caller: >&-
        return
    color = _has_escapes(stream) and not os.environ.get("NO_COLOR")
    try:
        try:
            click.echo(text, file=stream, nl=nl, color=color)
        except UnicodeEncodeError:
            # A path or line that this terminal's encoding cannot show is shown escaped.
            text = text.encode(stream.encoding, "backslashreplace").decode(stream.encoding)
            click.echo(text, file=stream, nl=nl, color=color)
    except BrokenPipeError:
        drop(stream)
    except OSError as error:
        drop(stream)
        from glmpatch.site.surroundings import started

        raise Failure(
            Exit.INTERNAL,
            _("cannot write the output: {error}", error=error.strerror),
            _("see what was done with {command}", command=f"{started()} status"),
        ) from error


def _has_escapes(stream: TextIO) -> bool:
    """Whether it is a terminal that colours and clears lines; an editor's shell says it is not."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def drop(stream: TextIO) -> None:
    """What is still to be written there goes nowhere, also when Python flushes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def labelled(label: str, color: str, text: str) -> str:
    """A line that begins with what kind it is of."""
    return _("{label}: {text}", label=click.style(label, fg=color), text=text)


def hints(text: str) -> list[str]:
    """The lines of a hint."""
    return [labelled(_("hint"), "cyan", line) for line in text.split("\n")] if text else []


def wrapped(paragraph: str) -> list[str]:
    """The lines of a paragraph beside a column of names."""
    import shutil

    width = 80
    if sys.stdout is not None and sys.stdout.isatty():
        width = min(max(shutil.get_terminal_size().columns, 40), 100)
    return wrap(paragraph, width - 12)


class Progress:
    """The steps of something slow: one line that the next overwrites on a terminal, with the
    seconds that have passed; else a line each. A silent minute looks like a hang."""

    def __init__(self) -> None:
        self.terminal = sys.stderr is not None and _has_escapes(sys.stderr)
        self.began = time.monotonic()
        self.said = ""

    def __call__(self, text: str) -> None:
        """Show a step; the same one again lets the clock go on, an empty text ends them."""
        if self.terminal:
            line = f"{text} ({time.monotonic() - self.began:.0f} s)" if text else ""
            if line != self.said:
                echo(f"\r\x1b[2K{line}", err=True, nl=False)
            self.said = line
        elif text and text != self.said:
            echo(text, err=True)
            self.said = text
