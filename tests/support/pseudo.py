"""A language that tells every message that is looked up from what is printed past the catalogue."""

from __future__ import annotations

import gettext
import re

import pytest

from glmpatch import language

FIELD = re.compile(r"(?<!\{)\{\w+(:[^{}]+)?\}")
SAID = re.compile("⟦[^⟦⟧]*⟧")


class Pseudo(gettext.NullTranslations):
    """Each message in brackets, but for the values in it."""

    def gettext(self, message: str) -> str:
        return f"⟦{FIELD.sub(lambda field: f'⟧{field[0]}⟦', message)}⟧"


def speak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "_catalogue", Pseudo())


def speak_as(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Messages are in a language that there is a catalogue for, or in English."""
    monkeypatch.setattr(language, "_catalogue", language.of([name]))


def outside(text: str) -> str:
    """What stands in no brackets."""
    return SAID.sub("", text)
