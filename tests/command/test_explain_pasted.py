"""``explain`` of what people paste and pipe: quotes of every kind, UTF-16, logs of any length."""

from __future__ import annotations

import codecs
import io
import subprocess
import sys

import pytest

from glmpatch.catalogue import load_patches
from glmpatch.command import pasted
from glmpatch.symptoms import search

PATCHES = load_patches()
ERROR = "TypeError: linear(): argument 'input' (position 1) must be Tensor, not tuple"
SCALE = "KeyError: 'layers.0.self_attn.qkv_proj.k_scale'"


def piped(data: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "glmpatch", "explain", "-"], input=data, capture_output=True
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("\u2018", "\u2019"),
        ("\u201c", "\u201d"),
        ("\uff07", "\uff07"),
        ("\uff02", "\uff02"),
        ("\u300c", "\u300d"),
        ("\\u0027", "\\u0027"),
        ("&#39;", "&#39;"),
        ("&#x27;", "&#x27;"),
        ("&quot;", "&quot;"),
        ('\\"', '\\"'),
        ("\u200b'", "'\u200b"),
        ("\ufeff'", "'\u2060"),
    ],
)
@pytest.mark.parametrize("error", [ERROR, SCALE])
def test_quotes_are_quotes(error: str, before: str, after: str) -> None:
    first, second = error.split("'")[0::2]
    text = f"{first}{before}{error.split(chr(39))[1]}{after}{second}"
    assert search(text, PATCHES)[0].sure


def test_what_has_no_width_is_nowhere() -> None:
    assert search("\u200b".join(ERROR), PATCHES)[0].sure
    assert search("every answer of GLM-4-0414 is !\u200b!!!", PATCHES)


def test_marks_of_a_page_are_what_they_mean() -> None:
    for text in ("&lt;think&gt; in content", "\\u003cthink\\u003e in content"):
        assert "glm4-moe-reasoning-parser" in [m.about.id for m in search(text, PATCHES)]


@pytest.mark.parametrize(
    "bom",
    [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE],
    ids=["utf-8", "utf-16-le", "utf-16-be"],
)
@pytest.mark.parametrize("between", [0, 99, 100])
def test_a_log_is_read_in_its_encoding(bom: bytes, between: int) -> None:
    """PowerShell's ``>`` writes UTF-16; the end of a long one begins at a whole character."""
    encoding = pasted.BOMS[bom]
    said = f"beginn\u00fcng {between * '-'} the \u00e4nd"
    text, left_out = pasted.read(io.BytesIO(bom + said.encode(encoding)), kept=40)
    assert text.startswith("\ufeffbeginn\u00fcng")
    assert text.endswith("the \u00e4nd")
    assert (left_out > 0) is (between > 0)


def test_a_log_of_powershell_is_explained() -> None:
    done = piped(codecs.BOM_UTF16_LE + f"INFO\r\n{ERROR}\r\n".encode("utf-16-le"))
    assert b"glm4-residual: " in done.stdout
    assert b"first and last" not in done.stderr


class Piecemeal(io.BytesIO):
    """Nobody asks for all of it at once."""

    def read(self, size: int | None = -1) -> bytes:
        assert size == 40
        return super().read(size)


@pytest.mark.parametrize("size", [0, 1, 79, 80, 81, 161, 1001])
def test_no_more_is_kept_of_a_log_than_its_beginning_and_its_end(size: int) -> None:
    text, left_out = pasted.read(Piecemeal(size * b"x"), kept=40)
    assert len(text.replace("\n", "")) + left_out == size
    assert len(text) <= 81
    assert (left_out > 0) is (size > 80)


@pytest.mark.parametrize("at", ["beginning", "middle", "end"])
def test_a_long_log_is_read_at_both_ends(at: str) -> None:
    filler = b"INFO all is well\n" * (5 * pasted.MEGABYTE // 17)
    error = f"{ERROR}\n".encode()
    parts = {
        "beginning": error + 2 * filler,
        "middle": filler + error + filler,
        "end": 2 * filler + error,
    }
    done = piped(parts[at])
    assert b"a long log: only its first and last 4 MB were read" in done.stderr
    assert (b"glm4-residual: " in done.stdout) is (at != "middle")
