"""What the install step promises where nothing goes wrong; ``install/`` has where it does."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from patcher import install, receipts
from patcher.errors import Exit, Failure
from patcher.folder import staged_name
from patcher.record import with_files, without_files
from patcher.rewriting import make_plan, sha256
from patcher.target import Target, find_target
from patches.glm4_residual import PATCH
from tests.support import site
from tests.support.site import Site

KINDS = ["0.8.4", None]


@pytest.fixture(params=KINDS, ids=["wheel", "source tree"])
def tree(request: pytest.FixtureRequest, tmp_path: Path, released_file: bytes) -> Site:
    return site.make(tmp_path / "site", released_file, request.param)


@pytest.fixture
def target(tree: Site) -> Target:
    return find_target(path=str(tree.root))


def _install(tree: Site, target: Target) -> receipts.Receipt | None:
    plan = make_plan(PATCH, tree.model.read_bytes())
    return install.install(target, PATCH, tree.model, plan, {"passed": True})


def test_install_and_revert_give_back_every_byte_and_mode(tree: Site, target: Target) -> None:
    before = tree.tree()
    _install(tree, target)
    changed = {name for name, what in tree.tree().items() if before.get(name) != what}
    assert changed <= {
        str(path.relative_to(tree.root))
        for path in (tree.model, tree.record, tree.receipt, tree.original, tree.receipts)
    }
    assert install.revert(target, PATCH, tree.model, force=False)
    assert tree.tree() == before


def test_the_receipt_tells_what_was_done(tree: Site, target: Target, released_file: bytes) -> None:
    _install(tree, target)
    receipt = receipts.read(target, PATCH)
    assert receipt is not None
    assert receipt.patch == PATCH.id
    assert receipt.rewrites == tuple(rewrite.id for rewrite in PATCH.rewrites)
    assert receipt.before == sha256(released_file) == sha256(tree.original.read_bytes())
    assert receipt.after == sha256(tree.model.read_bytes())
    assert receipt.vllm == tree.version
    assert receipt.verification == {"passed": True}
    assert datetime.fromisoformat(receipt.time).utcoffset() is not None


def test_bytes_that_the_plan_was_not_made_from_are_left_alone(tree: Site, target: Target) -> None:
    plan = make_plan(PATCH, tree.model.read_bytes())
    tree.model.write_bytes(tree.model.read_bytes() + b"# edited\n")
    before = tree.tree()
    with pytest.raises(Failure, match="changed by somebody else") as caught:
        install.install(target, PATCH, tree.model, plan, None)
    assert caught.value.code is Exit.TARGET
    assert tree.tree() == before


def test_a_plan_that_another_process_has_carried_out_already_is_no_error(
    tree: Site, target: Target
) -> None:
    plan = make_plan(PATCH, tree.model.read_bytes())
    first = install.install(target, PATCH, tree.model, plan, {"passed": True})
    after = tree.tree()
    assert install.install(target, PATCH, tree.model, plan, None) == first
    assert tree.tree() == after


@pytest.mark.parametrize("patched", [False, True])
def test_what_an_interrupted_run_staged_goes_with_the_next_one(
    tree: Site, target: Target, patched: bool
) -> None:
    if patched:
        _install(tree, target)
    before = tree.tree()
    tree.receipts.mkdir(exist_ok=True)
    places = (tree.model, tree.record, tree.receipt, tree.original)
    for path in places if tree.version else (places[0], *places[2:]):
        path.with_name(staged_name(path.name)).write_bytes(b"half")
    if not patched:
        tree.original.write_bytes(tree.model.read_bytes())
    install.tidy(target, PATCH)
    assert tree.tree() == before


def test_an_original_without_receipt_stays_as_the_only_way_back(tree: Site, target: Target) -> None:
    _install(tree, target)
    tree.receipt.unlink()
    install.tidy(target, PATCH)
    assert tree.original.exists()


def test_an_edited_file_is_restored_only_by_force(
    tree: Site, target: Target, released_file: bytes
) -> None:
    before = tree.tree()
    _install(tree, target)
    tree.model.write_bytes(tree.model.read_bytes() + b"# mine\n")
    with pytest.raises(Failure, match="was edited after glmpatch patched it") as caught:
        install.revert(target, PATCH, tree.model, force=False)
    assert caught.value.code is Exit.DRIFT
    assert tree.model.read_bytes().endswith(b"# mine\n")
    assert install.revert(target, PATCH, tree.model, force=True)
    assert tree.model.read_bytes() == released_file
    assert tree.tree() == before


def test_record_lists_files_in_front_and_forgets_them_again() -> None:
    for record in (b"", b"a,,", b"a,,\n", b"a,,\r\nb,,", b"glmpatch-x,,\n"):
        listed = with_files(record, {"glm": b"data"})
        end = b"\r\n" if b"\r\n" in record else b"\n"
        assert listed == b"glm,sha256=Om6weQ85rIfJTzhWst0sXREOaBFgImGpqSPTuyOtyLc,4" + end + record
        assert with_files(listed, {"glm": b"data"}) == listed
        assert without_files(listed, ["glm"]) == record
