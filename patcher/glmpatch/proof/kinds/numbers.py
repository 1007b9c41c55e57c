"""A model file's numbers against Transformers' own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from glmpatch.errors import Exit, Failure
from glmpatch.language import N_, _, joined
from glmpatch.patch import Numbers
from glmpatch.proof.result import Result, Statistic, Verification, died
from glmpatch.width import columns, padded

FACTOR = 10.0
"""How many times the reference's own worst noise vLLM may be away from it, in float32."""
ROUNDING = 2.0**-23
"""Relative spacing of float32 numbers: noise below it is luck, and no measure of anything."""
CEILING = {"float32": 1e-3, "bfloat16": 0.75}
"""A reference noisier than this cannot tell right from wrong: its worst difference from itself."""
LIMITS = {"rms": 2.0, "position": 7.0}
"""In a low precision, how many times the reference's root mean square of noise vLLM's may be: over
everything, and at the worst position."""
FAULT = 0.5
"""The largest share of a named fault; a right file has none of it, one with that fault has 1."""
WORST = N_("worst difference")
NAMES = {"rms": N_("rms / noise"), "position": N_("worst position / noise")}
COLUMNS = (
    N_("precision"),
    N_("way"),
    N_("nearest to its limit"),
    N_("value"),
    N_("limit"),
    N_("wrong file"),
    N_("same token"),
)


def order(specification: Numbers) -> dict[str, Any]:
    """What the probe is told."""
    kept = asdict(specification)
    for name in ("refused", "wrong", "transformers"):
        del kept[name]
    return {**kept, "transformers": specification.transformers}


def judge(measured: Mapping[str, Any], specification: Numbers, way: str | None) -> Result:
    """The result of one file in one way. ``way`` is module or engine, None for weights of which
    no nearest wrong file is known.

    Raises:
        Failure: the reference is too noisy to judge by.
    """
    noise, precision = measured.get("noise"), measured.get("precision")
    if precision is None:  # it died before anything was measured
        return died(measured, "numbers")
    if noise is None or not noise <= CEILING[precision]:
        raise Failure(
            Exit.PROOF_NOT_RUN,
            _(
                "the proof could not run: Transformers in {precision} is {noise} away from itself "
                "in a higher precision, more than {most}; so noisy a reference proves nothing",
                precision=precision,
                noise=noise,
                most=CEILING[precision],
            ),
            _("run it on the CPU: --device cpu"),
        )
    figures: tuple[Statistic, ...] = ()
    line = None
    if measured["crash"] is None:
        figures = tuple(_figures(measured))
        low = "sigma" in measured
        line = LIMITS["position"] * measured["sigma"] if low else figures[0].limit
    return Result(
        patch=measured["proof"],
        file=measured["file"],
        kind="numbers",
        passed=bool(figures) and all(each.passed for each in figures),
        crash=measured["crash"],
        precision=precision,
        norms=measured.get("norms"),
        mode=measured.get("mode"),
        engine=measured.get("engine"),
        statistics=figures,
        equal=measured.get("equal"),
        tokens=measured.get("tokens"),
        noise=noise,
        wrong=specification.wrong.get(f"{way} {precision}"),
        line=line,
        series=tuple(measured.get("series", ())),
        noise_series=tuple(measured["noise_series"]),
    )


def _figures(measured: Mapping[str, Any]) -> Iterator[Statistic]:
    statistics = measured.get("statistics")
    if statistics is None:
        limit = FACTOR * max(measured["noise"], ROUNDING * measured["peak"])
        yield Statistic(WORST, measured["distance"], limit)
        return
    for name, limit in LIMITS.items():
        yield Statistic(NAMES[name], statistics[name], limit)
    for name, value in statistics["faults"].items():
        yield Statistic(name, value, FAULT)


def heading(verification: Verification) -> list[str]:
    """What was run; of engines, what was not is told by what chose them (``left_out``)."""
    on = {
        "device": verification.device,
        "precisions": joined(verification.precisions, N_("{one} and {other}")),
        "weights": verification.weights,
    }
    if verification.way == "module":
        return [
            _(
                "vLLM's model file on the {device} in {precisions}, against Transformers on "
                "{weights};",
                **on,
            ),
            _("not the engine: its attention kernels, paged cache and compilation were not run"),
        ]
    return [
        _(
            "vLLM's whole engine on the {device} in {precisions}, against Transformers on "
            "{weights};",
            **on,
        )
    ]


def lines(results: Sequence[Result]) -> Iterator[str]:
    """One line for each way in which the file was asked, and the crashes under them."""
    crashed = [each for each in results if each.crash is not None]
    if len(crashed) < len(results):
        yield from _table(results)
    told: dict[tuple[Any, ...], list[str]] = {}
    for each in crashed:
        assert each.crash is not None
        key = (each.crash["type"], each.crash["message"], each.crash["place"])
        way = " ".join(part for part in (each.precision, each.way) if part)
        told.setdefault(key, []).append(way)
    for (kind, message, place), ways in told.items():
        if len(ways) < len(results):
            yield f"  {'; '.join(ways)}:"
        yield "  " + _("{type}: {message}", type=kind, message=message)
        if place:
            yield "  " + _("at {place}", place=place)


def _table(results: Sequence[Result]) -> Iterator[str]:
    rows = [tuple(map(_, COLUMNS)), *(cells(each) for each in results)]
    widths = [max(columns(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for number, row in enumerate(rows):
        text = "  ".join(padded(cell, width) for cell, width in zip(row, widths, strict=True))
        verdict = ""
        if number:
            verdict = "  " + (_("passed") if results[number - 1].passed else _("FAILED"))
        yield f"  {text}{verdict}".rstrip()


def cells(result: Result) -> tuple[str, ...]:
    """The figures of one result, under ``COLUMNS``."""
    nearest = result.nearest
    return (
        result.precision or "",
        result.way,
        _("crashed") if nearest is None else _(nearest.name),
        "" if nearest is None else value(nearest),
        "" if nearest is None else figure(nearest.limit),
        "" if result.wrong is None else _("{times:.3g} x limit", times=result.wrong),
        ""
        if result.equal is None
        else _("{equal} of {tokens}", equal=result.equal, tokens=result.tokens),
    )


def value(statistic: Statistic) -> str:
    return _("not finite") if statistic.value is None else figure(statistic.value)


def figure(number: float) -> str:
    """Two digits, as wide for one file as for the next."""
    return f"{number:.1e}" if number < 0.01 else f"{number:.2f}"
