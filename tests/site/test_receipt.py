"""Receipts: of 0.1.0, of a glmpatch to come, of a proof; forged ones mean nothing."""

from __future__ import annotations

import json
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from glmpatch.actions import apply as action
from glmpatch.actions.candidates import AS_IT_STANDS, PLANNED
from glmpatch.actions.outcome import Outcome
from glmpatch.errors import Failure
from glmpatch.patch import PatchState
from glmpatch.proof.driver import Candidate
from glmpatch.site.examination import Examination
from glmpatch.site.examine import examine
from glmpatch.site.target import find_target
from glmpatch.source import sha256
from glmpatch.words import Words
from tests.support import toy
from tests.support.command import glmpatch, state
from tests.support.site import Site
from tests.support.toy import FILE, PATCH, RELEASED, REPAIRED

ODD = REPAIRED + b"SPEED = 3\n"
"""Right, and known to nobody."""
ODD_BROKEN = RELEASED + b"SPEED = 3\n"


def look(tree: Site) -> Examination:
    return examine(find_target(path=str(tree.root)), PATCH)


def prove(tree: Site, right: Callable[[Candidate], bool], full: bool = True) -> Outcome:
    """``apply --verify`` with a proof that says ``right``."""
    target = find_target(path=str(tree.root))
    return action.apply(
        target, [PATCH], Words(target=target), named=False, prove=toy.prover(right, full)
    )


def revert(tree: Site) -> None:
    assert glmpatch(tree, "revert").code == 0


# -- of glmpatch 0.1.0 --------------------------------------------------------------------------


@pytest.fixture
def old(tree: Site) -> Mapping[str, str]:
    """The tree as 0.1.0 left it, byte for byte in its own format; gives what it was before."""
    before = tree.tree()
    tree.receipts.mkdir(exist_ok=True)
    fields = {
        "schema": 1,
        "patch": PATCH.id,
        "file": FILE,
        "rewrites": ["add-up", "keep-sign"],
        "before": sha256(RELEASED),
        "after": sha256(REPAIRED),
        "vllm": "0.8.4",
        "glmpatch": "0.1.0",
        "time": "2026-05-01T10:00:00+00:00",
        "verification": None,
    }
    written = {
        tree.original: RELEASED,
        tree.receipt: (json.dumps(fields, indent=2) + "\n").encode(),
    }
    for path, data in written.items():
        path.write_bytes(data)
    if tree.version:
        from glmpatch.site.record import with_files

        listed = {f"{path.parent.name}/{path.name}": data for path, data in written.items()}
        tree.record.write_bytes(with_files(tree.record.read_bytes(), listed))
    tree.model.write_bytes(REPAIRED)
    return before


def test_a_receipt_of_the_first_version_is_read(tree: Site, old: Mapping[str, str]) -> None:
    receipt = look(tree).receipt
    assert receipt is not None
    assert (receipt.glmpatch, receipt.full, dict(receipt.neighbours)) == ("0.1.0", False, {})
    assert state(tree) == "applied"
    after = tree.tree()
    assert glmpatch(tree, "apply").code == 0
    assert tree.tree() == after


def test_a_receipt_of_the_first_version_is_reverted(tree: Site, old: Mapping[str, str]) -> None:
    revert(tree)
    assert tree.tree() == old


def test_it_vouches_for_no_other_file(tree: Site, old: Mapping[str, str]) -> None:
    tree.model.write_bytes(ODD)
    assert look(tree).state is PatchState.UNPROVEN


# -- that this glmpatch does not understand -----------------------------------------------------


def _change(**fields: Any) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps({**json.loads(data), **fields}).encode()


def _without(name: str) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps(
        {key: value for key, value in json.loads(data).items() if key != name}
    ).encode()


STRANGE: Mapping[str, Callable[[bytes], bytes]] = {
    "a schema to come": _change(schema=3),
    "a schema that is no number": _change(schema="2"),
    "a schema that is true": _change(schema=True),
    "no schema": _without("schema"),
    "a field more": _change(surprise=1),
    "a field less": _without("vllm"),
    "fields of the second schema in the first": _change(schema=1),
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "a list": lambda _: b"[]",
    "deeply nested": lambda _: b"[" * 100_000,
    "binary": lambda _: bytes(range(256)),
    "huge": lambda data: data + b" " * 2_000_000,
    "of another patch": _change(patch="other\x1b[2J"),
    "of another file": _change(file="../../../etc/passwd\n"),
    "hashes of no form": _change(before="x", after="y"),
    "hashes that are numbers": _change(before=1, after=2),
    "control characters": _change(time="\x1b[2J", glmpatch="\x1b]0;x\x07"),
    "a verification of another type": _change(verification="yes"),
    "versions of another type": _change(vllm=["0.8.4"]),
    "rewrites of another type": _change(rewrites=[1, None]),
    "rewrites that are a number": _change(rewrites=1),
    "neighbours of another type": _change(neighbours=[1]),
    "neighbours with numbers": _change(neighbours={"a": 1}),
    "full of another type": _change(full="yes"),
}


@pytest.mark.parametrize("spoil", STRANGE.values(), ids=STRANGE)
def test_a_receipt_that_is_not_understood_stops_every_command(
    tree: Site, spoil: Callable[[bytes], bytes]
) -> None:
    assert glmpatch(tree, "apply").code == 0
    written = tree.receipt.read_bytes()
    tree.receipt.write_bytes(spoil(written))
    before = tree.tree()
    for arguments in (
        ("status",),
        ("status", "--check"),
        ("diff",),
        ("apply",),
        ("apply", "--dry-run"),
        ("revert",),
        ("revert", "--force"),
    ):
        run = glmpatch(tree, *arguments)
        assert run.code == 5, (arguments, run.output)
        assert str(tree.receipt) in run.output
        assert str(tree.original) in run.output
        assert "nothing to take back" not in run.output
        assert "nothing was changed" in run.output
        assert "hint:" in run.output
        assert not {"\x1b", "\x07"} & set(run.output)
        assert tree.tree() == before, arguments
    # The way out that the hint names.
    tree.receipt.unlink()
    assert state(tree) == "fixed"
    run = glmpatch(tree, "revert")
    assert run.code == 5, run.output
    assert "the receipt beside it is gone" in run.output
    (hint,) = (
        line for line in run.output.splitlines() if line.startswith("hint: put the original back")
    )
    assert tree.original.exists()
    subprocess.run(hint.partition(" with ")[2], shell=True, check=True)
    assert state(tree) == "needed"
    assert glmpatch(tree, "revert").code == 0
    assert glmpatch(tree, "apply").code == 0
    tree.receipt.write_bytes(written)
    revert(tree)


def test_a_file_that_was_edited_after_its_repair_is_still_taken_back_to_the_released_one(
    tree: Site,
) -> None:
    before = tree.tree()
    edited = REPAIRED.replace(b"return total", b"return -total")
    for lost in (False, True):
        assert glmpatch(tree, "apply").code == 0
        tree.model.write_bytes(edited)
        if lost:
            tree.receipt.unlink()
        again = glmpatch(tree, "apply", "--python", sys.executable)
        assert again.code == 0, again.output
        assert "hint: the file was reinstalled" not in again.output
        assert tree.model.read_bytes() == REPAIRED
        assert tree.original.read_bytes() == RELEASED
        revert(tree)
        assert tree.tree() == before


@pytest.mark.parametrize("receipt", [True, False], ids=["receipt", "no receipt"])
def test_the_original_of_a_file_that_is_gone_is_named(tree: Site, receipt: bool) -> None:
    assert glmpatch(tree, "apply").code == 0
    tree.model.unlink()
    if not receipt:
        tree.receipt.unlink()
    assert "revert" not in glmpatch(tree, "status").output
    run = glmpatch(tree, "revert")
    assert run.code == 5, run.output
    (hint,) = (line for line in run.output.splitlines() if line.startswith("hint: put the orig"))
    subprocess.run(hint.partition(" with ")[2], shell=True, check=True)
    assert tree.model.read_bytes() == RELEASED
    assert glmpatch(tree, "apply").code == 0
    revert(tree)


def test_something_else_in_its_place_is_no_receipt_either(tree: Site) -> None:
    assert glmpatch(tree, "apply").code == 0
    tree.receipt.unlink()
    tree.receipt.symlink_to(tree.original)
    run = glmpatch(tree, "revert")
    assert run.code == 5
    assert str(tree.receipt) in run.output


# -- of a proof ---------------------------------------------------------------------------------


def test_a_full_proof_makes_an_unknown_file_fixed(tree: Site) -> None:
    tree.model.write_bytes(ODD)
    before = tree.tree()
    assert look(tree).state is PatchState.UNPROVEN
    assert glmpatch(tree, "status", "--check").code == 5
    assert glmpatch(tree, "apply").code == 5
    assert tree.tree() == before
    outcome = prove(tree, lambda candidate: candidate.name == AS_IT_STANDS)
    assert outcome.end() == 0
    assert not any(step.changed for step in outcome.steps)
    assert tree.model.read_bytes() == ODD
    assert not tree.original.exists()
    found = look(tree)
    assert (found.state, found.proven, found.problem) == (PatchState.FIXED, True, "")
    assert glmpatch(tree, "status", "--check").code == 0
    assert "proven" in glmpatch(tree, "status").output
    after = tree.tree()
    assert glmpatch(tree, "apply").code == 0
    assert tree.tree() == after
    revert(tree)
    assert tree.tree() == before
    assert look(tree).state is PatchState.UNPROVEN


def test_what_is_proven_is_the_file_and_no_old_bytecode_runs_in_its_place(tree: Site) -> None:
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compiled = py_compile.compile(str(tree.model), doraise=True, invalidation_mode=mode)
    assert compiled is not None
    tree.model.write_bytes(ODD)
    measured = []

    def passes(candidate: Candidate) -> bool:
        measured.append(candidate.source)
        return candidate.name == AS_IT_STANDS

    assert prove(tree, passes).end() == 0
    assert measured[0] == ODD
    assert not os.path.lexists(compiled)
    assert look(tree).state is PatchState.FIXED


def test_a_proof_that_was_narrowed_writes_no_receipt(tree: Site) -> None:
    tree.model.write_bytes(ODD)
    before = tree.tree()
    assert prove(tree, lambda _: True, full=False).end() == 0
    assert tree.tree() == before


def test_right_as_it_stands_is_left_alone_though_it_could_be_mended(tree: Site) -> None:
    tree.model.write_bytes(ODD_BROKEN)
    assert prove(tree, lambda _: True).end() == 0
    assert tree.model.read_bytes() == ODD_BROKEN
    assert look(tree).state is PatchState.FIXED


def test_a_file_that_is_right_when_mended_is_mended(tree: Site) -> None:
    tree.model.write_bytes(ODD_BROKEN)
    before = tree.tree()
    assert prove(tree, lambda candidate: candidate.name == PLANNED).end() == 0
    assert tree.model.read_bytes() == ODD
    found = look(tree)
    assert (found.state, found.proven) == (PatchState.APPLIED, True)
    revert(tree)
    assert tree.tree() == before


def test_neither_right_is_a_failed_proof_and_nothing_is_written(tree: Site) -> None:
    tree.model.write_bytes(ODD_BROKEN)
    before = tree.tree()
    with pytest.raises(Failure) as caught:
        prove(tree, lambda _: False).end()
    assert caught.value.code == 6
    assert tree.tree() == before


def _edit(tree: Site) -> None:
    tree.model.write_bytes(ODD + b"# mine\n")


def _other_neighbour(tree: Site) -> None:
    (tree.root / toy.BESIDE).write_bytes(toy.NEIGHBOUR + b"# mine\n")


def _no_neighbour(tree: Site) -> None:
    (tree.root / toy.BESIDE).unlink()


def _other_vllm(tree: Site) -> None:
    if tree.version:
        (tree.dist_info / "METADATA").write_text("Name: vllm\nVersion: 0.8.5\n")
    else:
        (tree.root / "vllm" / "_version.py").write_text("version = '0.8.5'\n")


def _other(name: str) -> Callable[[Site], None]:
    def change(tree: Site) -> None:
        (info,) = tree.root.glob(f"{name}-*.dist-info")
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 9.0\n")

    return change


def _gone(name: str) -> Callable[[Site], None]:
    def change(tree: Site) -> None:
        (info,) = tree.root.glob(f"{name}-*.dist-info")
        shutil.rmtree(info)

    return change


CHANGES: Mapping[str, Callable[[Site], None]] = {
    "the file": _edit,
    "its neighbour": _other_neighbour,
    "no neighbour": _no_neighbour,
    "vLLM's version": _other_vllm,
    "torch's version": _other("torch"),
    "torch gone": _gone("torch"),
    "transformers' version": _other("transformers"),
    "transformers gone": _gone("transformers"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("mended", [False, True], ids=["as it stands", "mended"])
def test_a_proof_holds_until_one_of_what_was_measured_changes(
    tree: Site, change: Callable[[Site], None], mended: bool
) -> None:
    tree.model.write_bytes(ODD_BROKEN if mended else ODD)
    wanted = PLANNED if mended else AS_IT_STANDS
    assert prove(tree, lambda candidate: candidate.name == wanted).end() == 0
    assert look(tree).proven
    change(tree)
    found = look(tree)
    assert (found.state, found.proven) == (PatchState.UNPROVEN, False)
    assert glmpatch(tree, "apply").code == 5


@pytest.mark.parametrize("version", ["2.6.0", "2.6.0+cpu"])
def test_another_build_of_the_same_version_is_the_same(tree: Site, version: str) -> None:
    tree.model.write_bytes(ODD)
    assert prove(tree, lambda _: True).end() == 0
    (info,) = tree.root.glob("torch-*.dist-info")
    (info / "METADATA").write_text(f"Name: torch\nVersion: {version}\n")
    assert look(tree).proven


def test_a_file_of_ours_that_is_proven_anew_can_still_be_taken_back(tree: Site) -> None:
    tree.model.write_bytes(ODD_BROKEN)
    before = tree.tree()
    assert prove(tree, lambda candidate: candidate.name == PLANNED).end() == 0
    (tree.root / toy.BESIDE).write_bytes(toy.NEIGHBOUR + b"VERSION = 2\n")
    assert look(tree).state is PatchState.UNPROVEN
    assert prove(tree, lambda _: True).end() == 0
    found = look(tree)
    assert (found.state, found.proven) == (PatchState.APPLIED, True)
    (tree.root / toy.BESIDE).write_bytes(toy.NEIGHBOUR)
    revert(tree)
    assert tree.tree() == before


HALF = RELEASED.replace(b"-total", b"total")


def leave_half(tree: Site) -> None:
    """As an older glmpatch would have, which knew one defect less."""
    fields = json.loads(tree.receipt.read_text())
    fields |= {"after": sha256(HALF), "rewrites": ["keep-sign"]}
    tree.receipt.write_text(json.dumps(fields))
    tree.model.write_bytes(HALF)


def test_a_file_of_ours_that_is_mended_further_can_still_be_taken_back(
    tree: Site, old: Mapping[str, str]
) -> None:
    leave_half(tree)
    assert prove(tree, lambda candidate: candidate.name == PLANNED).end() == 0
    receipt = look(tree).receipt
    assert receipt is not None
    assert (receipt.before, receipt.after) == (sha256(RELEASED), sha256(REPAIRED))
    assert receipt.rewrites == ("keep-sign", "add-up")
    assert state(tree) == "applied"
    assert tree.original.read_bytes() == RELEASED
    revert(tree)
    assert tree.tree() == old


def test_an_original_that_is_gone_is_the_file_as_it_was_mended_further(
    tree: Site, old: Mapping[str, str]
) -> None:
    leave_half(tree)
    tree.original.write_bytes(b"another file")
    assert prove(tree, lambda candidate: candidate.name == PLANNED).end() == 0
    revert(tree)
    assert tree.model.read_bytes() == HALF


def test_the_original_of_a_file_that_was_edited_and_then_proven_stays(tree: Site) -> None:
    assert glmpatch(tree, "apply").code == 0
    tree.model.write_bytes(ODD)
    assert prove(tree, lambda _: True).end() == 0
    revert(tree)
    assert tree.model.read_bytes() == ODD
    assert tree.original.read_bytes() == RELEASED, "the only way back"
    assert not tree.receipt.exists()
    if tree.version:
        record = tree.record.read_text()
        assert tree.original.name in record
        assert tree.receipt.name not in record


def test_a_forged_receipt_for_another_file_means_nothing(tree: Site) -> None:
    """Nor does a true one that came from another environment."""
    tree.model.write_bytes(ODD)
    assert prove(tree, lambda _: True).end() == 0
    receipt = json.loads(tree.receipt.read_bytes())
    for data, wanted in (
        (RELEASED, PatchState.NEEDED),
        (ODD_BROKEN, PatchState.UNPROVEN),
        (b"x = 1\n", PatchState.DRIFTED),
        (REPAIRED, PatchState.FIXED),
    ):
        tree.model.write_bytes(data)
        found = look(tree)
        assert (found.state, found.proven, found.stale_receipt) == (wanted, False, True)
    # Swapped or equal hashes of a file with a known defect make it no better.
    tree.model.write_bytes(RELEASED)
    for before, after in (
        (sha256(REPAIRED), sha256(RELEASED)),
        (sha256(RELEASED), sha256(RELEASED)),
    ):
        tree.receipt.write_text(json.dumps({**receipt, "before": before, "after": after}))
        assert look(tree).state is PatchState.NEEDED
        assert glmpatch(tree, "status", "--check").code == 1


def test_a_receipt_without_a_full_proof_vouches_for_nothing(tree: Site) -> None:
    tree.model.write_bytes(ODD)
    assert prove(tree, lambda _: True).end() == 0
    receipt = json.loads(tree.receipt.read_bytes())
    spoilt: list[dict[str, object]] = [
        {"full": False},
        {"verification": None},
        {"verification": {}},
    ]
    for fields in spoilt:
        tree.receipt.write_text(json.dumps({**receipt, **fields}))
        assert look(tree).state is PatchState.UNPROVEN, fields
