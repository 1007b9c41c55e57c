"""The engine's part of the calibration: asked in pieces, each kept, so that it can be gone on with.

Answers are kept in the cache of the tests, by what they were asked with: the probe's files, the
faults and the workers. A run that ends early loses what one engine was being asked.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from glmpatch.proof.process import PROBE
from tests.calibrate.ask import margins, released_file, share, spread
from tests.proof import engine_faults, engine_sample, engine_worker, faults, worker
from tests.proof.engine_sample import Question
from tests.proof.faults import Fault
from tests.proof.sample import Asked, read
from tests.support import cache
from tests.support.cpu_engine import cpu_engine
from tests.support.sources import repaired

PRECISIONS = ("bfloat16", "float32")
MODES = ("eager", "compiled")
PIECE = 300
"""Questions that one process asks: importing vLLM takes longer than asking some of them."""
RIGHT = "right"
BOTH = "both"
"""In place of a mode: what all of them together say."""
SECONDS = "seconds"
"""Name of the file that tells how long each process took."""


def engine(right: int, wrong: int, jobs: int, precisions: Sequence[str]) -> dict[str, Any]:
    """The whole engine: ``right`` seeds for the right file, ``wrong`` for each fault; what was
    asked before, of whatever else, counts too."""
    root = cpu_engine()
    released = released_file(root)
    files = {RIGHT: Fault(repaired(released)), **engine_faults.engine_faults(released)}
    folder = kept_in()
    known = {question(each) for each in answers(folder)}
    asked = questions(files, right, wrong, precisions)
    missing = [each for each in asked if each not in known]
    with ThreadPoolExecutor(jobs) as pool:
        running = [
            pool.submit(_ask, root, files, piece, folder / f"{_digest(piece)}.jsonl")
            for piece in pieces(files, missing)
        ]
        for each in running:
            each.result()
    seconds = sum(map(float, (folder / SECONDS).read_text().split()))
    return summary(answers(folder), seconds)


def kept_in() -> Path:
    """The folder of the answers to what would be asked now."""
    parts = [*PROBE.parent.rglob("*.py"), *map(_path, (engine_worker, worker))]
    parts += map(_path, (faults, engine_faults))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(parts)))
    folder = cache.cache() / f"calibration-{digest.hexdigest()[:12]}"
    folder.mkdir(exist_ok=True)
    return folder


def _path(module: Any) -> Path:
    return Path(module.__file__)


def questions(
    files: Iterable[str], right: int, wrong: int, precisions: Sequence[str] = PRECISIONS
) -> list[Question]:
    """Everything that is to be asked, what matters most first."""
    return [
        Question(name, precision, mode, seed)
        for precision in precisions
        for mode in MODES
        for name in files
        for seed in range(right if name == RIGHT else wrong)
    ]


def pieces(files: Mapping[str, Fault], asked: Sequence[Question]) -> Iterator[list[Question]]:
    """The questions of one process: of one precision and mode, and of one file together."""
    ways: dict[tuple[str, str], dict[bytes, list[Question]]] = defaultdict(dict)
    for each in asked:
        of_a_file = ways[each.precision, each.mode]
        of_a_file.setdefault(files[each.name].source, []).append(each)
    for way in ways.values():
        part = [each for of_a_file in way.values() for each in of_a_file]
        for start in range(0, len(part), PIECE):
            yield part[start : start + PIECE]


def _digest(piece: Sequence[Question]) -> str:
    return hashlib.sha256(repr(piece).encode()).hexdigest()[:12]


def _ask(root: Path, files: Mapping[str, Fault], piece: Sequence[Question], out: Path) -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="calibrate-") as folder:
        engine_sample.ask(root, files, piece, Path(folder), out, out.parent / "inductor")
    with (out.parent / SECONDS).open("a") as stream:
        stream.write(f"{time.monotonic() - started:.0f}\n")


def answers(folder: Path) -> list[Asked]:
    """One for each question, though it may have been asked twice; in the order of the ways."""
    every = [each for path in sorted(folder.glob("*.jsonl")) for each in read(path)]
    found = {question(each): each for each in every}
    return [found[q] for q in sorted(found, key=_place)]


def _place(asked: Question) -> tuple[int, int, str, int]:
    return PRECISIONS.index(asked.precision), MODES.index(asked.mode), asked.name, asked.seed


def question(asked: Asked) -> Question:
    """What was asked."""
    result = asked.result
    assert result.precision
    assert result.mode
    return Question(result.file, result.precision, result.mode, asked.seed)


def summary(answers: Sequence[Asked], seconds: float) -> dict[str, Any]:
    """What the page needs of the answers."""
    wrong = [each for each in answers if each.result.file != RIGHT]
    return {
        "counts": {
            "faults": len({each.result.file for each in wrong}),
            "questions": len(answers),
            "seconds": round(seconds),
        },
        "right": spread([each for each in answers if each.result.file == RIGHT]),
        "faults": [*margins(wrong), *margins(verdicts(wrong))],
    }


def verdicts(answers: Iterable[Asked]) -> Iterator[Asked]:
    """Of what was asked in every mode, the mode that finds more: by it ``verify`` judges a file."""
    found: dict[tuple[str, str, int], list[Asked]] = defaultdict(list)
    for each in answers:
        asked = question(each)
        found[asked.name, asked.precision, asked.seed].append(each)
    for modes in found.values():
        if {question(each).mode for each in modes} == set(MODES):
            most = max((each.result for each in modes), key=share)
            yield replace(modes[0], rounding=BOTH, result=replace(most, mode=BOTH))
