"""The language of messages: English, as it stands in the source, or that of a catalogue.

A message is English in the source, inside ``_()``, its values as named fields; where the locale is
Chinese, Chinese is printed. JSON is English always, and so is what is stored or read by a program.
Catalogues are ``locale/LANGUAGE/LC_MESSAGES/glmpatch.po``, the standard format, read as it stands:
nothing has to be compiled, and a checkout, a wheel and a folder sent to a cluster speak alike.

What is found out in one place and said in another is a ``Message``: English text to whoever stores
it, and said in the language of the user by ``_()``. The probe makes such messages too, so that this
module imports the standard library alone and runs on Python 3.9.
"""

from __future__ import annotations

import contextlib
import gettext
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

LOCALES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "locale")
VARIABLE = "GLMPATCH_LANG"
"""Names a language for glmpatch alone, whatever the locale is: ``zh_CN``, or ``en``."""
LOCALE = ("LC_ALL", "LC_MESSAGES", "LANG")
"""Variables of a locale: the first that is set decides, as POSIX says."""
SAME = {"zh": "zh_CN", "zh_SG": "zh_CN", "zh_Hans": "zh_CN"}
"""Languages that read another one's catalogue."""


class Message(str):
    """An English text that remembers what it was made of, for ``_()`` to say it otherwise.

    Values that are messages are said in the same language.
    """

    message: str
    values: Mapping[str, Any]

    def __new__(cls, message: str, /, **values: Any) -> Message:
        made = super().__new__(cls, message.format(**values) if values else message)
        made.message, made.values = message, values
        return made


class Catalogue(gettext.NullTranslations):
    """Translations out of a text in the format of GNU gettext (``.po``)."""

    def __init__(self, text: str, language: str = "en") -> None:
        super().__init__()
        self.language = language
        self._texts = {message: text for message, text in entries(text) if message and text}

    def gettext(self, message: str) -> str:
        return self._texts.get(message, message)


def entries(text: str) -> Iterator[tuple[str, str]]:
    """Messages of a ``.po`` file with their translations; none that is marked as doubtful."""
    for block in re.split(r"\n\s*\n", text):
        if "fuzzy" not in block or not re.search(r"^#,.*\bfuzzy\b", block, re.MULTILINE):
            message, _msgstr, translated = f"\n{block}".partition("\nmsgstr ")
            yield _unquoted(message.partition("\nmsgid ")[2]), _unquoted(translated)


def _unquoted(lines: str) -> str:
    """What stands in the quotes of these lines."""
    text = "".join(line[1:-1] for line in lines.splitlines())
    if "\\" not in text:
        return text
    import json

    # Strings are those of C there; what such a file needs of them, JSON has too.
    return str(json.loads(f'"{text}"'))


def wanted(environment: Mapping[str, str]) -> list[str]:
    """The languages that somebody reads, best first, as the environment names them."""
    own = environment.get(VARIABLE)
    locale = next((environment[name] for name in LOCALE if environment.get(name)), "")
    if not own and _plain(locale) in ("", "C", "POSIX"):
        return []  # LANGUAGE counts only beside a locale, as in GNU gettext
    named = own or environment.get("LANGUAGE") or locale
    return [_plain(each) for each in named.split(":") if each]


def _plain(locale: str) -> str:
    """``zh_CN`` of ``zh_CN.UTF-8@pinyin``."""
    return re.split(r"[.@]", locale)[0].replace("-", "_")


def of(languages: list[str]) -> gettext.NullTranslations:
    """The catalogue of the first language that there is one for; English has none."""
    for language in languages:
        if language.split("_")[0] == "en":
            break
        for name in (language, SAME.get(language, "")):
            file = os.path.join(LOCALES, name, "LC_MESSAGES", "glmpatch.po")
            if name and os.path.isfile(file):
                with open(file, encoding="utf-8") as stream:
                    return Catalogue(stream.read(), name)
    return gettext.NullTranslations()


def languages() -> list[str]:
    """Those that there is a catalogue of."""
    return sorted(name for name in os.listdir(LOCALES) if not name.startswith(("_", ".")))


def speak(named: list[str] | None = None) -> None:
    """From now on messages are in the first of these languages, or as the environment says."""
    global _catalogue
    _catalogue = of(wanted(os.environ) if named is None else named)
    if any(not _shows(stream, _catalogue) for stream in (sys.stdout, sys.stderr)):
        _catalogue = gettext.NullTranslations()


def speak_english() -> None:
    """From now on messages are as in the source, for somebody's program to read."""
    speak([])


def spoken() -> str:
    """The language of messages, as the web names it: ``zh-CN``, or ``en``."""
    if _catalogue is None:
        speak()
    if isinstance(_catalogue, Catalogue):
        return _catalogue.language.replace("_", "-")
    return "en"


@contextlib.contextmanager
def speaking(language: str) -> Iterator[None]:
    """Messages are in this language as long as it lasts: for somebody elsewhere, so that it does
    not matter what can be shown here."""
    global _catalogue
    before, _catalogue = _catalogue, of([_plain(language)])
    try:
        yield
    finally:
        _catalogue = before


def _shows(stream: Any, catalogue: gettext.NullTranslations) -> bool:
    """Whether a terminal's encoding has the characters of a language."""
    try:
        catalogue.gettext(SAMPLE).encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


_catalogue: gettext.NullTranslations | None = None


def _(message: str, /, **values: Any) -> str:
    """A message in the language of the user, its fields filled in."""
    if _catalogue is None:
        speak()
    assert _catalogue is not None
    if isinstance(message, Message):
        values = {**message.values, **values}
        message = message.message
    text = _catalogue.gettext(message)
    said = {name: _(each) if isinstance(each, Message) else each for name, each in values.items()}
    return text.format(**said) if said else text


def retold(text: str, known: Sequence[str]) -> str:
    """An English text from elsewhere (Click, another interpreter), in the language of the user.

    ``known`` are the messages that it may have been made of. Where it is none of these, it stays as
    it is. What stands in a field that is called ``message`` is such a text itself.
    """
    for message in known:
        parts = re.split(r"\{(\w+)\}", message)
        pattern = "".join(
            f"(?P<{part}>.+?)" if number % 2 else re.escape(part)
            for number, part in enumerate(parts)
        )
        found = re.fullmatch(pattern, text, re.DOTALL)
        if found is not None:
            values = found.groupdict()
            if "message" in values:
                values["message"] = retold(values["message"], known)
            return _(message, **values)
    return text


def N_(message: str, /, **values: Any) -> str:  # noqa: N802 (gettext's own name for it)
    """A message that is kept in English, and goes through ``_`` where it is printed."""
    return Message(message, **values)


def joined(names: Iterable[str], by: str) -> str:
    """Several names as one text; ``by`` is a message that has the fields one and other."""
    told, *others = names
    for other in others:
        told = Message(by, one=told, other=other)
    return told


def packed(told: Any) -> Any:
    """What JSON carries, with every message in it taken apart; ``unpacked`` puts them together."""
    if isinstance(told, Message):
        return {"said": told.message, "with": packed(dict(told.values))}
    if isinstance(told, dict):
        return {name: packed(each) for name, each in told.items()}
    return [packed(each) for each in told] if isinstance(told, (list, tuple)) else told


def unpacked(told: Any) -> Any:
    if isinstance(told, dict) and set(told) == {"said", "with"}:
        return Message(told["said"], **unpacked(told["with"]))
    if isinstance(told, dict):
        return {name: unpacked(each) for name, each in told.items()}
    return [unpacked(each) for each in told] if isinstance(told, list) else told


SAMPLE = N_("the state that was asked for holds")
"""A message that stands for all, where a terminal is asked whether it can show a language."""
