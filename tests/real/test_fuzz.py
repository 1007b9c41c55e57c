"""Fuzz on the released files: layout never matters, and no other program is ever known.

``GLMPATCH_FUZZ=10000`` sets how many hostile edits are tried, and a quarter as many neutral ones.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable

import pytest

from glmpatch.patch import Patch, PatchState
from glmpatch.patches.glm4_residual.patch import PATCH as GLM4
from glmpatch.patches.glm_rope.patch import PATCH as GLM
from glmpatch.source import form
from glmpatch.source.plan import STUMBLED
from tests.support import mutate, releases
from tests.support.judge import judge, right_forms
from tests.support.program import program
from tests.support.releases import read

pytestmark = pytest.mark.real

RELEASE = "0.8.4"
CASES = int(os.environ.get("GLMPATCH_FUZZ", "400"))
FILES = {"glm4": (GLM4, 3), "glm": (GLM, 1)}
"""A patch, and its share of the cases."""

each_file = pytest.mark.parametrize(("patch", "share"), FILES.values(), ids=FILES)


def sources(patch: Patch) -> tuple[str, str]:
    """The released file and the repaired one."""
    released = read(RELEASE, patch.path(RELEASE))
    assert released is not None
    known = judge(patch, released, RELEASE).known
    assert known is not None
    return released.decode(), known.decode()


@each_file
def test_layout_and_unrelated_statements_are_known_or_unproven(patch: Patch, share: int) -> None:
    dice = random.Random(7)
    right, states = program(sources(patch)[1].encode()), Counter[str]()
    for number in range(CASES // 4 * share // 4):
        source = dice.choice(sources(patch))
        more = number % 2
        edited = mutate.neutral(mutate.unrelated(source, dice) if more else source, dice)
        found = judge(patch, edited.encode(), RELEASE)
        states[found.state.value] += 1
        assert found.state is not PatchState.DRIFTED, edited
        assert (found.state is PatchState.UNPROVEN) == bool(more), edited
        assert found.known is None or program(found.known) == right
    assert set(states) == {"needed", "fixed", "unproven"}


@each_file
def test_no_other_program_is_known(
    patch: Patch, share: int, record_property: Callable[[str, object], None]
) -> None:
    dice = random.Random(8)
    both = sources(patch)
    programs = {program(source.encode()) for source in both}
    right, states = program(both[1].encode()), Counter[str]()
    for _ in range(CASES * share // 4):
        edited = mutate.hostile(dice.choice(both), dice).encode()
        found = judge(patch, edited, RELEASE)
        if found.plan is not None:
            assert not any(STUMBLED in finding.reason for finding in found.plan.findings), edited
        if found.known is not None:
            assert program(found.known) == right, edited
        same = found.known is not None and program(edited) in programs
        states["the same program" if same else found.state.value] += 1
    tried = f"hostile edits of {patch.path(RELEASE)}: {dict(states)}"
    record_property("cases", (tried, states.total()))
    assert states["unproven"] > states.total() // 10, "the edits are not hostile"


def test_no_released_file_has_the_form_of_another_program() -> None:
    """The two judges agree on every file of a release that a patch is about, or counts on."""
    for patch, _ in FILES.values():
        known: dict[str, object] = {}
        for name in releases.names():
            data = read(name, patch.path(RELEASE))
            if data is not None and (compiled := program(data)) is not None:
                digest = form.read(data).digest
                assert known.setdefault(digest, compiled) == compiled, name
        assert not right_forms(patch, RELEASE) & known.keys()
