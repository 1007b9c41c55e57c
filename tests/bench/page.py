"""``docs/benchmarks.md`` and its plots, from the data alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import plot, words
from tests.bench.data import NAME, Contest, Group, Growth, Spread


def write(groups: Mapping[str, Group], folder: Path) -> None:
    for name, text in drawn(groups).items():
        (folder / name).write_text(text, "utf-8")


def drawn(groups: Mapping[str, Group]) -> dict[str, str]:
    """Every file that the data give, by its name."""
    files = {f"{NAME}.md": "\n".join(_parts(groups))}
    if "start-up" in groups:
        rows = [
            (f"{contest.name} / {other}", contest.times(other), contest.budgets.get(other))
            for contest in groups["start-up"].contests
            for other in contest.others
        ]
        title = "times as long as ... (bars; the budget in green)"
        files[f"{NAME}-start-up.svg"] = plot.bars(title, rows)
    if "growth" in groups:
        growths = groups["growth"].growths
        files[f"{NAME}-time.svg"] = plot.curves(
            "wall time", list(_panels(growths, "ms per unit", _milliseconds_each))
        )
        files[f"{NAME}-memory.svg"] = plot.curves(
            "peak memory", list(_panels(growths, "peak memory, MB", _megabytes))
        )
    return files


def as_text(group: Group) -> str:
    """The ratios, for a terminal."""
    lines = [
        f"{contest.name:<32} {other:<45} {_range(contest.times(other)):<24} "
        f"{_verdict(contest, other)}"
        for contest in _all(group)
        for other in contest.others
    ]
    figures = [f"{name}: {value}" for name, value in group.figures.items()]
    return "\n".join(line.rstrip() for line in [*lines, *figures, ""])


def _all(group: Group) -> Iterable[Contest]:
    yield from group.contests
    for growth in group.growths:
        for count, contest in growth.contests.items():
            name = f"{contest.name}, {count:,} {growth.unit}"
            yield Contest(name, contest.seconds, contest.peaks, contest.budgets)


def _parts(groups: Mapping[str, Group]) -> Iterable[str]:
    yield words.HEAD
    if "start-up" in groups:
        group = groups["start-up"]
        yield words.START_UP
        yield _ratios(group.contests)
        yield f"![start-up as ratios]({NAME}-start-up.svg)\n"
        yield words.instead(group)
        yield words.apply_profile(group)
    if "cold-start" in groups:
        yield words.COLD
        yield _ratios(groups["cold-start"].contests)
    if "verify" in groups:
        group = groups["verify"]
        yield words.VERIFY
        yield _ratios(group.contests)
        yield words.STEPS
        yield _table(
            ("step", "seconds"), ((k, f"{v:.1f}") for k, v in group.figures["steps"].items())
        )
        yield words.PACKAGES
        shares = group.figures["packages"].items()
        yield _table(("package", "share of the imports"), ((k, f"{v:.0%}") for k, v in shares))
    if "growth" in groups:
        yield words.GROWTH
        for growth in groups["growth"].growths:
            yield _growth(growth)
        yield f"![time for each unit]({NAME}-time.svg)\n"
        yield f"![peak memory]({NAME}-memory.svg)\n"
        yield words.growth(groups["growth"])
    if "model" in groups:
        yield words.MODEL
        yield _ratios(groups["model"].contests)
        yield words.model(groups["model"])
    if "footprint" in groups:
        yield words.footprint(groups["footprint"])
    yield words.ABSOLUTE
    for name, group in groups.items():
        if group.contests:
            yield f"### {name}\n"
            yield _absolute(group.contests)
    yield words.ABOUT
    yield _table(
        ("group", "date", "runs", "load before", "machine", "with"),
        ((name, *_about(group)) for name, group in groups.items()),
    )


def _ratios(contests: Iterable[Contest]) -> str:
    rows = [
        (
            contest.name if number == 0 else "",
            other,
            _range(contest.times(other)),
            _verdict(contest, other),
            f"{contest.memory(other).median:.2f}" if contest.peaks else "",
        )
        for contest in contests
        for number, other in enumerate(contest.others)
    ]
    return _table(("", "against", "times as long", "budget", "times the peak memory"), rows)


def _verdict(contest: Contest, other: str) -> str:
    if other not in contest.budgets:
        return ""
    verdict = "met" if contest.met(other) else "**over**"
    return f"{contest.budgets[other]:g}, {verdict}"


def _absolute(contests: Iterable[Contest]) -> str:
    rows = []
    for contest in contests:
        for number, entrant in enumerate(contest.entrants):
            peaks = contest.peaks.get(entrant)
            rows.append(
                (
                    contest.name if number == 0 else "",
                    entrant,
                    f"{1000 * median(contest.seconds[entrant]):,.1f}",
                    f"{median(peaks) / 1024:.0f}" if peaks else "",
                )
            )
    return _table(("", "", "ms", "peak MB"), rows)


def _growth(growth: Growth) -> str:
    first = next(iter(growth.contests.values()))
    rows = [
        (
            f"{count:,}",
            f"{_milliseconds_each(contest, contest.entrants[0], count):,.1f}"
            if growth.unit != "lines"
            else f"{1000 * _milliseconds_each(contest, contest.entrants[0], count):,.0f}",
            f"{_megabytes(contest, contest.entrants[0], count):.0f}",
            *(_range(contest.times(other)) for other in contest.others),
            *(f"{contest.memory(other).median:.2f}" for other in contest.others),
        )
        for count, contest in growth.contests.items()
    ]
    each = "ms for each" if growth.unit != "lines" else "ms for 1,000"
    more = [f"times as long as {other}" for other in first.others]
    more += ["times its peak memory" for _ in first.others]
    return f"**{growth.name}**\n\n" + _table((growth.unit, each, "peak MB", *more), rows)


def _panels(
    growths: Sequence[Growth], what: str, figure: Any
) -> Iterable[tuple[str, str, Mapping[str, Mapping[int, float]]]]:
    units = dict.fromkeys(growth.unit for growth in growths)
    for unit in units:
        curves: dict[str, dict[int, float]] = {}
        for growth in growths:
            if growth.unit == unit:
                for count, contest in growth.contests.items():
                    name = f"glmpatch {contest.name}"
                    curves.setdefault(name, {})[count] = figure(contest, contest.entrants[0], count)
        yield what, unit, curves


def _milliseconds_each(contest: Contest, entrant: str, count: int) -> float:
    return 1000 * median(contest.seconds[entrant]) / count


def _megabytes(contest: Contest, entrant: str, count: int) -> float:
    return median(contest.peaks[entrant]) / 1024


def _about(group: Group) -> tuple[str, ...]:
    about = group.about
    versions = {"Python": about["python"], **about["versions"], **group.figures.get("versions", {})}
    return (
        about["date"],
        str(about["runs"]),
        str(about.get("load", "not noted")),
        f"{about['cpu']}, {about['cores']} cores, {about['memory']:.0f} GB, {about['system']}",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
    )


def _range(found: Spread) -> str:
    """The median and the middle half."""
    digits = 2 if found.median < 100 else 0
    low, middle, high = (f"{value:.{digits}f}" for value in (found.low, found.median, found.high))
    return middle if low == high else f"{middle} ({low} to {high})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"
