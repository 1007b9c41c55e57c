"""The web page of a verification: drawn by a real browser, without a network."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from glmpatch.proof.driver import Result, Statistic, Throughput
from glmpatch.proof.page import page
from glmpatch.proof.plot import LEGEND
from tests.proof.made import ANSWERED, CRASH, GOOD, PROOF, series
from tests.support import pseudo
from tests.support.browser import colors, overflow, screenshot

BAD = replace(
    GOOD,
    passed=False,
    statistics=(Statistic("worst difference", 8.9, 2e-4),),
    series=series(4.0),
    mode="compiled",
)
BOTH = replace(PROOF, results=(GOOD, BAD))


@pytest.mark.real
def test_the_plots_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(BOTH, "vLLM 0.8.4 in /somewhere"), "utf-8")
    screenshot(path, tmp_path / "drawn.png")
    without = re.sub(r"<svg.*?</svg>", "", path.read_text("utf-8"), flags=re.DOTALL)
    path.write_text(without, "utf-8")
    screenshot(path, tmp_path / "without.png")
    drawn, rest = colors(tmp_path / "drawn.png"), colors(tmp_path / "without.png")
    # 103 dots of noise and 103 of vLLM in each of two plots, and a line across each.
    for name, pixels in (("noise", 500), ("vllm", 500), ("limit", 200)):
        assert drawn[LEGEND[name][0]] > rest[LEGEND[name][0]] + pixels, name


def test_the_page_holds_all_figures_and_nothing_from_elsewhere() -> None:
    crashed = replace(
        GOOD, file="released", crash=CRASH, statistics=(), passed=False, series=(), equal=None
    )
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
    for told in ("8.90", "2.0e-05", "2.0e-04", "4.5 x its limit", "103 of 103", "2,817", "61 s"):
        assert told in text, told
    assert text.count("<svg") == 3
    assert text.count("<circle") == 3 * 2 * 103


def test_every_result_of_every_kind_is_shown() -> None:
    """A page that says failed must say of what."""
    text = page(replace(PROOF, results=(GOOD, ANSWERED)), "vLLM")
    for told in ("another-patch", "dtype float16", "refused: does not support", "1 of 2 answers"):
        assert told in text, told
    alone = page(replace(PROOF, results=(ANSWERED,)), "vLLM")
    assert "dtype auto" in alone
    assert "Worst difference" not in alone


class Tags(HTMLParser):
    """What a screen reader goes by."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.inside: list[tuple[str, ...]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        self.inside.append(tuple(self.open))
        if tag not in ("meta", "path", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        self.inside.append(tuple(self.open))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} is closed, and another was open"


def test_a_screen_reader_is_told_what_each_table_and_picture_is() -> None:
    tags = Tags(page(replace(PROOF, results=(GOOD, BAD, ANSWERED)), "vLLM"))
    assert tags.open == []
    names = [tag for tag, _ in tags.seen]
    assert names.count("table") == names.count("caption") == 4
    assert all(attributes.get("scope") for tag, attributes in tags.seen if tag == "th")
    pictures = [tags.seen[i + 1][0] for i, name in enumerate(names) if name == "svg"]
    assert pictures == ["title", "title"]
    assert names.count("desc") == 2
    headings = [name for name in names if re.fullmatch("h[1-6]", name)]
    assert headings == ["h1", "h2", "h2", "h2"]
    assert ("html", {"lang": "en"}) in tags.seen


def test_nothing_is_wider_than_a_telephone() -> None:
    """Tables scroll by themselves, text breaks anywhere, and pictures take the width there is."""
    text = page(replace(PROOF, results=(GOOD, ANSWERED)), "vLLM")
    assert 'name="viewport" content="width=device-width' in text
    assert "overflow-wrap: anywhere" in text
    assert "svg { width: 100%" in text
    tags = Tags(text)
    for (name, _), inside in zip(tags.seen, tags.inside, strict=True):
        if name == "table":
            assert inside[-1] == "div"
    wide = [a for tag, a in tags.seen if tag == "div"]
    assert all((a["class"], a["role"], a["tabindex"]) == ("wide", "region", "0") for a in wide)
    assert "@media print" in text


def test_not_a_number_has_no_plot_and_breaks_nothing() -> None:
    lost = replace(
        GOOD,
        passed=False,
        statistics=(Statistic("worst difference", None, 2e-4),),
        series=(),
        equal=3,
    )
    text = page(replace(PROOF, results=(lost,)), "vLLM")
    assert "<svg" not in text
    assert "not finite" in text


def drawn(result: Result) -> int:
    return page(replace(PROOF, results=(result,)), "vLLM").count("<circle")


def test_exact_agreement_can_be_drawn() -> None:
    exact = replace(GOOD, line=0.0, series=([0.0] * 5,), noise_series=([0.0] * 5,))
    assert drawn(exact) == 10


@pytest.mark.real
@pytest.mark.parametrize("language", ["en", "zh_CN"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_sticks_out_on_a_phone_or_a_wide_screen(
    width: int, language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pseudo.speak_as(monkeypatch, language)
    results = (*BOTH.results, ANSWERED, replace(GOOD, crash=CRASH, passed=False))
    long = page(replace(BOTH, results=results), f"vLLM 0.8.4 in /{'very/' * 40}long")
    reached, outside = overflow(long, width, tmp_path)
    assert outside == []
    assert reached <= width
    # The test can fail: a table that does not scroll by itself is too wide for a phone.
    loose = long.replace('class="wide"', 'class="loose"')
    if (width, language) == (360, "en"):
        assert overflow(loose, width, tmp_path)[1] != []
