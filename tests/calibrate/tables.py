"""Tables of the calibration's page that both ways have."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

COLOURS = {"bfloat16": "#1f6feb", "float32": "#bf5700"}


def shares(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How far the right file is from each limit, and the odds of a false alarm."""
    yield (
        "| precision | statistic | questions | largest share of the limit | mean | standard "
        "deviations to the limit | false alarm: normal tail | exponential tail |"
    )
    yield "| --- " * 8 + "|"
    for precision, statistic in dict.fromkeys((r["precision"], r["statistic"]) for r in rows):
        these = [r for r in rows if (r["precision"], r["statistic"]) == (precision, statistic)]
        asked = sum(r["asked"] for r in these)
        mean = sum(r["mean"] * r["asked"] for r in these) / asked
        away = min((r["deviations"] for r in these if r["deviations"]), default=None)
        far = ["too few to tell", "", ""]
        if away is not None:
            far = [f"{away:.1f}", *(_odds(each) for each in odds(away))]
        yield (
            f"| {precision} | {statistic} | {asked} | {max(r['largest'] for r in these):.2f} | "
            f"{mean:.2f} | {' | '.join(far)} |"
        )


def odds(deviations: float) -> tuple[float, float]:
    """That something is further out: with a normal tail, and with an exponential one."""
    return math.erfc(deviations / math.sqrt(2)), math.exp(-math.sqrt(2) * deviations)


def _odds(value: float) -> str:
    return "below 1e-12" if value < 1e-12 else f"about {value:.0e}"


def times(value: float | None) -> str:
    return "crash" if value is None else f"{value:.2f}" if value < 100 else f"{value:,.0f}"
