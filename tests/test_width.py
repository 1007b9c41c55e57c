"""Columns and line ends, where characters take two columns."""

from __future__ import annotations

import textwrap

import pytest

from glmpatch.width import columns, is_wide, padded, wrap

CHINESE = (
    "修复已安装的 vLLM（见 https://example.org/a/long/path）：只改一个文件，用数值证明；"
    "“no”则保持原样。升级 vLLM 0.9.0 之后不再需要（glmpatch revert 逐字节还原）。"
)


def test_a_chinese_character_takes_two_columns() -> None:
    assert [columns(text) for text in ("", "glm", "补丁", "glm 补丁，", "é", "e\u0301")] == [
        *(0, 3, 4, 10),
        *(1, 1),
    ]
    assert (is_wide("glm"), is_wide("größe"), is_wide("glm 补")) == (False, False, True)


def test_cells_of_a_column_are_equally_wide() -> None:
    cells = [padded(text, 12) for text in ("needed", "需要修复", "fixed（对）")]
    assert {columns(cell) for cell in cells} == {12}
    assert padded("需要", 6, right=True) == "  需要"
    assert padded("longer than that", 4) == "longer than that"


@pytest.mark.parametrize("width", range(8, 100))
def test_chinese_is_wrapped_between_characters_and_never_before_a_full_stop(width: int) -> None:
    lines = wrap(CHINESE, width)
    for line in lines:
        assert columns(line) <= max(width, columns("https://example.org/a/long/path）：")), line
        assert line == line.strip()
        assert line[0] not in "，。：；）", line
        assert line[-1] not in "（“", line
    # Nothing is lost but the blanks at line ends, and no word of Latin letters is cut.
    assert "".join("".join(lines).split()) == "".join(CHINESE.split())
    for word in ("vLLM", "https://example.org/a/long/path", "0.9.0", "glmpatch", "revert"):
        assert any(word in line for line in lines)
    if width > 40:
        assert max(map(columns, lines)) > width - 12  # lines are filled


def test_line_ends_of_the_source_leave_no_blank_between_chinese_characters() -> None:
    assert wrap("修复\n已安装的\nvLLM 文件", 80) == ["修复已安装的 vLLM 文件"]


@pytest.mark.parametrize("width", [10, 40, 68])
def test_other_texts_are_wrapped_as_ever(width: int) -> None:
    text = "Repairs the installed vLLM, byte-for-byte; see https://example.org/a/very/long/path/x."
    assert wrap(text, width) == textwrap.wrap(
        text, width, break_long_words=False, break_on_hyphens=False
    )
