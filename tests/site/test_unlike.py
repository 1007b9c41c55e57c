"""A proof by answers vouches for what it asks: a file that differs elsewhere stays unproven."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from glmpatch.actions import apply as applying
from glmpatch.actions import verify as verifying
from glmpatch.actions.candidates import AS_IT_STANDS, PLANNED
from glmpatch.actions.outcome import Outcome
from glmpatch.errors import Exit, Failure
from glmpatch.patch import Answers, Patch, PatchState
from glmpatch.proof.driver import Candidate
from glmpatch.site.examination import Examination
from glmpatch.site.examine import examine
from glmpatch.site.target import Target, find_target
from glmpatch.words import Words
from tests.site.conftest import make
from tests.support import toy
from tests.support.site import Site
from tests.support.toy import PATCH, RELEASED, REPAIRED


def asking(*names: str) -> Patch:
    """The patch with a proof by answers, which is about these definitions."""
    return replace(PATCH, proof=Answers("toy", "a toy", "toy.questions", asks=names))


ASKED = asking("Toy.forw*")
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


HIDDEN = {
    "a loop over its name": "    for forward in (forward,):\n        Base.add = None\n",
    "two names for it": "    forward = add = forward\n",
    "a call in a default": "    def forward(self, hidden, residual=setattr(Base, 'add', 1)):\n"
    "        return hidden + residual\n",
    "a name bound in a default": "    def forward(self, hidden, residual=(add := 1)):\n"
    "        return hidden + residual\n",
    "a decorator": "    @Base.register\n    def forward(self, hidden, residual):\n"
    "        return hidden + residual\n",
    "a call that gives it a value": "    forward = setattr(Base, 'add', 1)\n",
    "a condition": "    if True:\n        def add(self):\n            return 1\n",
    "a hook of Python": "    def __getattribute__(self, name):\n        return 1\n",
}
WIDE = asking("Toy.*", "imports", "forw*")


@pytest.mark.parametrize("text", HIDDEN.values(), ids=HIDDEN)
def test_what_happens_where_a_definition_stands_is_asked_by_nobody(
    tree: Site, target: Target, text: str
) -> None:
    tree.model.write_bytes(REPAIRED + text.encode())
    (found,) = examine(target, WIDE).unasked
    assert found.startswith("Toy.")
    assert examine(target, WIDE).state is PatchState.UNPROVEN


def test_what_is_imported_is_asked_only_where_it_is_of_some_release(
    tree: Site, target: Target
) -> None:
    """Another class under the old name is the base then, and what it inherits is never asked."""
    tree.model.write_bytes(REPAIRED.replace(b"import Base", b"import Other as Base"))
    assert examine(target, WIDE).unasked == ("imports line 2",)


def test_another_order_is_a_difference(tree: Site, target: Target) -> None:
    """Of what is run where it stands; the same functions in another order are the same."""
    first, last = b"\nfrom base import Base\n", b"LAYERS = 2\n"
    known = make(tree.root.parent / "next", REPAIRED, "0.8.5")
    other = find_target(path=str(known.root))
    known.model.write_bytes(toy.NEXT.replace(first, b"\n").replace(last, last + first[1:]))
    found = examine(other, WIDE)
    assert found.state is PatchState.UNPROVEN
    assert found.unasked == found.differs == ("LAYERS line 4 (in another place)",)
    assert found.line == 4


@pytest.mark.parametrize("source", [RELEASED, REPAIRED], ids=["needed", "right"])
def test_a_file_beside_that_is_not_as_released_is_asked_only_in_part(
    tree: Site, target: Target, source: bytes
) -> None:
    tree.model.write_bytes(source)
    (tree.root / toy.BESIDE).write_bytes(toy.NEIGHBOUR + b"SPEED = 3\n")
    before = tree.tree()
    assert look(target).unasked == (toy.BESIDE,)
    assert apply(target).failures[0].code is Exit.DRIFT
    words = Words(target=target)
    assert verifying.to_verify(target, [ASKED], words, named=True).unasked is not None
    assert tree.tree() == before


def test_numbers_go_through_the_file_beside_too(tree: Site, target: Target) -> None:
    tree.model.write_bytes(REPAIRED)
    (tree.root / toy.BESIDE).write_bytes(toy.NEIGHBOUR + b"SPEED = 3\n")
    words = Words(target=target)
    right = toy.prover(lambda candidate: candidate.name == AS_IT_STANDS)
    done = applying.apply(target, [PATCH], words, named=True, prove=right)
    assert done.end() is Exit.OK
    assert examine(target, PATCH).proven


def test_a_mend_may_put_right_what_nothing_asks(tree: Site, target: Target) -> None:
    """Then answers vouch for the mended file, and for the one as it stands they do not."""
    asked = asking("SPEED")
    tree.model.write_bytes(RELEASED + ELSEWHERE)
    found = examine(target, asked)
    assert (found.unasked, found.unasked_now) == ((), ("Toy.forward line 6",))
    names = []

    def right(candidate: Candidate) -> bool:
        names.append(candidate.name)
        return True

    words = Words(target=target)
    done = applying.apply(target, [asked], words, named=True, prove=toy.prover(right))
    assert done.end() is Exit.OK
    assert names == [PLANNED]
    assert tree.model.read_bytes() == REPAIRED + ELSEWHERE
    assert examine(target, asked).proven


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
