"""What the install step promises where nothing goes wrong; ``real/install`` has where it does."""

from __future__ import annotations

import importlib.util
from datetime import datetime

import pytest

from glmpatch.errors import Exit, Failure
from glmpatch.site import install, undo
from glmpatch.site import receipt as receipts
from glmpatch.site.folder import staged_name
from glmpatch.site.install import Change, Proof
from glmpatch.site.target import Target
from glmpatch.source import sha256
from tests.support import syscalls, toy
from tests.support.command import as_user, command, glmpatch, needs_root, state
from tests.support.site import Site
from tests.support.toy import FILE, PATCH, RELEASED, REPAIRED

CHANGE = Change(PATCH.id, FILE, RELEASED, REPAIRED, ("add-up", "keep-sign"))
RELEASED_FILES = {sha256(each[FILE]) for each in toy.RELEASES.values()}


def put(target: Target, change: Change = CHANGE) -> receipts.Receipt:
    receipt = install.install(target, change, Proof({"outcome": "passed"}, {}, False)).receipt
    assert receipt is not None
    return receipt


def take_back(target: Target, force: bool = False) -> bool:
    return undo.revert(target, PATCH.id, FILE, RELEASED_FILES, force)


def test_install_and_revert_give_back_every_byte_and_mode(tree: Site, target: Target) -> None:
    before = tree.tree()
    put(target)
    assert tree.model.read_bytes() == REPAIRED
    changed = {name for name, what in tree.tree().items() if before.get(name) != what}
    assert changed <= {
        str(path.relative_to(tree.root))
        for path in (tree.model, tree.record, tree.receipt, tree.original, tree.receipts)
    }
    assert not list(tree.bytecode.iterdir())
    assert take_back(target)
    assert tree.tree() == before


def test_the_receipt_tells_what_was_done(tree: Site, target: Target) -> None:
    put(target)
    receipt = receipts.read(target, PATCH.id, FILE)
    assert receipt is not None
    assert (receipt.patch, receipt.file) == (PATCH.id, FILE)
    assert receipt.rewrites == ("add-up", "keep-sign")
    assert receipt.before == sha256(RELEASED) == sha256(tree.original.read_bytes())
    assert receipt.after == sha256(REPAIRED)
    assert receipt.vllm == "0.8.4"
    assert receipt.verification == {"outcome": "passed"}
    assert datetime.fromisoformat(receipt.time).utcoffset() is not None


def test_bytes_that_the_change_was_not_made_from_are_left_alone(tree: Site, target: Target) -> None:
    tree.model.write_bytes(RELEASED + b"# edited\n")
    before = tree.tree()
    for change in (CHANGE, Change(PATCH.id, FILE, RELEASED, RELEASED)):
        with pytest.raises(Failure, match="changed by somebody else") as caught:
            put(target, change)
        assert caught.value.code is Exit.TARGET
        assert tree.tree() == before


def test_a_change_that_another_process_has_made_already_is_no_error(
    tree: Site, target: Target
) -> None:
    first = put(target)
    after = tree.tree()
    assert put(target) == first
    assert tree.tree() == after


@pytest.mark.parametrize("patched", [False, True])
def test_what_an_interrupted_run_staged_goes_with_the_next_one(
    tree: Site, target: Target, patched: bool
) -> None:
    if patched:
        put(target)
    before = tree.tree()
    tree.receipts.mkdir(exist_ok=True)
    places = (tree.model, tree.record, tree.receipt, tree.original)
    for path in places if tree.version else (places[0], *places[2:]):
        path.with_name(staged_name(path.name)).write_bytes(b"half")
    if not patched:
        tree.original.write_bytes(tree.model.read_bytes())
    undo.tidy(target, PATCH.id, FILE)
    assert tree.tree() == before


def test_what_a_run_died_before_it_listed_is_listed_by_the_next_one(
    tree: Site, target: Target
) -> None:
    """The proof of a file as it stands: its receipt is there, and RECORD does not have it yet."""
    before = tree.tree()
    pristine = tree.record.read_bytes() if tree.version else b""
    put(target, Change(PATCH.id, FILE, RELEASED, RELEASED))
    after = tree.tree()
    if tree.version:
        tree.record.write_bytes(pristine)
    undo.tidy(target, PATCH.id, FILE)
    assert tree.tree() == after
    assert not take_back(target)
    assert tree.tree() == before


def test_an_original_without_receipt_stays_as_the_only_way_back(tree: Site, target: Target) -> None:
    put(target)
    tree.receipt.unlink()
    undo.tidy(target, PATCH.id, FILE)
    assert tree.original.exists()


def test_an_edited_file_is_restored_only_by_force(tree: Site, target: Target) -> None:
    before = tree.tree()
    put(target)
    tree.model.write_bytes(REPAIRED + b"# mine\n")
    with pytest.raises(Failure, match="was edited after glmpatch patched it") as caught:
        take_back(target)
    assert caught.value.code is Exit.DRIFT
    assert tree.model.read_bytes().endswith(b"# mine\n")
    assert take_back(target, force=True)
    assert tree.tree() == before


@pytest.mark.parametrize("force", [False, True])
def test_an_original_that_is_gone_or_another_is_not_put_back(
    tree: Site, target: Target, force: bool
) -> None:
    put(target)
    for spoil in (lambda: tree.original.write_bytes(b"import os\n"), tree.original.unlink):
        spoil()
        with pytest.raises(Failure, match="the original is gone") as caught:
            take_back(target, force)
        assert caught.value.code is Exit.DRIFT
        assert tree.model.read_bytes() == REPAIRED


def test_a_receipt_of_a_file_that_was_reinstalled_goes(tree: Site, target: Target) -> None:
    before = tree.tree()
    put(target)
    tree.model.write_bytes(RELEASED)
    assert not take_back(target)
    assert tree.tree() == before
    put(target)
    tree.model.write_bytes(toy.NEXT)  # of another release, unpacked over it
    assert not take_back(target)
    assert not tree.receipt.exists()
    assert not tree.original.exists()


def test_the_new_source_is_run_whatever_its_time_and_size(tree: Site, target: Target) -> None:
    """Both files have one length; bytecode knows its source by size and second alone."""
    assert len(RELEASED) == len(REPAIRED) + 1
    tree.model.write_bytes(RELEASED.replace(b"A toy.", b"Atoy."))
    before = tree.model.stat()
    compiled(tree)
    put(target, Change(PATCH.id, FILE, tree.model.read_bytes(), REPAIRED))
    assert tree.model.stat().st_size == before.st_size
    assert int(tree.model.stat().st_mtime) > int(before.st_mtime)
    assert compiled(tree) == compile(REPAIRED, str(tree.model), "exec", dont_inherit=True)


def compiled(tree: Site) -> object:
    """What an import would run; leaves bytecode."""
    import sys

    spec = importlib.util.spec_from_file_location("toy", tree.model)
    assert spec is not None
    loader = spec.loader
    assert loader is not None
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    try:
        return loader.get_code("toy")  # type: ignore[attr-defined]
    finally:
        sys.dont_write_bytecode = kept


# -- the commands -------------------------------------------------------------------------------


def test_the_commands_end_to_end(tree: Site) -> None:
    before = tree.tree()
    assert state(tree) == "needed"
    assert glmpatch(tree, "status", "--check").code == 1
    assert glmpatch(tree, "revert").code == 0
    assert glmpatch(tree, "apply").code == 0
    assert state(tree) == "applied"
    assert tree.model.read_bytes() == REPAIRED
    after = tree.tree()
    assert glmpatch(tree, "apply").code == 0
    assert tree.tree() == after
    assert glmpatch(tree, "revert").code == 0
    assert tree.tree() == before


def test_a_dry_run_and_a_diff_write_nothing(tree: Site) -> None:
    before = tree.seen()
    run = glmpatch(tree, "apply", "--dry-run")
    assert run.code == 0
    assert "would repair" in run.output
    assert glmpatch(tree, "diff").code == 0
    assert tree.seen() == before


@needs_root
def test_a_dry_run_needs_no_permission_to_write(open_toy: Site) -> None:
    nobody = 65534
    before = open_toy.seen()
    for arguments in (("apply", "--dry-run"), ("diff",), ("status",)):
        run = syscalls.run(as_user(nobody, command(open_toy, *arguments)), traced=False)
        assert run.code == 0, run.output
    assert syscalls.run(as_user(nobody, command(open_toy, "apply")), traced=False).code == 3
    assert open_toy.seen() == before
