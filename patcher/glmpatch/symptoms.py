"""Finds what a server's words are about: a patch, or something known that no patch mends.

A symptom is the text of an error, with ``...`` where it differs from case to case; one that begins
with ``silent:`` says what one sees where there is no error.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from glmpatch.language import languages, of
from glmpatch.patch import Patch

SILENT = "silent:"
ENOUGH = 3
"""Words of a description that must be shared with a symptom for it to be worth a mention."""
MANY = 6
"""Words that are enough whatever else a description says."""
LINES = 3
"""Adjacent lines that are read as one description; a text of more is a log, whose lines are about
many things."""
NEAR = 3000
"""Characters before and after an error in which its traceback names the model's file."""
COMMON = frozenset(
    re.findall(
        r"\w+",
        "the a an of in on is are be to and or not no it its with for from by at as that this was "
        "has have vllm glm error valueerror typeerror keyerror runtimeerror model file line silent",
    )
)
FAMILIES = "(?:deepseek|qwen|mistral|mixtral|gemma|kimi|ernie|minimax|internvl|hunyuan)"
"""Models whose files are known by their names, where a text leaves out the folder."""
MODEL_FILE = re.compile(
    r"\bmodel_executor[/\\.]models[/\\.](\w+)"
    rf"|\b((?:{FAMILIES}|chatglm|glm)\w*)\.py"
    rf"|\b({FAMILIES}\w*_(?:mtp|moe|vl|v\d)\w*)"
)
BORROWED = re.compile(r"(llama|utils|interfaces\w*|registry|adapters|vision|transformers\w*)$")
"""Files of that folder that a GLM's own traceback goes through as well."""
SYMBOLS = re.compile(r"[a-z_<>/!]{3,}")
CHINESE = re.compile(r"[\u4e00-\u9fff]{2,}")


@dataclass(frozen=True)
class Unpatched:
    """Something that users of these models meet and that glmpatch does not mend, and what helps."""

    id: str
    symptoms: tuple[str, ...]
    what: str
    helps: str


@dataclass(frozen=True)
class Match:
    """What a text is about. ``sure``: its words are there; else only some of them are shared."""

    about: Patch | Unpatched
    symptom: str
    sure: bool


def unpatched() -> tuple[Unpatched, ...]:
    """What is known and not mended: ``patches/unpatched.json``."""
    path = Path(__file__).parent / "patches" / "unpatched.json"
    entries = json.loads(path.read_text("utf-8"))
    return tuple(Unpatched(e["id"], tuple(e["symptoms"]), e["what"], e["helps"]) for e in entries)


def search(text: str, patches: Sequence[Patch]) -> list[Match]:
    """What a text (an error, a server's log, a few words) is about; the surest first.

    The words of an error decide; where none is found, shared words do.
    """
    every: list[Patch | Unpatched] = [*patches, *unpatched()]
    return _by_errors(text, every) or _by_words(text, every)


# -- the words of an error ------------------------------------------------------------------------


def _by_errors(text: str, every: Sequence[Patch | Unpatched]) -> list[Match]:
    """What has an error that stands in a text; what is sure leaves no room for a perhaps."""
    said = _plain(text)
    found = [match for about in every for match in _errors(about, said)]
    sure = [match for match in found if match.sure]
    return sorted(sure or found, key=lambda match: -len(match.symptom))


def _errors(about: Patch | Unpatched, said: str) -> list[Match]:
    """The best of its errors, or none."""
    found = []
    for symptom in about.symptoms:
        places = [] if symptom.startswith(SILENT) else list(_pattern(symptom).finditer(said))
        if places:
            sure = any(_is_its_own(symptom, place) for place in places)
            found.append(Match(about, symptom, sure))
    return sorted(found, key=lambda match: (match.sure, len(match.symptom)))[-1:]


def _plain(text: str) -> str:
    """Without what differs from one server to the next: colours, case, quotes, white space."""
    text = re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", text).lower()
    return re.sub(r"\s+", " ", re.sub(r"[`'\"]", "", text))


def _pattern(symptom: str) -> re.Pattern[str]:
    """An error with any numbers; who pastes it often leaves its type out."""
    words = re.sub(r"^\w+error: ", "", _plain(symptom))
    pieces = [re.escape(part.strip()) for part in words.split("...")]
    numbered = [re.sub(r"\d+", r"\\d+", piece) for piece in pieces if piece]
    return re.compile(".{0,200}?".join(numbered))


def _is_its_own(symptom: str, place: re.Match[str]) -> bool:
    """Whether an error is that of this very model, and not the same one of another."""
    return _has_sizes(symptom, place[0]) and not _is_of_another_model(place)


def _has_sizes(symptom: str, said: str) -> bool:
    """Large numbers are computed from a model's configuration: others are another model's."""
    return set(re.findall(r"\d{4,}", symptom)) <= set(re.findall(r"\d+", said))


def _is_of_another_model(place: re.Match[str]) -> bool:
    """Whether files of models are named around a place, and none of them is a GLM's."""
    around = place.string[max(0, place.start() - NEAR) : place.end() + NEAR]
    files = {next(filter(None, found)) for found in MODEL_FILE.findall(around)}
    own = {file for file in files if not BORROWED.match(file)}
    return bool(own) and not any("glm" in file for file in own)


# -- shared words ---------------------------------------------------------------------------------


def _by_words(text: str, every: Sequence[Patch | Unpatched]) -> list[Match]:
    """What shares the most words with a text, of all that share enough."""
    known = list(_known(text, every))
    vocabulary = frozenset().union(*(words for _about, _symptom, words in known))
    said, is_log = _descriptions(text, vocabulary)
    enough = _enough_of_a_log if is_log else _enough_of_a_description
    best: dict[Patch | Unpatched, tuple[int, str]] = {}
    for about, symptom, words in known:
        shared = max((len(each & words) for each in said if enough(each, words)), default=0)
        if shared > best.get(about, (0, ""))[0]:
            best[about] = (shared, symptom)
    most = max((shared for shared, _symptom in best.values()), default=0)
    return [Match(about, symptom, False) for about, (n, symptom) in best.items() if n == most]


def _known(
    text: str, every: Sequence[Patch | Unpatched]
) -> Iterator[tuple[Patch | Unpatched, str, frozenset[str]]]:
    """Every symptom with its words, in English and in the languages that a text may be in.

    Whoever reads a translated page pastes from it, whatever the locale of the terminal.
    """
    catalogues = [] if text.isascii() else [of([name]) for name in languages()]
    for about in every:
        for symptom in about.symptoms:
            for said in {symptom, *(each.gettext(symptom) for each in catalogues)}:
                yield about, symptom, _words(_seen(symptom, said))


def _seen(symptom: str, said: str) -> str:
    """A symptom without the mark of what has no error, which translations have as well."""
    return re.sub(r"^\w+[:：]", "", said) if symptom.startswith(SILENT) else said


def _descriptions(text: str, vocabulary: frozenset[str]) -> tuple[set[frozenset[str]], bool]:
    """The words of what is said in one place, and whether it is a log.

    A log speaks of many things: words that are far apart there have nothing to do with each other.
    """
    lines = [words for words in map(_words, text.splitlines()) if words]
    if len(lines) <= LINES:
        return {frozenset().union(*lines)}, False
    lines = [words & vocabulary for words in lines]
    return {frozenset().union(*lines[n : n + LINES]) for n in range(len(lines))}, True


def _enough_of_a_log(said: frozenset[str], symptom: frozenset[str]) -> bool:
    """Nearly all of a symptom: what a server always says has some words of each."""
    shared = len(said & symptom)
    return shared >= ENOUGH and 4 * shared >= 3 * len(symptom)


def _enough_of_a_description(said: frozenset[str], symptom: frozenset[str]) -> bool:
    """Some words of a symptom; nearly all that were said, where they are few."""
    shared = len(said & symptom)
    if any(CHINESE.match(word) for word in said):  # pairs of characters, several to a word
        return shared >= min(ENOUGH, len(said)) and (2 * shared >= len(said) or shared >= MANY)
    return shared >= min(ENOUGH, max(1, math.ceil(2 * len(said) / 3)))


def _words(text: str) -> frozenset[str]:
    """Words, and in Chinese, which has no spaces, every pair of neighbouring characters."""
    text = re.sub(r"[!\uff01]{3,}", "!!!!", text.lower()).replace("</", "<")
    pairs = (run[n : n + 2] for run in CHINESE.findall(text) for n in range(len(run) - 1))
    return frozenset(SYMBOLS.findall(text)) - COMMON | frozenset(pairs)
