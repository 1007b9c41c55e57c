"""What has been tried on the judge: files that only a part of was looked at, and public forks'."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from glmpatch.command.cli import main
from glmpatch.errors import Exit
from glmpatch.patch import PatchState
from glmpatch.source import form
from tests.support import fake, syscalls
from tests.support.cases import RELEASE, Case, bases, load
from tests.support.environment import MODEL_FILE
from tests.support.judge import judge
from tests.support.program import program

pytestmark = pytest.mark.real

CASES = load()
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
KNOWN = {"b01_16618_mlp0_adds_kept", "b07_gcu_min", "unicode_kw_base"}
"""Wrong ones of which the mended file is the known one, whole."""


@each_case
def test_apply_without_a_proof_vouches_for_known_programs_alone(case: Case, tmp_path: Path) -> None:
    files = dict(fake.released())
    files[case.patch.path(RELEASE)] = case.source()
    model = files.pop(MODEL_FILE)
    env = fake.environment(tmp_path / "env", model, others=files)
    before = env.tree()

    def action() -> int:
        sys.argv = ["glmpatch", "apply", case.patch.id, "--python", str(env.root)]
        try:
            main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 99
        return 0

    done = syscalls.run(action, traced=False)
    if case.name in KNOWN:
        assert done.code == Exit.OK, done.output
        mended = (env.site / case.patch.path(RELEASE)).read_bytes()
        right = bases(case.patch.id)[1]
        assert program(mended) == program(right)
        assert form.read(mended).digest == form.read(right).digest
    else:
        assert done.code == Exit.DRIFT, done.output
        assert env.tree() == before


@each_case
def test_what_a_proof_would_be_asked_about(case: Case) -> None:
    found = judge(case.patch, case.source(), RELEASE)
    if case.kind == "no Python":
        assert found.state is PatchState.DRIFTED
        assert program(case.source()) is None
    elif case.name in KNOWN:
        assert found.state is PatchState.NEEDED
    elif case.kind == "mendable":
        assert found.state is PatchState.UNPROVEN
        assert found.plan is not None
        assert found.plan.after != found.plan.before, "a mended file is measured beside it"
    else:
        assert found.state in (PatchState.UNPROVEN, PatchState.DRIFTED)


def test_a_known_case_is_not_right_as_it_stands() -> None:
    by_name = {case.name: case for case in CASES}
    assert all(by_name[name].kind == "mendable" for name in KNOWN)
    kinds = [case.kind for case in CASES]
    assert {kind: kinds.count(kind) for kind in ("wrong", "right")} == {"wrong": 70, "right": 20}
