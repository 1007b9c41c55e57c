"""What every patch has to pass; a new one needs nothing here.

Each is tried on its lowest and its highest release, by its table of known files.
"""

from __future__ import annotations

import ast
import dataclasses
import itertools
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from glmpatch import catalogue
from glmpatch.catalogue import Row, load_patches, table
from glmpatch.command.cli import main
from glmpatch.errors import Exit
from glmpatch.patch import Patch, PatchState
from glmpatch.site.examine import examine
from glmpatch.site.target import find_target
from glmpatch.source import form, sha256
from glmpatch.source.plan import make_plan
from tests.support import fake, syscalls
from tests.support.environment import MODEL_FILE, Environment
from tests.support.judge import judge
from tests.support.releases import read

pytestmark = pytest.mark.real

PATCHES = load_patches()
BY_ID = {patch.id: patch for patch in PATCHES}
ORDERS = 3
"""Orders of applying and reverting that are tried; 15 patches have more than 10**12."""
each_patch = pytest.mark.parametrize("patch", PATCHES, ids=lambda each: each.id)


def ends(patch: Patch) -> list[tuple[str, Row]]:
    """The lowest and the highest release that need the patch, with their files."""
    needed = [row for row in table(patch).rows if row.state is PatchState.NEEDED]
    first, last = needed[0], needed[-1]
    found = [(first.releases[0], first), (last.releases[-1], last)]
    return found[: 1 if found[0][0] == found[1][0] else 2]


FILES = [(patch, name, row) for patch in PATCHES for name, row in ends(patch)]
each_file = pytest.mark.parametrize(
    ("patch", "release", "row"), FILES, ids=[f"{patch.id} {name}" for patch, name, _ in FILES]
)
RELEASES = sorted({name for _, name, _ in FILES})


def source(row: Row, release: str) -> bytes:
    data = read(release, row.file)
    assert data is not None
    return data


# -- the file -----------------------------------------------------------------------------------


@each_file
def test_it_is_mended_once_and_for_all_as_the_table_says(
    patch: Patch, release: str, row: Row
) -> None:
    plan = make_plan(patch, source(row, release), release)
    assert plan.state is PatchState.NEEDED
    assert (sha256(plan.before), sha256(plan.after)) == (row.sha256, row.mended)
    assert form.read(plan.after).digest == row.form != form.read(plan.before).digest
    listed = tuple((f.rewrite, f.state.value, f.line) for f in plan.findings)
    assert listed == row.findings
    again = make_plan(patch, plan.after, release)
    assert (again.state, again.after) == (PatchState.FIXED, plan.after)


@each_file
def test_a_file_that_is_cut_for_speed_is_judged_as_if_it_were_whole(
    patch: Patch, release: str, row: Row
) -> None:
    if patch.within:
        whole = dataclasses.replace(patch, within=())
        cut, uncut = (make_plan(each, source(row, release), release) for each in (patch, whole))
        assert (cut.after, cut.findings) == (uncut.after, uncut.findings)


@each_file
def test_what_some_of_the_rewrites_leave_is_known_and_gets_the_rest(
    patch: Patch, release: str, row: Row
) -> None:
    released = source(row, release)
    broken = make_plan(patch, released, release).broken
    subsets = [s for size in range(1, len(broken)) for s in itertools.combinations(broken, size)]
    for subset in random.Random(1).sample(subsets, min(len(subsets), 14)):
        half = make_plan(patch, released, release, only=subset).after
        found = judge(patch, half, release)
        assert found.state is PatchState.NEEDED, subset
        assert found.plan is not None
        assert set(found.plan.broken) == set(broken) - set(subset)
        assert found.known is not None
        assert form.read(found.known).digest == row.form


@each_file
def test_layout_and_comments_make_no_difference(patch: Patch, release: str, row: Row) -> None:
    released = source(row, release)
    repaired = make_plan(patch, released, release).after
    old = b"".join(b"# " + line for line in released.splitlines(keepends=True))
    bare = (ast.unparse(ast.parse(released)) + "\n").encode()
    for needed in (bare, released.replace(b"\n", b"\r\n"), released + b"\n" + old):
        found = judge(patch, needed, release)
        assert found.state is PatchState.NEEDED
        assert found.known is not None
        assert form.read(found.known).digest == row.form
    crlf = make_plan(patch, released.replace(b"\n", b"\r\n"), release).after
    assert crlf == repaired.replace(b"\n", b"\r\n")
    for fixed in (repaired + b"\n" + old, b"# one more line\n" + repaired):
        assert judge(patch, fixed, release).state is PatchState.FIXED


@each_file
def test_one_statement_more_is_not_known(patch: Patch, release: str, row: Row) -> None:
    released = source(row, release)
    for data in (released, make_plan(patch, released, release).after):
        for more in (b"\nprint(1)\n", b"\nimport os\n", b"\n__all__ = []\n", b"\nassert True\n"):
            assert judge(patch, data + more, release).state is PatchState.UNPROVEN
        assert judge(patch, data + b"\nreturn\n", release).state is PatchState.DRIFTED


@each_patch
@pytest.mark.parametrize("data", [b"", b"x = 1\n", b"def f(:\n", b"\xff\n", b"\0"])
def test_a_file_of_something_else_is_not_known(patch: Patch, data: bytes) -> None:
    release = ends(patch)[-1][0]
    assert judge(patch, data, release).state is PatchState.DRIFTED
    assert make_plan(patch, data, release).after == data


@each_patch
def test_the_file_of_another_release_is_not_known_in_this_one(patch: Patch) -> None:
    """As long as it is another program."""
    rows = table(patch).rows
    forms = {name: row.form for row in rows for name in row.releases}
    for row in random.Random(2).sample(rows, min(len(rows), 4)):
        released = source(row, row.releases[0])
        for name, right in random.Random(3).sample(sorted(forms.items()), min(len(forms), 6)):
            if patch.path(name) == row.file:
                known = judge(patch, released, name).known
                assert (known is not None) <= (right == row.form), (row.releases[0], name)


# -- a tree -------------------------------------------------------------------------------------


def environment(root: Path, release: str, **changed: bytes) -> Environment:
    """All files of a release that patches are about; ``changed`` by the id of their patch."""
    files = dict(fake.released(release))
    for name, data in changed.items():
        files[BY_ID[name.replace("_", "-")].path(release)] = data
    return fake.environment(root, files.pop(MODEL_FILE, None), release, files)


def command(*arguments: str) -> syscalls.Run:
    def action() -> int:
        sys.argv = ["glmpatch", *arguments]
        try:
            main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 99
        return 0

    return syscalls.run(action, traced=False)


def run(env: Environment, *arguments: str) -> syscalls.Run:
    return command(*arguments, "--python", str(env.root))


def states(env: Environment, patches: tuple[Patch, ...]) -> dict[str, str]:
    target = find_target(str(env.root))
    return {patch.id: examine(target, patch).state.value for patch in patches}


@pytest.mark.parametrize("release", RELEASES)
def test_in_any_order_applying_and_reverting_is_the_identity(release: str, tmp_path: Path) -> None:
    env = environment(tmp_path / "env", release)
    # Without its last line end: what one patch adds to RECORD must not be another's to take away.
    env.record.write_bytes(env.record.read_bytes().rstrip(b"\r\n"))
    before, patches, dice = env.tree(), fake.patches(release), random.Random(4)
    needed = [patch for patch in patches if states(env, patches)[patch.id] == "needed"]
    assert needed
    trees = []
    for _ in range(ORDERS if len(needed) > 1 else 1):
        for done, patch in enumerate(dice.sample(needed, len(needed)), 1):
            assert run(env, "apply", patch.id).code == 0
            assert list(states(env, patches).values()).count("applied") == done
        trees.append({name: kind for name, kind in env.tree().items() if "dist-info" not in name})
        for left, patch in enumerate(dice.sample(needed, len(needed)), 1):
            assert run(env, "revert", patch.id).code == 0
            assert list(states(env, patches).values()).count("applied") == len(needed) - left
        assert env.tree() == before
    assert all(tree == trees[0] for tree in trees)


@each_file
def test_one_that_drifted_keeps_all_others_from_being_written(
    patch: Patch, release: str, row: Row, tmp_path: Path
) -> None:
    env = environment(tmp_path / "env", release, **{patch.name: b"x = 1\n"})
    before = env.tree()
    done = run(env, "apply", *(each.id for each in fake.patches(release)))
    assert done.code == Exit.DRIFT
    assert f"{patch.id}: " in done.output
    assert row.file in done.output
    assert env.tree() == before


@each_file
def test_a_result_that_is_not_the_tables_is_a_fault_of_glmpatch(
    patch: Patch, release: str, row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = environment(tmp_path / "env", release)
    before, known = env.tree(), table(patch)
    rows = tuple(
        dataclasses.replace(each, mended="0" * 64) if each is row else each for each in known.rows
    )
    other = dataclasses.replace(known, rows=rows)
    real = catalogue._table
    monkeypatch.setattr(catalogue, "_table", lambda n: other if n == patch.name else real(n))
    for command in ("apply", "diff"):
        done = run(env, command, patch.id)
        assert done.code == Exit.INTERNAL, done.output
        assert "by the table of known files it must be 000000000000" in " ".join(
            done.output.split()
        )
    assert env.tree() == before


def other_places(data: bytes, count: int) -> Iterator[bytes]:
    yield data
    for number in range(count):
        yield b"\n\ndef other_%d(a, b=1):\n    return a + b\n" % number


def test_a_thousand_differences_and_thirty_thousand_lines_are_said_in_a_few_words(
    tmp_path: Path,
) -> None:
    patch, release, row = next(each for each in FILES if each[0].id == "glm4-residual")
    lines = b"\n\ndef long():\n" + b"    x = f(1, y=[2, 3])\n" * 5_000
    large = b"".join(other_places(source(row, release), 1_000)) + lines
    large += b"# a comment\n" * 20_000
    env = environment(tmp_path / "env", release, **{patch.name: large})
    before = env.tree()
    done = run(env, "apply", patch.id)
    assert done.code == Exit.DRIFT, done.output
    assert "other_0" in done.output
    assert "more)" in done.output
    assert len(done.output) < 1_500
    assert env.tree() == before


@each_patch
def test_what_explain_says_is_all_that_the_patch_says(patch: Patch) -> None:
    said = " ".join(command("explain", patch.id).output.split())
    texts = (patch.title, patch.why, patch.how, patch.upstream, patch.removal, patch.versions)
    for text in (*texts, *(rewrite.title for rewrite in patch.rewrites)):
        assert " ".join(text.split()) in said


def test_status_names_the_state_of_every_patch_that_is_for_the_release(tmp_path: Path) -> None:
    for number, release in enumerate(RELEASES):
        env = environment(tmp_path / str(number), release)
        done = run(env, "status", "--json")
        assert done.code == 0
        said = {each["id"]: each["state"] for each in json.loads(done.output)["patches"]}
        needed = {patch.id for patch, name, _ in FILES if name == release}
        assert needed <= {name for name, state in said.items() if state == "needed"}
        others = {patch.id for patch in PATCHES if not patch.covers(release)}
        assert {said[name] for name in others} <= {"not-applicable"}
