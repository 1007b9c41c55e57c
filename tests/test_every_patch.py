"""What every patch has to pass. A new patch needs nothing here: its own cases are found by name."""

from __future__ import annotations

import ast
import importlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from patcher import install, receipts
from patcher.examine import Examination, examine
from patcher.patch import Patch, PatchState, RewriteState, load_patches
from patcher.rewriting import make_plan, sha256
from patcher.target import Target, find_target
from patcher.verify.driver import Candidate, verify
from tests.matrix import judge, table
from tests.support.cases import Cases, edited
from tests.support.environment import Environment, glmpatch

PATCHES = load_patches()
BY_ID = {patch.id: patch for patch in PATCHES}
TABLE = table.load()
each_patch = pytest.mark.parametrize("patch", PATCHES, ids=BY_ID)


def cases(patch: Patch) -> Cases:
    """What ``tests/patches/test_NAME.py`` declares as CASES."""
    module = importlib.import_module("tests.patches.test_" + patch.id.replace("-", "_"))
    declared = module.CASES
    assert isinstance(declared, Cases)
    assert declared.patch is patch
    return declared


def every(kind: str) -> pytest.MarkDecorator:
    """All cases of one kind, of all patches."""
    found = [(patch, name) for patch in PATCHES for name in getattr(cases(patch), kind)]
    ids = [f"{patch.id}: {name}" for patch, name in found]
    return pytest.mark.parametrize(("patch", "name"), found, ids=ids)


@pytest.fixture(scope="session")
def sources() -> Mapping[tuple[str, str], bytes]:
    """By patch and release: the released file, of every release that needs the patch."""
    return {
        (patch.id, wheel.release): source
        for wheel in judge.read_all(TABLE)
        for patch in PATCHES
        if patch.covers(wheel.release) and (source := wheel.read(patch.file)) is not None
    }


@dataclass(frozen=True)
class Pair:
    released: bytes
    repaired: bytes


@pytest.fixture
def pair(patch: Patch, sources: Mapping[tuple[str, str], bytes]) -> Pair:
    """The file of the release that the patch's cases are made from, and what it must become."""
    released = sources[patch.id, cases(patch).release]
    repaired = make_plan(patch, released).after
    assert repaired != released
    return Pair(released, repaired)


# -- the file -----------------------------------------------------------------------------------


@each_patch
def test_every_release_that_needs_it_is_mended_once_and_for_all(
    patch: Patch, sources: Mapping[tuple[str, str], bytes]
) -> None:
    releases = [release for release in TABLE.releases if patch.covers(release)]
    assert releases
    for release in releases:
        plan = make_plan(patch, sources[patch.id, release])
        assert plan.state is PatchState.NEEDED
        assert set(plan.broken) == {rewrite.id for rewrite in patch.rewrites}, release
        assert all(finding.line for finding in plan.findings)
        assert patch.known.get(sha256(plan.before)) is PatchState.NEEDED, release
        assert patch.known.get(sha256(plan.after)) is PatchState.FIXED, release
        again = make_plan(patch, plan.after)
        assert (again.state, again.after) == (PatchState.FIXED, plan.after)
        ast.parse(plan.after)


@each_patch
def test_a_file_that_is_cut_for_speed_is_judged_as_if_it_were_whole(
    patch: Patch, pair: Pair
) -> None:
    whole = replace(patch, within=(), known={})
    assert make_plan(patch, pair.released) == make_plan(whole, pair.released)


@each_patch
def test_a_hash_that_it_knows_says_what_the_structure_says(
    patch: Patch, sources: Mapping[tuple[str, str], bytes]
) -> None:
    structural = {}
    for (name, _), source in sources.items():
        if name == patch.id:
            repaired = make_plan(patch, source).after
            structural[sha256(source)] = make_plan(patch, source + b"\n").state
            structural[sha256(repaired)] = make_plan(patch, repaired + b"\n").state
    assert dict(patch.known) == structural


@every("mended")
def test_a_form_that_is_mended(patch: Patch, name: str, pair: Pair) -> None:
    before, after = cases(patch).mended[name]
    plan = make_plan(patch, edited(pair.released, before))
    assert [finding.reason for finding in plan.findings if finding.reason] == []
    assert plan.after.decode() == edited(pair.repaired, after).decode()
    assert make_plan(patch, plan.after).state is PatchState.FIXED


@every("fixed")
def test_a_form_that_is_left_alone(patch: Patch, name: str, pair: Pair) -> None:
    source = edited(pair.repaired, cases(patch).fixed[name])
    plan = make_plan(patch, source)
    assert (plan.state, plan.after) == (PatchState.FIXED, source)


@every("drifted")
def test_a_form_that_is_refused(patch: Patch, name: str, pair: Pair) -> None:
    edits, reason = cases(patch).drifted[name]
    source = edited(pair.released, edits)
    ast.parse(source)
    plan = make_plan(patch, source)
    assert plan.state is PatchState.DRIFTED
    assert plan.after == source
    assert reason in " ".join(finding.reason for finding in plan.findings)
    assert all(f.line for f in plan.findings if f.state is RewriteState.UNRECOGNIZED)


@each_patch
def test_layout_and_comments_make_no_difference(patch: Patch, pair: Pair) -> None:
    bare = (ast.unparse(ast.parse(pair.released)) + "\n").encode()
    plan = make_plan(patch, bare)
    assert plan.state is PatchState.NEEDED
    assert ast.dump(ast.parse(plan.after)) == ast.dump(ast.parse(pair.repaired))


@each_patch
def test_line_ends_are_kept(patch: Patch, pair: Pair) -> None:
    plan = make_plan(patch, pair.released.replace(b"\n", b"\r\n"))
    assert plan.after == pair.repaired.replace(b"\n", b"\r\n")


@each_patch
def test_the_old_file_as_comments_below_the_new_one_is_no_defect(patch: Patch, pair: Pair) -> None:
    old = b"".join(b"# " + line for line in pair.released.splitlines(keepends=True))
    assert make_plan(patch, pair.repaired + old).state is PatchState.FIXED
    assert make_plan(patch, pair.released + old).after == pair.repaired + old


@each_patch
@pytest.mark.parametrize("source", [b"", b"x = 1\n", b"def f(:\n", b"\xff\n"])
def test_a_file_of_something_else_is_refused(patch: Patch, source: bytes) -> None:
    plan = make_plan(patch, source)
    assert (plan.state, plan.after) == (PatchState.DRIFTED, source)


@each_patch
def test_explain_says_all_that_the_patch_says(patch: Patch) -> None:
    done = glmpatch("explain", patch.id)
    assert done.returncode == 0
    said = " ".join(done.stdout.split())
    texts = (patch.title, patch.why, patch.how, patch.upstream, patch.removal, patch.versions)
    for text in (*texts, patch.file, *(rewrite.title for rewrite in patch.rewrites)):
        assert " ".join(text.split()) in said


# -- the proof ----------------------------------------------------------------------------------


def test_every_proper_subset_of_the_rewrites_fails_the_proof_and_all_pass(released: Path) -> None:
    target = find_target(str(released))
    candidates = []
    for patch in PATCHES:
        source = (target.root / patch.file).read_bytes()
        ids = [rewrite.id for rewrite in patch.rewrites]
        for size in range(len(ids) + 1):
            for only in itertools.combinations(ids, size):
                after = make_plan(patch, source, only).after
                candidates.append(Candidate(patch, f"{size} of {len(ids)} {only}", after))
    verification = verify(target, candidates, device="cpu")
    results = [(each.patch, each.file, each.passed) for each in verification.results]
    results += [(each.patch, each.file, each.passed) for each in verification.behaviours]
    assert len(results) == len(candidates) == sum(2 ** len(p.rewrites) for p in PATCHES)
    for name, file, passed in results:
        made = len(BY_ID[name].rewrites)
        assert passed == file.startswith(f"{made} of {made} "), (name, file)


def test_one_run_of_the_probe_proves_all_of_them_before_they_are_written(env: Environment) -> None:
    done = glmpatch("apply", "--verify", "--json", "--python", str(env.root))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert {each["id"] for each in answer["patches"] if each["changed"]} == set(BY_ID)
    proof = answer["verify"]
    proven = [(each["patch"], each["file"]) for each in proof["results"] + proof["behaviours"]]
    assert sorted(proven) == sorted((name, "planned") for name in BY_ID)
    target = find_target(str(env.root))
    for patch in PATCHES:
        receipt = receipts.read(target, patch)
        assert receipt is not None
        assert receipt.verification == proof


# -- the tree -----------------------------------------------------------------------------------


def apply(target: Target, patch: Patch) -> None:
    found = examine(target, patch)
    assert found.state is PatchState.NEEDED, found
    assert found.plan is not None
    install.install(target, patch, found.path, found.plan, None)


def revert(target: Target, patch: Patch) -> None:
    found = examine(target, patch)
    assert found.state is PatchState.APPLIED, found
    assert found.receipt is not None
    assert install.revert(target, patch, found.path, force=False)


def states(target: Target) -> dict[str, str]:
    found: list[Examination] = [examine(target, patch) for patch in PATCHES]
    return {each.patch.id: each.state.value for each in found}


def test_in_any_order_applying_and_reverting_is_the_identity(env: Environment) -> None:
    target = find_target(str(env.root))
    # Without its last line end: what one patch adds to RECORD must not be another's to take away.
    env.record.write_bytes(env.record.read_bytes().rstrip(b"\r\n"))
    before = env.tree()
    orders = list(itertools.permutations(PATCHES))
    trees = []
    for position, order in enumerate(orders):
        for done, patch in enumerate(order, 1):
            apply(target, patch)
            assert list(states(target).values()).count("applied") == done
        trees.append({name: kind for name, kind in env.tree().items() if "dist-info" not in name})
        # Every order of applying meets another order of reverting.
        for done, patch in enumerate(orders[position - len(orders) // 2], 1):
            revert(target, patch)
            assert list(states(target).values()).count("applied") == len(PATCHES) - done
        assert env.tree() == before
    assert all(tree == trees[0] for tree in trees)


@each_patch
def test_one_alone_comes_and_goes_among_the_others(patch: Patch, env: Environment) -> None:
    python = ("--python", str(env.root))
    target = find_target(str(env.root))
    others = set(BY_ID) - {patch.id}
    assert glmpatch("apply", *python).returncode == 0
    everything = env.tree()
    original = receipts.read(target, patch)
    assert original is not None
    assert glmpatch("revert", patch.id, *python).returncode == 0
    assert states(target) == {patch.id: "needed", **dict.fromkeys(others, "applied")}
    assert sha256((target.root / patch.file).read_bytes()) == original.before
    done = glmpatch("apply", "--json", *python)
    assert done.returncode == 0
    changed = {each["id"]: each["changed"] for each in json.loads(done.stdout)["patches"]}
    assert changed == {name: name == patch.id for name in BY_ID}
    assert set(env.tree()) == set(everything)


def test_a_tree_that_an_older_glmpatch_left_takes_the_newer_patches(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = env.tree()
    target = find_target(str(env.root))
    with monkeypatch.context() as older:
        older.setattr("patcher.install.__version__", "0.0.1")
        apply(target, BY_ID["glm4-residual"])
    python = ("--python", str(env.root))
    done = glmpatch("apply", "--json", *python)
    assert done.returncode == 0, done.stdout
    changed = {each["id"]: each["changed"] for each in json.loads(done.stdout)["patches"]}
    assert changed == {name: name != "glm4-residual" for name in BY_ID}
    receipt = receipts.read(target, BY_ID["glm4-residual"])
    assert receipt is not None
    assert receipt.glmpatch == "0.0.1"
    assert glmpatch("revert", *python).returncode == 0
    assert env.tree() == before


@each_patch
def test_one_that_drifted_keeps_all_others_from_being_written(
    patch: Patch, env: Environment
) -> None:
    (env.site / patch.file).write_bytes(b"x = 1\n")
    before = env.tree()
    done = glmpatch("apply", "--python", str(env.root))
    assert done.returncode == 5
    assert f"{patch.id}: " in done.stderr
    assert patch.file in done.stderr
    assert env.tree() == before
