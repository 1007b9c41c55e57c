"""What a verification says in lines."""

from __future__ import annotations

from dataclasses import replace

import click

from glmpatch.proof import lines
from glmpatch.proof.driver import Result, Statistic, Throughput, Verification
from tests.proof.made import ANSWERED, CRASH, GOOD, PROOF


def verdicts(*results: Result, way: str = "engine") -> list[str]:
    proof = Verification(way, "CPU", {}, 1.0, results)
    return [click.unstyle(line) for line in lines.verdicts(proof)]


def test_a_file_has_one_verdict_and_a_line_for_each_way() -> None:
    failed = replace(
        GOOD,
        mode="compiled",
        passed=False,
        statistics=(Statistic("worst difference", 8.9, 2e-4),),
        equal=1,
    )
    crashed = replace(
        GOOD, engine="V1", passed=False, statistics=(), crash=CRASH, equal=None, tokens=None
    )
    assert verdicts(GOOD, failed, crashed) == [
        "some-patch: FAILED (planned file)",
        "  precision  way           nearest to its limit  value    limit    wrong file "
        "  same token",
        "  float32    eager, V0     worst difference      2.0e-05  2.0e-04  4.5 x limit  103 of 103"
        "  passed",
        "  float32    compiled, V0  worst difference      8.90     2.0e-04  4.5 x limit  1 of 103  "
        "  FAILED",
        "  float32    eager, V1     crashed                                 4.5 x limit            "
        "  FAILED",
        "  float32 eager, V1:",
        "  TypeError: <b>not</b> a & tuple",
        "  at vllm/linear.py:1",
    ]


def test_one_error_in_every_way_is_told_once() -> None:
    crashed = replace(GOOD, passed=False, statistics=(), crash=CRASH)
    assert verdicts(crashed, replace(crashed, mode="compiled")) == [
        "some-patch: FAILED (planned file)",
        "  TypeError: <b>not</b> a & tuple",
        "  at vllm/linear.py:1",
    ]


def test_answers_stand_in_the_same_list() -> None:
    assert verdicts(GOOD, ANSWERED)[-3:] == [
        "another-patch: FAILED (planned file)",
        "  right answers  1 of 2",
        "  dtype float16: float16, and right is refused: does not support",
    ]


def test_not_finite_is_said() -> None:
    lost = replace(GOOD, passed=False, statistics=(Statistic("worst difference", None, 2e-4),))
    assert "not finite" in verdicts(lost)[2]


def test_the_heading_names_the_proofs_that_it_was_not() -> None:
    """Of engines by the words of what chose them."""
    proof = replace(PROOF, left_out=("the compiled mode, which shows more", "more than one device"))
    first, *others = lines.heading(proof)
    assert first.startswith("proof: vLLM's whole engine on the ")
    assert [line.strip() for line in others] == [
        "not the compiled mode, which shows more;",
        "not more than one device",
    ]
    first, second = lines.heading(replace(PROOF, way="module"))
    assert first.startswith("proof: vLLM's model file on the ")
    assert "not the engine" in second


def test_the_heading_names_precisions_answerers_and_what_was_left_out() -> None:
    low = replace(GOOD, precision="bfloat16")
    proof = replace(
        PROOF,
        way="module",
        results=(GOOD, low, ANSWERED),
        about={"another-patch": "vLLM's configuration"},
        left_out=("some-other, which is about another model than --model",),
    )
    assert [line.strip() for line in lines.heading(proof)] == [
        "proof: vLLM's model file on the CPU in float32 and bfloat16, against Transformers on the "
        "same random weights;",
        "not the engine: its attention kernels, paged cache and compilation were not run;",
        "another-patch: by the answers of vLLM's configuration; no model was run;",
        "not some-other, which is about another model than --model",
    ]


def test_witnesses_and_speeds_are_told_apart_by_their_patch() -> None:
    other = replace(GOOD, patch="another-patch", file="transformers backend")
    error = {"type": "ValueError", "message": "no\nmore", "place": None, "traceback": ""}
    proof = replace(
        PROOF,
        witnesses=(replace(GOOD, file="transformers backend"), other),
        throughput=(
            Throughput("some-patch", "native", "eager", "V0", 2817.4, 739.2, None),
            Throughput("another-patch", "native", "eager", "V0", None, None, error),
        ),
        load="16 prompts",
    )
    witnesses = [click.unstyle(line) for line in lines.witnesses(proof)]
    assert [line for line in witnesses if not line.startswith(" ")] == [
        "some-patch: the same with Transformers' own model",
        "another-patch: the same with Transformers' own model",
    ]
    assert len(witnesses) == 2 * 3
    assert list(lines.throughput(proof)) == [
        "tokens per second, 16 prompts:",
        "  patch               model         mode      engine    prefill   decode",
        "  some-patch          native        eager     V0          2,817      739",
        "  another-patch       native        eager     V0        ValueError: no",
    ]
