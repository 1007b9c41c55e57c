"""The lines of our files in RECORD: in front, and gone again without a trace."""

from __future__ import annotations

import hashlib

import pytest

from glmpatch.site.record import released, with_files, without_files

RECORDS = (b"", b"a,,", b"a,,\n", b"a,,\r\nb,,", b"glmpatch-x,,\n", b"\n\n", b"glm2,,\nglm\n")


@pytest.mark.parametrize("record", RECORDS)
def test_files_are_listed_in_front_and_forgotten_again(record: bytes) -> None:
    listed = with_files(record, {"glm": b"data"})
    end = b"\r\n" if b"\r\n" in record else b"\n"
    assert listed == b"glm,sha256=Om6weQ85rIfJTzhWst0sXREOaBFgImGpqSPTuyOtyLc,4" + end + record
    assert with_files(listed, {"glm": b"data"}) == listed
    assert without_files(listed, ["glm"]) == record


@pytest.mark.parametrize(
    ("line", "digest"),
    [
        (b"a.py,sha256=Om6weQ85rIfJTzhWst0sXREOaBFgImGpqSPTuyOtyLc,4\n", b"data"),
        (b"a.py,,\n", None),
        (b"a.py,sha256=%%%,4\n", None),
        (b"b/a.py,sha256=Om6weQ85rIfJTzhWst0sXREOaBFgImGpqSPTuyOtyLc,4\n", None),
        (b"", None),
    ],
)
def test_the_released_hash_of_a_file(line: bytes, digest: bytes | None) -> None:
    wanted = hashlib.sha256(digest).hexdigest() if digest is not None else ""
    assert released(line, "a.py") == wanted
