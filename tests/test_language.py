"""Every message has a translation that says the same, and none is printed past the catalogue."""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest
from babel.messages import pofile

from glmpatch import language
from glmpatch.source import unreadable
from tests import translations

MESSAGES = translations.messages()
LOUD = {"FAILED", "WRONG"}
"""Words of which capitals are no name."""
CATALOGUES = translations.catalogues()


def fields(text: str) -> set[str]:
    """Names of its fields; a text without any may have braces of its own."""
    return set(re.findall(r"(?<!\{)\{(\w+)[:}]", text))


def commands(text: str) -> set[str]:
    """What somebody types: options, variables, and the names of files and commands."""
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*|\b[A-Z][A-Z_]+[A-Z]\b", text)) - LOUD


@pytest.mark.parametrize("file", CATALOGUES, ids=lambda file: file.parts[-3])
def test_a_catalogue_has_every_message_and_no_other(file: Path) -> None:
    translated = dict(language.entries(file.read_text("utf-8")))
    assert [m for m in MESSAGES if not translated.get(m)] == []
    assert [m for m in translated if m and m not in MESSAGES] == []
    for message, text in translated.items():
        assert fields(text) == fields(message), message
        assert commands(text) >= commands(message), message


WRITTEN = r"""
#: a.py
msgid "one"
msgstr "一"

#, fuzzy
msgid "two"
msgstr "doubtful"

# a fuzzy remark
msgid ""
"a \"long\" "
"one\n"
msgstr ""
"\"长\"\n"
"\\t"

msgid "none"
msgstr ""

#~ msgid "gone"
#~ msgstr "没了"
"""


def test_catalogues_are_read_as_others_read_them() -> None:
    read = {m: text for m, text in language.entries(WRITTEN) if m}
    assert read == {"one": "一", 'a "long" one\n': '"长"\n\\t', "none": ""}
    for text in (WRITTEN, *(file.read_text("utf-8") for file in CATALOGUES)):
        catalogue = pofile.read_po(io.StringIO(text))
        theirs = {str(m.id): str(m.string) for m in catalogue if m.id and not m.fuzzy}
        assert {m: text for m, text in language.entries(text) if m} == theirs


def is_looked_up(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") in MARKS


def test_only_constant_texts_are_looked_up() -> None:
    """A text that is put together first would never be found in a catalogue, and one that stands
    within another is not seen by whoever writes the catalogue."""
    for file in translations.sources():
        for node in ast.walk(ast.parse(file.read_bytes())):
            where = f"{file}:{getattr(node, 'lineno', '')}"
            if is_looked_up(node):
                assert not isinstance(node.args[0], ast.JoinedStr | ast.BinOp), where
            if isinstance(node, ast.JoinedStr):
                inside = filter(is_looked_up, ast.walk(node))
                assert not any(isinstance(each.args[0], ast.Constant) for each in inside), where


MARKS = ("_", "N_", "Message")
SAYS = re.compile(
    r"Failure|Unrecognized|NoPlace|CannotRun|UsageError|hint|hints|warn|message|data|detail"
    r"|echo|leave_out"
)
"""Calls whose texts are read by a person."""
WORD = re.compile(r"[A-Za-z]{3}")
SENTENCE = re.compile(r"[A-Za-z,;:)]{2} [a-z]{2}")
"""What is a sentence, wherever it stands."""
DATA = re.compile(
    r"(glmpatch|pip|uv pip|-m pip|git|zip|sudo|chattr|python) [^;]*"  # to be typed
    r"|(--[a-z-]+ ?)+(/\S+)?|import json, .*"
    r"|.*</?[a-z]+[ >].*|<!doctype.*|<svg .*|.*\{ font: .*"  # marks of a page
    r"|vLLM|vllm==|sha256|torch|transformers|\\ No newline at end of file",
    re.DOTALL,
)
"""Texts that are no words: commands, marks of a page, names."""
ELSEWHERE = {
    "patcher/glmpatch/command/help.py": "its headings and Click's words are looked up as written",
    "patcher/glmpatch/source/form.py": "runs without glmpatch: source/unreadable.py tells it anew",
    "patcher/glmpatch/symptoms/words.py": "words too common to tell one error from another",
}
"""Files whose sentences are looked up in another way, or are none."""
NOT_SAID = ("next", "Unreadable", "style", "labelled", "get", "ValueError")
"""Calls that take a command, what is told anew, a colour, a key, or what no user sees."""
PROBE = "patcher/glmpatch/proof/probe/"
"""Runs beside vLLM; much of it are words of vLLM's log, and code."""


def unmarked(node: ast.AST, says: bool, sentences: bool) -> Iterator[tuple[int, str]]:
    """The texts in a tree that look like something to read, and go past the catalogue.

    ``says``: within a call that says something, where a word is enough; else a sentence is one.
    """
    if is_looked_up(node):
        for field in node.keywords:
            yield from unmarked(field.value, False, True)
        return
    if isinstance(node, ast.Assert | ast.Compare | ast.Subscript):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        wanted = WORD if says else SENTENCE
        if (
            (says or sentences)
            and wanted.search(node.value)
            and not DATA.fullmatch(node.value.strip())
            and (says or node.value not in MESSAGES)  # a key, which is marked where it is shown
        ):
            yield node.lineno, node.value
        return
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in NOT_SAID:
            return
        says = says or SAYS.fullmatch(name) is not None
    for child in ast.iter_child_nodes(node):
        yield from unmarked(child, says or getattr(child, "arg", "") == "help", sentences)


def test_no_text_goes_past_the_catalogue() -> None:
    found = []
    for file in translations.sources():
        name = str(file.relative_to(translations.ROOT))
        program = name.startswith("patcher/glmpatch/") and not name.startswith(PROBE)
        sentences = program and name not in ELSEWHERE
        found += [
            f"{name}:{line}: {text!r}"
            for line, text in unmarked(ast.parse(file.read_bytes()), False, sentences)
        ]
    assert found == [], "\n".join(["wrap these in _() or N_():", *found])


def test_what_is_said_without_a_catalogue_is_known_where_it_is_told_anew() -> None:
    """Why a source cannot be read is said by a file that knows nothing of glmpatch."""
    for name in ("form.py", "plan.py"):
        file = translations.ROOT / "patcher" / "glmpatch" / "source" / name
        raised = [
            node.args[0]
            for node in ast.walk(ast.parse(file.read_bytes()))
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Unreadable"
        ]
        assert raised
        for text in raised:
            parts = text.values if isinstance(text, ast.JoinedStr) else [text]
            said = "".join(str(p.value) if isinstance(p, ast.Constant) else "X" for p in parts)
            shapes = [re.sub(r"\{\w+\}", "X", reason) for reason in unreadable.REASONS]
            assert re.sub(r"X(: X)?$", "X", said) in [re.sub(r"X(: X)?$", "X", s) for s in shapes]


def test_the_language_is_that_of_the_environment() -> None:
    for environment, expected in (
        ({}, []),
        ({"LANG": "zh_CN.UTF-8"}, ["zh_CN"]),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, []),
        ({"LANG": "C.UTF-8", "LANGUAGE": "zh_CN"}, []),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "zh_TW:zh_CN"}, ["zh_TW", "zh_CN"]),
        ({"LANG": "zh_CN.UTF-8", "GLMPATCH_LANG": "en"}, ["en"]),
        ({"GLMPATCH_LANG": "zh-CN"}, ["zh_CN"]),
    ):
        assert language.wanted(environment) == expected
    assert isinstance(language.of(["zh_TW", "zh"]), language.Catalogue)
    for languages in ([], ["fr"], ["en_GB", "zh_CN"]):
        assert not isinstance(language.of(languages), language.Catalogue)
