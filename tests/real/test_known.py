"""The tables of known files, made anew from the released wheels."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from glmpatch.catalogue import load_patches
from glmpatch.patch import Patch
from glmpatch.source import form
from tests import known
from tests.known import Release
from tests.support.program import program

pytestmark = pytest.mark.real
each_patch = pytest.mark.parametrize("patch", load_patches(), ids=lambda each: each.id)


@pytest.fixture(scope="module")
def every() -> Sequence[Release]:
    return known.released()


@each_patch
def test_the_table_is_what_it_would_be_made(patch: Patch, every: Sequence[Release]) -> None:
    made = known.make(patch, every)
    text = known.path(patch).read_text("utf-8")
    assert json.loads(text) == made, f"python -m tests.known {patch.id} writes it"
    assert text == known.written(made), "the layout"


@each_patch
def test_a_right_file_is_one_program_wherever_it_has_one_form(
    patch: Patch, every: Sequence[Release]
) -> None:
    """The second judge on the files themselves, released and repaired."""
    programs: dict[str, object] = {}
    seen: set[bytes] = set()
    for name, read in every:
        data = read(patch.path(name)) if patch.covers(name) else None
        if data is not None and data not in seen:
            seen.add(data)
            digest, compiled = form.read(data).digest, program(data)
            assert compiled is not None
            assert programs.setdefault(digest, compiled) == compiled, name
    assert programs
