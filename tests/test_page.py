"""The web page of a verification: drawn by a real browser, without a network."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

from patcher.errors import Exit
from patcher.verify.driver import Result, Throughput, Verification
from patcher.verify.page import MARKS, page
from tests.support.browser import colors, screenshot
from tests.support.environment import Environment, glmpatch


def series(scale: float) -> tuple[list[float], ...]:
    """Differences of three prompts, some of them nothing at all."""
    return tuple(
        [scale * (1 + math.sin(position)) for position in range(length)] for length in (8, 24, 71)
    )


GOOD = Result(
    patch="some-patch",
    file="planned",
    passed=True,
    distance=2e-5,
    noise=2e-5,
    limit=2e-4,
    equal=103,
    tokens=103,
    crash=None,
    mode="eager",
    engine="V0",
    wrong=1e-3,
    series=series(1e-5),
    noise_series=series(8e-6),
)
CRASH = {"type": "TypeError", "message": "<b>not</b> a & tuple", "place": None, "traceback": ""}
BAD = replace(GOOD, passed=False, distance=8.9, series=series(4.0), mode="compiled")
PROOF = Verification("engine", "CPU", "float32", {"vllm": "0.8.4"}, 61.2, (GOOD, BAD))


def test_the_plots_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(PROOF, "vLLM 0.8.4 in /somewhere"), "utf-8")
    screenshot(path, tmp_path / "drawn.png")
    without = re.sub(r"<svg.*?</svg>", "", path.read_text("utf-8"), flags=re.DOTALL)
    path.write_text(without, "utf-8")
    screenshot(path, tmp_path / "without.png")
    drawn, rest = colors(tmp_path / "drawn.png"), colors(tmp_path / "without.png")
    # 103 dots of noise and 103 of vLLM in each of two plots, and two lines across each.
    for name, pixels in (("noise", 500), ("vllm", 500), ("limit", 200), ("wrong", 200)):
        assert drawn[MARKS[name]] > rest[MARKS[name]] + pixels, name


def test_the_page_holds_all_figures_and_nothing_from_elsewhere() -> None:
    crashed = replace(GOOD, file="released", crash=CRASH, distance=None, passed=False, series=())
    timed = Throughput("some-patch", "native", "eager", "V0", 2817.4, 739.2, None)
    text = page(
        replace(
            PROOF,
            results=(GOOD, BAD, crashed),
            witnesses=(replace(GOOD, file="transformers backend"),),
            throughput=(timed,),
            load="16 prompts",
        ),
        "vLLM 0.8.4 in /some<where>",
    )
    assert "http" not in text
    assert "<script" not in text
    assert 'glmpatch verify: <span class="failed">failed</span>' in text
    assert "/some&lt;where&gt;" in text
    assert "TypeError: &lt;b&gt;not&lt;/b&gt; a &amp; tuple" in text
    for told in ("8.9e+00", "2.0e-05", "2.0e-04", "1.0e-03", "103 of 103", "2,817", "61 s"):
        assert told in text, told
    assert text.count("<svg") == 3
    assert text.count("<circle") == 3 * 2 * 103


def test_not_a_number_has_no_plot_and_breaks_nothing() -> None:
    lost = replace(GOOD, passed=False, distance=None, series=(), equal=3)
    text = page(replace(PROOF, results=(lost,)), "vLLM")
    assert "<svg" not in text
    assert "not finite" in text


def test_exact_agreement_can_be_drawn() -> None:
    exact = replace(GOOD, distance=0.0, series=([0.0] * 5,), noise_series=([0.0] * 5,))
    assert page(replace(PROOF, results=(exact,)), "vLLM").count("<circle") == 10


def test_the_command_writes_it_when_the_proof_fails_too(env: Environment, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    done = glmpatch("verify", "--python", str(env.root), "--report", str(path))
    assert done.returncode == Exit.PROOF_FAILED
    assert f"report: {path}" in done.stderr
    assert "must be Tensor, not tuple" in path.read_text("utf-8")


def test_a_page_that_cannot_be_written_is_said_so_before_anything_runs(tmp_path: Path) -> None:
    done = glmpatch("verify", "--report", str(tmp_path / "nowhere" / "report.html"))
    assert done.returncode == Exit.USAGE
    assert "No such file or directory" in done.stderr
