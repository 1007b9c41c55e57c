"""A real browser without a screen, and what it drew."""

from __future__ import annotations

import html
import os
import shutil
import struct
import subprocess
import zlib
from collections import Counter
from pathlib import Path

from tests.support import cache


def screenshot(page: Path, picture: Path, width: int = 1000, height: int = 1400) -> None:
    """Draw a local page with headless Chromium, cut off from every network."""
    command = [
        *(_chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        # Any address but this file's leads nowhere.
        "--host-resolver-rules=MAP * ~NOTFOUND",
        *(f"--user-data-dir={picture.parent / 'profile'}", f"--window-size={width},{height}"),
        *(f"--screenshot={picture}", page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert picture.exists(), done.stderr


WRAPPER = """\
<!doctype html><body><iframe id="page" style="border: 0; width: {width}px; height: 900px"
srcdoc="{page}"></iframe><script>
const frame = document.getElementById("page");
frame.onload = () => {{
  const all = [...frame.contentDocument.querySelectorAll("body *")];
  const wide = all.filter(each => each.getBoundingClientRect().right > {width} + 1
    && !each.closest(".wide"));
  document.title = frame.contentDocument.documentElement.scrollWidth
    + " " + wide.map(each => each.tagName).join();
}};
</script></body>
"""
"""A window of the browser itself cannot be as narrow as a phone."""


def overflow(page: str, width: int, folder: Path) -> tuple[int, list[str]]:
    """How wide a page gets in a window of this width, in pixels, and the elements that stick out.

    What lies in an element of the class ``wide`` scrolls by itself.
    """
    wrapper = folder / f"wrapper-{width}.html"
    wrapper.write_text(WRAPPER.format(width=width, page=html.escape(page)), "utf-8")
    command = [
        *(_chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--virtual-time-budget=5000",
        *(f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000", wrapper.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    title = done.stdout.partition("<title>")[2].partition("</title>")[0]
    reached, _, names = title.partition(" ")
    assert reached.isdigit(), done.stdout[-2000:] + done.stderr
    return int(reached), [name for name in names.split(",") if name]


def _chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-headless-shell")
    if found is None:
        assert os.geteuid() == 0, "install chromium: a test looks at a page with it"
        cache.apt("chromium")
        found = shutil.which("chromium")
    assert found is not None
    return found


def colors(picture: Path) -> Counter[str]:
    """How many pixels of a PNG (8 bits, RGB or RGBA) have each colour, as #rrggbb."""
    data = picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    assert depth == 8
    assert kind in (2, 6)
    step = 3 if kind == 2 else 4
    pixels, at = b"", 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            pixels += data[at + 8 : at + 8 + length]
        at += 12 + length
    raw = zlib.decompress(pixels)
    stride = width * step
    above = bytearray(stride)
    found: Counter[str] = Counter()
    for row in range(height):
        start = row * (stride + 1)
        line = _unfilter(raw[start], bytearray(raw[start + 1 : start + 1 + stride]), above, step)
        found.update(line[i : i + 3].hex() for i in range(0, stride, step))
        above = line
    return Counter({f"#{color}": count for color, count in found.items()})


def _unfilter(kind: int, line: bytearray, above: bytearray, step: int) -> bytearray:
    """Undo the filter of one row (PNG specification, part 9)."""
    if kind == 0:
        return line
    for i in range(len(line)):
        left = line[i - step] if i >= step else 0
        up = above[i]
        corner = above[i - step] if i >= step else 0
        if kind == 1:
            guess = left
        elif kind == 2:
            guess = up
        elif kind == 3:
            guess = (left + up) // 2
        else:
            guess = min(
                (left, up, corner),
                key=lambda value: abs(left + up - corner - value),
            )
        line[i] = (line[i] + guess) & 255
    return line
