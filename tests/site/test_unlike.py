"""A proof by answers vouches for what it asks: a file that differs elsewhere stays unproven."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from glmpatch.actions import apply as applying
from glmpatch.actions import verify as verifying
from glmpatch.actions.outcome import Outcome
from glmpatch.errors import Exit, Failure
from glmpatch.patch import Answers, PatchState
from glmpatch.site.examination import Examination
from glmpatch.site.examine import examine
from glmpatch.site.target import Target, find_target
from glmpatch.words import Words
from tests.site.conftest import make
from tests.support import toy
from tests.support.site import Site
from tests.support.toy import PATCH, RELEASED, REPAIRED

ASKED = replace(PATCH, proof=Answers("toy", "a toy", "toy.questions", asks=("Toy.forw*",)))
ELSEWHERE = b"SPEED = 3\n"
WITHIN = (b"return", b"print(1)\n        return")
"""A change of what is asked."""
WRONG = RELEASED.replace(b"hidden - residual", b"hidden * residual")


def apply(target: Target, any_version: bool = False) -> Outcome:
    """``apply --verify``, with a proof that finds everything right."""
    return applying.apply(
        target,
        [ASKED],
        Words(target=target),
        named=True,
        prove=toy.prover(lambda candidate: True),
        any_version=any_version,
    )


def look(target: Target, any_version: bool = False) -> Examination:
    return examine(target, ASKED, any_version)


@pytest.mark.parametrize("source", [RELEASED, REPAIRED, WRONG], ids=["needed", "right", "drifted"])
def test_no_answer_vouches_for_what_was_not_asked(
    tree: Site, target: Target, source: bytes
) -> None:
    tree.model.write_bytes(source + ELSEWHERE)
    before = tree.tree()
    assert look(target).unasked == ("SPEED line 9",)
    outcome = apply(target)
    with pytest.raises(Failure, match="its proof asks nothing of SPEED line 9") as caught:
        outcome.end()
    assert caught.value.code is Exit.DRIFT
    assert "glmpatch diff toy-sum" in caught.value.hint
    assert "--verify" not in caught.value.hint, "which would not help"
    assert tree.tree() == before


@pytest.mark.parametrize("source", [RELEASED, REPAIRED], ids=["needed", "right"])
def test_a_difference_in_what_is_asked_is_proven(tree: Site, target: Target, source: bytes) -> None:
    tree.model.write_bytes(source.replace(*WITHIN))
    assert look(target).state is PatchState.UNPROVEN
    assert look(target).unasked == ()
    assert apply(target).end() is Exit.OK
    assert look(target).proven


def test_what_is_missing_was_not_asked_either(tree: Site, target: Target) -> None:
    tree.model.write_bytes(
        RELEASED.replace(b"from base import Base\n", b"").replace(b"(Base)", b"")
    )
    assert look(target).unasked == ("Toy line 4", "imports is missing")


def test_numbers_go_through_the_whole_file(tree: Site, target: Target) -> None:
    tree.model.write_bytes(REPAIRED + ELSEWHERE)
    assert examine(target, PATCH).unasked == ()


def test_verify_ends_with_5_though_all_that_was_asked_is_right(tree: Site, target: Target) -> None:
    words = Words(target=target)
    tree.model.write_bytes(REPAIRED + ELSEWHERE)
    asked = verifying.to_verify(target, [ASKED], words, named=True)
    assert [each.patch for each in asked.candidates] == [ASKED.id]
    assert asked.unasked is not None
    assert asked.unasked.code is Exit.DRIFT
    assert "SPEED line 9" in asked.unasked.message
    tree.model.write_bytes(REPAIRED)
    assert verifying.to_verify(target, [ASKED], words, named=True).unasked is None


def test_a_receipt_of_a_proof_does_not_vouch_for_it(tree: Site, target: Target) -> None:
    tree.model.write_bytes(REPAIRED + ELSEWHERE)
    applying.apply(
        target,
        [PATCH],
        Words(target=target),
        named=True,
        prove=toy.prover(lambda candidate: True),
    )
    assert examine(target, PATCH).proven
    assert look(target).state is PatchState.UNPROVEN


@pytest.mark.parametrize("version", ["0.8.9", "0.12.0"])
def test_a_release_that_is_not_known_is_taken_as_it_was_released(
    tmp_path: Path, version: str
) -> None:
    """Which RECORD tells; of any other file of such a release nothing is known."""
    tree = make(tmp_path / "site", RELEASED + ELSEWHERE, version)
    target = find_target(path=str(tree.root))
    assert look(target, any_version=True).state is PatchState.UNPROVEN
    assert look(target, any_version=True).unasked == ()
    tree.model.write_bytes(RELEASED + ELSEWHERE + ELSEWHERE)
    assert look(target, any_version=True).unasked == ("SPEED line 9",)
