"""``docs/proof.md`` and its plot, from the data alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from glmpatch.proof.kinds.numbers import FACTOR, FAULT, LIMITS
from tests.calibrate import engine_page
from tests.calibrate.plot import Series, plot
from tests.calibrate.tables import COLOURS, shares, times

TITLE = "How many times its limit the weakest question of each fault is"

HEAD = f"""\
# The proof, and how far it can be trusted

<!-- Written by `python -m tests.calibrate` from proof.json; `--redraw` writes it anew. -->

`glmpatch verify` runs a model file of vLLM on a small checkpoint with random weights, runs
Transformers' own model on the same weights, and compares the log-probabilities of every token of
the vocabulary at every position. Nothing of it looks at the source. This page tells what it is
that is compared, how far the right file stays below the limits, and which wrong files are found.

    python -m tests.calibrate module      # some 40 minutes on two cores
    python -m tests.calibrate engine      # some hours; goes on where it was stopped
    python -m tests.calibrate --redraw    # this page and its plots, from the data

## What is judged

R is Transformers one precision above the tested one (float64 over float32, float32 over bfloat16),
T is Transformers in the tested precision, V is vLLM in the tested precision. V - R is vLLM's
difference, T - R is the noise: what rounding alone does to a model that is right.

- **float32**: the *worst difference* |V - R| may be {FACTOR:.0f} times the worst noise.
- **bfloat16** has noise that hides much from a worst number, so that it is judged by statistics
  over all positions and the whole vocabulary. All must hold:
  - *rms / noise*: the root of the mean square of V - R over that of T - R, at most {LIMITS["rms"]};
  - *worst position / noise*: the largest such root over one position's vocabulary, over that of
    T - R over everything, at most {LIMITS["position"]};
  - *named faults*: how much of each of four small faults (attention scale x1.05, epsilon x2, theta
    x1.01, logits x1.05) is in V - R, by projection on what that fault does to R, at most {FAULT}. A
    right file has 0 of it, a file with that fault 1.

The checkpoint is a quiet one: its matrices are drawn with a gain of 1, under which the noise of
bfloat16 is a tenth of what it is under a gain of 2; the prompts hold every token of the vocabulary.
Each file is asked in both ways in which vLLM's fused operators can leave their results: as new
tensors, and in place, as the CUDA kernels do.
"""


def drawn(data: Mapping[str, Any]) -> dict[str, str]:
    """Every file that the data give, by its name."""
    return {
        "proof.md": "\n".join(_page(data)) + "\n",
        "proof.svg": picture(data),
        engine_page.PICTURE: engine_page.picture(data["engine"]),
    }


def _page(data: Mapping[str, Any]) -> Iterator[str]:
    counts = data["counts"]
    yield HEAD
    yield "## The right file: how far below the limits"
    yield ""
    yield (
        f"Module way, vLLM 0.8.4, {counts['right seeds']} seeds (each draws other weights and "
        f"prompts), in {counts['roundings']} roundings: as plain PyTorch rounds, as "
        "FlashAttention, the CUDA kernels of the norm, a compiler that fuses, and two GPUs that "
        "add partial sums would. The share is of the limit: above 1 the file would fail. The odds "
        "of a false alarm are extrapolated from the rounding that comes nearest: how many "
        "standard deviations the limit is away (of the logarithm for the ratios; of the share "
        "itself, around 0, for the named faults), and what that means if the tail is a normal one, "
        "and if it is as heavy as an exponential one. They are orders of magnitude, and no counts. "
        "No false alarm was seen."
    )
    yield ""
    yield from shares(data["right"])
    yield ""
    yield "## The wrong files: how far above"
    yield ""
    yield (
        f"{counts['faults']} faults, each from {counts['fault seeds']} seeds, in bfloat16 from "
        f"{counts['fault seeds in every rounding']} of them in all {counts['roundings']} roundings "
        "and from the others in one: edits of the file, weights that a wrong loader "
        "would leave, an attention that is wrong. *found* counts the questions in which the fault "
        "was found, *least* is the smallest share of the limit that any of them gave. Sorted by "
        "what is hardest to see in bfloat16."
    )
    yield ""
    whole = {p: _found(data["faults"], p) for p in COLOURS}
    yield (
        f"Found in every question: {whole['bfloat16']} of {counts['faults']} in bfloat16, "
        f"{whole['float32']} of {counts['faults']} in float32. What bfloat16 does not see "
        "(a scale that is 2 % off, one number of one bias) is the reason why both precisions are "
        "proven wherever the way takes both."
    )
    yield ""
    yield "![how far above the limit each fault is](proof.svg)"
    yield ""
    yield from _faults(data["faults"])
    yield ""
    yield (f"Asked: {counts['questions']:,} questions in {counts['seconds'] / 60:.0f} minutes.")
    yield ""
    yield from engine_page.lines(data["engine"], data["faults"])


def _found(rows: Sequence[Mapping[str, Any]], precision: str) -> int:
    return sum(r["found"] == r["asked"] for r in rows if r["precision"] == precision)


def _faults(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| fault | bfloat16: found | least | by | float32: found | least |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name in _order(rows):
        low, high = (_row(rows, name, precision) for precision in ("bfloat16", "float32"))
        yield (
            f"| {name} | {low['found']} of {low['asked']} | {times(low['least'])} | {low['by']} | "
            f"{high['found']} of {high['asked']} | {times(high['least'])} |"
        )


def _row(rows: Sequence[Mapping[str, Any]], name: str, precision: str) -> Mapping[str, Any]:
    return next(r for r in rows if (r["fault"], r["precision"]) == (name, precision))


def _order(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    low = [r for r in rows if r["precision"] == "bfloat16"]
    return [r["fault"] for r in sorted(low, key=lambda r: r["least"] or math.inf)]


def picture(data: Mapping[str, Any]) -> str:
    """A dot for each fault and precision; the right file as a bar."""
    rows = data["faults"]
    series = [
        Series(
            precision,
            colour,
            max(r["largest"] for r in data["right"] if r["precision"] == precision),
            {r["fault"]: r["least"] for r in rows if r["precision"] == precision},
        )
        for precision, colour in COLOURS.items()
    ]
    return plot(TITLE, _order(rows), series)
