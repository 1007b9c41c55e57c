"""Asks the right file and the wrong ones, and keeps of the answers what the page needs."""

from __future__ import annotations

import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from glmpatch.proof.driver import Result
from glmpatch.proof.kinds.numbers import NAMES, WORST
from tests.proof.faults import faults
from tests.proof.sample import FAULTY, ROUNDINGS, Asked, ask
from tests.support import cache
from tests.support.environment import MODEL_FILE

RATIOS = (WORST, *NAMES.values())
"""Statistics that are ratios of sizes, taken to be log-normal; the others are shares around 0."""

ALWAYS = 2.0
"""Of sizes that are spread around 0 the mean is 1.3 of their standard deviations; from so many on
they are taken to be spread around their mean."""


def module(right: int, wrong: int, every: int, jobs: int) -> dict[str, Any]:
    """The module way: ``right`` seeds for the right file, ``wrong`` for each fault, the first
    ``every`` of them in every rounding and the others in one."""
    root = cache.released()
    released = released_file(root)
    started = time.time()
    with ThreadPoolExecutor(jobs) as pool:
        parts = [
            pool.submit(_some, root, released, seeds, roundings)
            for roundings, seeds in shared(right, wrong, every, jobs)
        ]
        answers = [answer for part in parts for answer in part.result()]
    return summary(answers, right, wrong, every, time.time() - started)


def summary(
    answers: Sequence[Asked], right: int, wrong: int, every: int, seconds: float
) -> dict[str, Any]:
    """What the page needs of the answers."""
    files = {answer.result.file for answer in answers}
    return {
        "counts": {
            "right seeds": right,
            "fault seeds": wrong,
            "fault seeds in every rounding": every,
            "faults": len(files) - 1,
            "roundings": len(ROUNDINGS),
            "questions": len(answers),
            "seconds": round(seconds),
        },
        "right": spread([a for a in answers if a.result.file == "right"]),
        "faults": margins([a for a in answers if a.result.file != "right"]),
    }


def shared(
    right: int, wrong: int, every: int, jobs: int
) -> list[tuple[tuple[str, ...], list[int]]]:
    """The seeds, shared among processes, and the roundings that faults are asked in from them."""
    kinds = ((ROUNDINGS, 0, every), ((FAULTY,), every, wrong), ((), wrong, right))
    return [
        (roundings, part)
        for roundings, first, end in kinds
        for job in range(jobs)
        if (part := list(range(first + job, end, jobs)))
    ]


def _some(
    root: Path, released: bytes, seeds: Sequence[int], roundings: Sequence[str]
) -> list[Asked]:
    wrong = faults(released) if roundings else {}
    with tempfile.TemporaryDirectory(prefix="calibrate-") as folder:
        return list(ask(root, released, wrong, seeds, Path(folder), fault_roundings=roundings))


def spread(answers: Iterable[Asked]) -> list[dict[str, Any]]:
    """How far the right file is from each limit, in each precision and rounding."""
    found: dict[tuple[str, str, str], list[Any]] = defaultdict(list)
    for each in answers:
        assert each.result.crash is None, each.result.crash
        for statistic in each.result.statistics:
            found[each.result.precision or "", each.rounding, statistic.name].append(statistic)
    return [
        {
            "precision": precision,
            "rounding": rounding,
            "statistic": name,
            "asked": len(values),
            "largest": max(each.share for each in values),
            "mean": fmean(each.share for each in values),
            "deviations": deviations(name, [each.share for each in values]),
        }
        for (precision, rounding, name), values in found.items()
    ]


def deviations(name: str, shares: Sequence[float]) -> float | None:
    """How many standard deviations the limit is away from what a right file has.

    Of a ratio the logarithm is looked at, of a share of a named fault the share itself: around 0,
    or around its mean where kernels that truncate leave some of it every time. None for too few to
    tell, or where all are the same.
    """
    if len(shares) < 8:
        return None
    if name in RATIOS:
        logs = [math.log(share) for share in shares]
        deviation = pstdev(logs)
        return -fmean(logs) / deviation if deviation else None
    mean, deviation = fmean(shares), pstdev(shares)
    if mean <= ALWAYS * deviation:
        mean, deviation = 0.0, math.sqrt(fmean(share**2 for share in shares))
    return (1 - mean) / deviation if deviation else None


def margins(answers: Iterable[Asked]) -> list[dict[str, Any]]:
    """For each fault, precision and mode: how often it was found, and the least that it is over."""
    found: dict[tuple[str, str, str | None], list[Result]] = defaultdict(list)
    for each in answers:
        found[each.result.file, each.result.precision or "", each.result.mode].append(each.result)
    rows = []
    for (name, precision, mode), results in found.items():
        least = min(results, key=share)
        nearest = least.nearest
        rows.append(
            {
                "fault": name,
                "precision": precision,
                **({"mode": mode} if mode else {}),
                "asked": len(results),
                "found": sum(not each.passed for each in results),
                "least": None if nearest is None else share(least),
                "by": "crash" if nearest is None else nearest.name,
            }
        )
    return rows


def share(result: Result) -> float:
    """How many times its limit the figure is that finds the file; a crash is found by itself."""
    return math.inf if result.nearest is None else result.nearest.share


def released_file(root: Path) -> bytes:
    (site,) = (root / "lib").glob("python3*/site-packages")
    return (site / MODEL_FILE).read_bytes()
