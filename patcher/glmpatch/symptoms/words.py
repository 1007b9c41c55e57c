"""What a text is about by the words that it shares with a symptom, or with the title of a patch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from glmpatch.language import languages, of
from glmpatch.patch import Patch
from glmpatch.symptoms.known import SILENT, Match
from glmpatch.symptoms.named import OTHERS
from glmpatch.unpatched import Unpatched

ENOUGH = 3
"""Words of a description that must be shared with a symptom for it to be worth a mention."""
MANY = 6
"""Words that are enough whatever else a description says."""
LINES = 3
"""Adjacent lines that are read as one description; a text of more is a log, whose lines are about
many things."""
COMMON = frozenset(
    re.findall(
        r"\w+",
        "the a an of in on is are be to and or not no it its with for from by at as that this was "
        "has have does vllm glm error valueerror typeerror keyerror runtimeerror model file line "
        "silent",
    )
)
TELLING = frozenset({"!!!!", "garbage", "乱码", "k_scale", "v_scale"})
TELLING |= {"shared_head", "mtp_block", "<think>", "encoder"}
"""Words that say enough alone: next to nobody uses them of anything but what one or two patches
mend."""
SYMBOLS = re.compile(r"[a-z_<>/!]{3,}")
CHINESE = re.compile(r"[\u4e00-\u9fff]{2,}")
SYNONYMS = (
    (re.compile(r"感叹号|exclamation (?:mark|point)s?"), " !!!! "),
    (re.compile(r"[!\uff01]{3,}"), "!!!!"),
    (re.compile("gibberish|garbled"), "garbage"),
    (re.compile("投机"), "推测"),  # speculative decoding
    (re.compile("</"), "<"),
)
"""What people say, and the word of the symptoms for it."""


def by_words(text: str, every: Sequence[Patch | Unpatched]) -> list[Match]:
    """What shares the most words with a text, of all that share enough."""
    known = list(_known(text, every))
    vocabulary = frozenset().union(*(words for _about, _symptom, words in known))
    said, is_log = _descriptions(text, vocabulary)
    if not is_log and OTHERS.search(text.lower()) and "glm" not in text.lower():
        return []  # it says itself that it is about another model
    enough = _enough_of_a_log if is_log else _enough_of_a_description
    best: dict[Patch | Unpatched, tuple[int, str]] = {}
    for about, symptom, words in known:
        shared = max((len(each & words) for each in said if enough(each, words)), default=0)
        if shared > best.get(about, (0, ""))[0]:
            best[about] = (shared, symptom)
    ranked = sorted(best.items(), key=lambda each: -each[1][0])
    most = max((shared for shared, _symptom in best.values()), default=0)
    # One or two words more do not tell which of several is meant.
    least = most if most >= ENOUGH else 1
    return [Match(about, symptom, False) for about, (n, symptom) in ranked if n >= least]


def _known(
    text: str, every: Sequence[Patch | Unpatched]
) -> Iterator[tuple[Patch | Unpatched, str, frozenset[str]]]:
    """Every symptom and title with its words, in English and in the languages of a text.

    Whoever reads a translated page pastes from it, whatever the locale of the terminal.
    """
    catalogues = [] if text.isascii() else [of([name]) for name in languages()]
    for about in every:
        for symptom in _described(about):
            for said in {symptom, *(each.gettext(symptom) for each in catalogues)}:
                yield about, symptom, _words(_seen(symptom, said))


def _described(about: Patch | Unpatched) -> tuple[str, ...]:
    """What may be told in other words. An error that no patch mends may not: the name of a model
    alone tells most of them from other models' errors."""
    if isinstance(about, Patch):
        return (*about.symptoms, about.title)
    return tuple(symptom for symptom in about.symptoms if symptom.startswith(SILENT))


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
    """Some words of a symptom, or a telling one; nearly all that were said, where they are few."""
    shared = len(said & symptom)
    if said & symptom & TELLING:
        return True
    if any(CHINESE.match(word) for word in said):  # pairs of characters, several to a word
        return shared >= min(ENOUGH, len(said)) and (2 * shared >= len(said) or shared >= MANY)
    return shared >= min(ENOUGH, max(1, math.ceil(2 * len(said) / 3)))


def _words(text: str) -> frozenset[str]:
    """Words, and in Chinese, which has no spaces, every pair of neighbouring characters."""
    text = text.lower()
    for said, meant in SYNONYMS:
        text = said.sub(meant, text)
    pairs = (run[n : n + 2] for run in CHINESE.findall(text) for n in range(len(run) - 1))
    return frozenset(SYMBOLS.findall(text)) - COMMON | frozenset(pairs)
