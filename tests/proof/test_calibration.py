"""The page of the calibration says what its data say, and the data are enough to say it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from glmpatch.patch import Numbers
from glmpatch.patches.glm4_residual.patch import PATCH
from glmpatch.proof.driver import Result, Statistic
from tests.calibrate import engine_page, page
from tests.calibrate.ask import deviations, margins, shared
from tests.calibrate.engine import BOTH, MODES, pieces, questions, verdicts
from tests.calibrate.tables import odds
from tests.proof.faults import Fault
from tests.proof.sample import FAULTY, ROUNDINGS, Asked

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "proof.json").read_text("utf-8"))
    return found


def test_page_and_plot_are_not_stale(data: dict[str, Any]) -> None:
    for name, text in page.drawn(data).items():
        assert (DOCS / name).read_text("utf-8") == text, "run python -m tests.calibrate --redraw"


def test_enough_was_asked(data: dict[str, Any]) -> None:
    counts = data["counts"]
    assert counts["right seeds"] >= 200
    assert counts["fault seeds"] >= 24
    assert counts["faults"] == 74
    assert counts["roundings"] == len(ROUNDINGS) == 8
    for row in data["right"]:
        assert row["asked"] >= 200
    for row in data["faults"]:
        assert row["asked"] >= 24


def test_the_right_file_never_came_near_a_limit(data: dict[str, Any]) -> None:
    for row in data["right"]:
        assert row["largest"] < 0.8, row
        assert row["deviations"] is None or max(odds(row["deviations"])) < 1e-5, row


def test_the_faults_that_are_promised_were_found_each_time(data: dict[str, Any]) -> None:
    for precision, least in (("bfloat16", 60), ("float32", 70)):
        rows = [row for row in data["faults"] if row["precision"] == precision]
        found = [row["fault"] for row in rows if row["found"] == row["asked"]]
        assert len(found) >= least
        partial = [row["fault"] for row in rows if row["fault"].startswith("repaired in part")]
        assert len(partial) == 7
        assert set(partial) <= set(found)


def test_the_nearest_wrong_file_is_as_far_as_the_patch_says(data: dict[str, Any]) -> None:
    """Of those that are found at all."""
    assert isinstance(PATCH.proof, Numbers)
    for precision in ("bfloat16", "float32"):
        least = min(
            row["least"]
            for row in data["faults"]
            if row["precision"] == precision and row["found"] == row["asked"] and row["least"]
        )
        assert PATCH.proof.wrong[f"module {precision}"] == pytest.approx(least, rel=0.05)


def test_the_engine_was_asked_enough(data: dict[str, Any]) -> None:
    """In bfloat16, which the statistics are about; in float32 as far as there was time."""
    engine = data["engine"]
    assert {row["rounding"] for row in engine["right"]} == {*MODES}
    for row in engine["right"]:
        assert row["asked"] >= (200 if row["precision"] == "bfloat16" else 20), row
    for mode in (*MODES, BOTH):
        rows = wrong(engine, "bfloat16", mode)
        assert len(rows) == engine["counts"]["faults"] >= 65
        assert min(row["asked"] for row in rows) >= 24


def test_the_right_file_never_came_near_a_limit_in_the_engine(data: dict[str, Any]) -> None:
    for row in data["engine"]["right"]:
        assert row["largest"] < 0.8, row
        # Eager kernels that truncate leave more of a theta that is off than any rounding does.
        assert row["deviations"] is None or odds(row["deviations"])[0] < 1e-3, row


def test_the_engine_finds_partial_repairs_in_each_mode_and_hand_patches_compiled(
    data: dict[str, Any],
) -> None:
    for mode in (*MODES, BOTH):
        rows = wrong(data["engine"], "bfloat16", mode)
        found = {row["fault"] for row in rows if row["found"] == row["asked"]}
        partial = {row["fault"] for row in rows if engine_page.partial(row["fault"])}
        by_hand = {row["fault"] for row in rows if engine_page.by_hand(row["fault"])}
        assert (len(partial), len(by_hand)) == (15, 3)
        assert partial <= found
        assert (by_hand & found) == (set() if mode == "eager" else by_hand)


def wrong(engine: dict[str, Any], precision: str, mode: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = engine["faults"]
    return [row for row in rows if (row["precision"], row["mode"]) == (precision, mode)]


def test_every_seed_is_asked_once() -> None:
    for jobs in (1, 2, 3):
        parts = shared(20, 10, 4, jobs)
        assert sorted(seed for _, seeds in parts for seed in seeds) == list(range(20))
        for roundings, seeds in parts:
            first = min(seeds)
            assert roundings == (ROUNDINGS if first < 4 else (FAULTY,) if first < 10 else ())


def test_every_question_to_the_engine_is_in_one_piece_that_has_one_mode() -> None:
    files = {"right": Fault(b"1"), "a weight": Fault(b"1", weights=(("zero", "x"),))}
    files |= {str(number): Fault(str(number).encode()) for number in range(2, 30)}
    asked = questions(files, 200, 24)
    found = list(pieces(files, asked))
    assert len(asked) == len(set(asked)) == 4 * (200 + 29 * 24)
    assert sorted(map(str, asked)) == sorted(str(each) for piece in found for each in piece)
    for piece in found:
        assert len({(each.precision, each.mode) for each in piece}) == 1
        sources = [files[each.name].source for each in piece]
        assert sources == sorted(sources, key=sources.index), "one start for a file"


def test_of_both_modes_the_one_counts_that_finds_more() -> None:
    def asked(seed: int, mode: str, value: float) -> Asked:
        statistics = (Statistic("rms / noise", value, 2.0),)
        result = Result("", "x", "numbers", value < 2, None, "bfloat16", None, mode, "V0")
        return Asked(seed, mode, dataclasses.replace(result, statistics=statistics))

    answers = [asked(0, "eager", 1.0), asked(0, "compiled", 6.0), asked(1, "eager", 9.0)]
    (row,) = margins(verdicts(answers))
    assert row["mode"] == BOTH
    assert (row["asked"], row["found"], row["least"]) == (1, 1, 3.0)


def test_the_distance_of_a_limit_is_counted_in_deviations() -> None:
    """A share that is one tenth on average, by a factor that varies by e: ln 10 deviations off."""
    shares = [0.1 * math.exp(sign) for sign in (1, -1) for _ in range(4)]
    assert deviations("worst difference", shares) == pytest.approx(math.log(10))
    assert deviations("theta x1.01", [0.0, 0.2] * 4) == pytest.approx(math.sqrt(50))
    assert deviations("theta x1.01", [0.05, 0.25] * 4) == pytest.approx(0.0325**-0.5)
    assert deviations("theta x1.01", [0.2, 0.3] * 4) == pytest.approx(15), "around 0.25"
    assert deviations("worst difference", shares[:7]) is None
    assert deviations("worst difference", [0.1] * 8) is None
    normal, heavy = odds(5)
    assert normal == pytest.approx(5.7e-7, rel=0.01)
    assert heavy == pytest.approx(8.5e-4, rel=0.01)
