"""The engine's part of ``docs/proof.md`` and its plot, from the data alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tests.calibrate.engine import BOTH, MODES
from tests.calibrate.plot import Series, plot
from tests.calibrate.tables import COLOURS, odds, shares, times

PICTURE = "proof-engine.svg"
Row = Mapping[str, Any]


def partial(name: str) -> bool:
    return name == "as released" or name.startswith("repaired in part")


def by_hand(name: str) -> bool:
    return name.startswith("all, but ")


GROUPS: Mapping[str, Callable[[str], bool]] = {
    "partial repairs, the released file among them": partial,
    "the residual lost: `[0]` and the like": by_hand,
    "all others": lambda name: not partial(name) and not by_hand(name),
}


def lines(engine: Mapping[str, Any], module: Sequence[Row]) -> Iterator[str]:
    """The section; ``module`` has the faults of the module way."""
    counts, rows, right = engine["counts"], engine["faults"], engine["right"]
    yield "## The whole engine"
    yield ""
    yield (
        "The same in vLLM 0.8.4's whole engine, built for the CPU: its own attention kernel, paged "
        "cache, batches, decoding and sampler; eager, where the fused norm leaves its results in "
        "place, and compiled, where it makes new tensors. `verify` starts an engine for each file "
        "and mode; here one is started and handed the weights of one seed after another, and "
        "answers the same (a test compares the two). Its kernels truncate where others round."
    )
    yield ""
    yield f"The right file passed {_passed(right)}. Seeds asked: {_seeds(engine)}."
    yield ""
    yield from shares([{**r, "precision": f"{r['precision']} {r['rounding']}"} for r in right])
    yield ""
    yield _nearest(right)
    yield ""
    missing = sorted({row["fault"] for row in module} - {row["fault"] for row in rows})
    yield (
        f"{counts['faults']} wrong files: of those of the module way all but {len(missing)}, which "
        "are faults of an attention that is not in the file, and the released file with all "
        "partial repairs that end in an error. *both* is what `verify` says, which asks in both "
        "modes: a question is found where either finds it, and its margin is the larger one. "
        "A residual that is lost shows compiled alone: eager, the norm on the CPU writes the new "
        "one over the old, and what such a file throws away is there all the same."
    )
    yield ""
    yield from _groups(rows)
    yield ""
    yield from _unseen(rows)
    yield f"![how far above the limit each fault is in the engine]({PICTURE})"
    yield ""
    yield from _faults(rows)
    yield ""
    yield f"Left out: {'; '.join(missing)}."
    yield ""
    yield (
        f"Asked: {counts['questions']:,} questions. The processes that asked them ran for "
        f"{counts['seconds'] / 60:.0f} minutes in all, several at once. Not measured: any GPU."
    )


def _ways(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Precision and mode, as far as anything was asked in them."""
    there = {(row["precision"], row["mode"]) for row in rows}
    return [(p, mode) for p in COLOURS for mode in (*MODES, BOTH) if (p, mode) in there]


def _row(rows: Sequence[Row], name: str, way: tuple[str, str]) -> Row | None:
    found = [r for r in rows if r["fault"] == name and (r["precision"], r["mode"]) == way]
    return found[0] if found else None


def _names(rows: Sequence[Row]) -> list[str]:
    """The faults, what is hardest to see by both modes in the lowest precision first."""

    def least(name: str) -> float:
        row = _row(rows, name, ("bfloat16", BOTH))
        return math.inf if row is None or row["least"] is None else float(row["least"])

    return sorted(dict.fromkeys(row["fault"] for row in rows), key=least)


def _seeds(engine: Mapping[str, Any]) -> str:
    """How many seeds the right file and each fault were asked from, in each way."""
    right = {(row["precision"], row["rounding"]): row["asked"] for row in engine["right"]}
    told = []
    for way, asked in right.items():
        wrong = [row["asked"] for row in engine["faults"] if (row["precision"], row["mode"]) == way]
        each = f", and {min(wrong)} for each of {len(wrong)} faults" if wrong else ""
        told.append(f"{way[0]} {way[1]} {asked}{each}")
    return "; ".join(told)


def _passed(right: Sequence[Row]) -> str:
    """Every question is one row for each statistic; a share above 1 is a failure."""
    largest: dict[tuple[str, str], tuple[int, float]] = {}
    for row in right:
        way = row["precision"], row["rounding"]
        before = largest.get(way, (0, 0.0))[1]
        largest[way] = row["asked"], max(before, row["largest"])
    assert all(share < 1 for _, share in largest.values())
    told = [
        f"{precision} {mode} {asked} of {asked}, its largest share of a limit {share:.2f}"
        for (precision, mode), (asked, share) in largest.items()
    ]
    return "every time: " + "; ".join(told)


def _nearest(right: Sequence[Row]) -> str:
    """Where a false alarm is likeliest."""
    row = min((r for r in right if r["deviations"]), key=lambda r: float(r["deviations"]))
    normal, heavy = odds(row["deviations"])
    return (
        f"What comes nearest is *{row['statistic']}* in {row['precision']} {row['rounding']}: "
        f"{row['deviations']:.1f} standard deviations to the limit, a false alarm in "
        f"{1 / normal:,.0f} questions if the tail is a normal one, in {1 / heavy:,.0f} if it is an "
        "exponential one. By default `verify` asks an engine on the CPU in float32 alone."
    )


def _groups(rows: Sequence[Row]) -> Iterator[str]:
    ways = _ways(rows)
    yield (
        "| found of asked, least margin where there are numbers | files | "
        + " | ".join(map(" ".join, ways))
        + " |"
    )
    yield "| --- " * (len(ways) + 2) + "|"
    for group, belongs in GROUPS.items():
        names = {row["fault"] for row in rows if belongs(row["fault"])}
        cells = []
        for way in ways:
            these = [r for r in rows if r["fault"] in names and (r["precision"], r["mode"]) == way]
            found, asked = (sum(r[what] for r in these) for what in ("found", "asked"))
            least = min((r["least"] for r in these if r["least"] is not None), default=None)
            cells.append(f"{found:,} of {asked:,}, {times(least)}" if asked else "")
        yield f"| {group} | {len(names)} | " + " | ".join(cells) + " |"


def _unseen(rows: Sequence[Row]) -> Iterator[str]:
    """What is not found in every question, by name."""
    for way in _ways(rows):
        names = [n for n in _names(rows) if (r := _row(rows, n, way)) and r["found"] < r["asked"]]
        what = "by both modes together" if way[1] == BOTH else way[1]
        told = "; ".join(names) or "nothing"
        yield f"- Not found in every question, {way[0]}, {what}: {told}."
    yield ""


def _faults(rows: Sequence[Row]) -> Iterator[str]:
    ways = _ways(rows)
    yield "| fault | " + " | ".join(f"{p} {m}: found | least" for p, m in ways) + " |"
    yield "| --- " * (2 * len(ways) + 1) + "|"
    for name in _names(rows):
        cells = []
        for way in ways:
            row = _row(rows, name, way)
            cells += [f"{row['found']} of {row['asked']}", times(row["least"])] if row else ["", ""]
        yield f"| {name} | " + " | ".join(cells) + " |"


def picture(engine: Mapping[str, Any]) -> str:
    """Dots for eager, rings for compiled."""
    rows = engine["faults"]
    series = [
        Series(
            f"{precision} {mode}",
            COLOURS[precision],
            max(
                r["largest"]
                for r in engine["right"]
                if (r["precision"], r["rounding"]) == (precision, mode)
            ),
            {
                r["fault"]: r["least"]
                for r in rows
                if (r["precision"], r["mode"]) == (precision, mode)
            },
            ring=mode == "compiled",
        )
        for precision, mode in _ways(rows)
        if mode != BOTH
    ]
    title = "The same in vLLM's whole engine on the CPU"
    return plot(title, _names(rows), series)
