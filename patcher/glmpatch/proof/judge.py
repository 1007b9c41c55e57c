"""What the probe measured, judged: its report in, a verification out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from glmpatch.patch import Answers, Numbers
from glmpatch.proof.kinds import answers, numbers
from glmpatch.proof.result import Result, Throughput, Verification

KINDS: Mapping[str, ModuleType] = {"numbers": numbers, "answers": answers}


def judge(
    report: Mapping[str, Any],
    specifications: Mapping[str, Numbers | Answers],
    random_weights: bool,
    **about: Any,
) -> Verification:
    """The verdict on every file that the report tells of.

    Args:
        report: of the probe.
        specifications: patch -> what its proof is.
        random_weights: whether they were ours, for which the nearest wrong file is known.
        about: further fields of the verification.

    Raises:
        Failure: the numbers are no measure of anything (exit 7).
    """
    order = list(specifications)
    results = sorted(
        judged(report, specifications, random_weights), key=lambda each: order.index(each.patch)
    )
    return Verification(
        way=report["way"],
        device=report["device"],
        versions=report["versions"],
        seconds=report["seconds"],
        results=tuple(results),
        witnesses=tuple(judged(report, specifications, random_weights, witnesses=True)),
        throughput=tuple(_throughput(each) for each in report.get("throughput", ())),
        load=report.get("load", ""),
        about={
            patch: each.about for patch, each in specifications.items() if isinstance(each, Answers)
        },
        **about,
    )


def judged(
    report: Mapping[str, Any],
    specifications: Mapping[str, Numbers | Answers],
    random_weights: bool,
    witnesses: bool = False,
) -> Iterator[Result]:
    """What a report, or the part of one, says of vLLM's own files, or of the witnesses.

    Raises:
        Failure: the numbers are no measure of anything (exit 7).
    """
    way = report.get("way") if random_weights else None
    for each in report["results"]:
        if (each.get("impl", "vllm") != "vllm") == witnesses:
            yield KINDS[each["kind"]].judge(each, specifications[each["proof"]], way)


def _throughput(each: Mapping[str, Any]) -> Throughput:
    return Throughput(
        patch=each["proof"],
        implementation="native" if each["impl"] == "vllm" else each["impl"],
        mode=each["mode"],
        engine=each["engine"],
        prefill=each.get("prefill"),
        decode=each.get("decode"),
        error=each.get("error"),
    )
