"""Fuzz: formatting and unrelated code never matter; hostile edits are mended right or refused.

``GLMPATCH_FUZZ=20`` runs twenty times as many cases.
"""

from __future__ import annotations

import ast
import difflib
import os
import random
import tokenize
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from patcher.patch import PatchState
from patcher.rewriting import make_plan
from patcher.target import find_target
from patcher.verify.driver import Candidate, verify
from patches.glm4_residual import PATCH
from tests.support import cache, mutate
from tests.support.environment import MODEL_FILE
from tests.support.sources import expected, proper_subsets

TIMES = int(os.environ.get("GLMPATCH_FUZZ", "1"))
SAMPLE = 20
"""Accepted hostile mutants that are proven by numbers."""
fuzz = settings(
    deadline=None,
    derandomize=TIMES == 1,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def right(released_file: bytes) -> bytes:
    return expected(released_file)


def mutated(source: str, seed: int, count: int, kinds: tuple[mutate.Mutation, ...]) -> str:
    """The source after ``count`` mutations, those left out that do not give Python."""
    dice = random.Random(seed)
    for _ in range(count):
        try:
            source = dice.choice(kinds)(source, dice)
        except (SyntaxError, tokenize.TokenError):
            break  # an earlier one has made it no Python; that is a case, too
    return source


def show(capsys: pytest.CaptureFixture[str], title: str, found: Counter[str]) -> None:
    total = found.total()
    shares = ", ".join(f"{name} {n / total:.1%}" for name, n in found.most_common())
    with capsys.disabled():
        print(f"\n{title}: {total} cases: {shares}")


def test_what_is_neutral_is_always_patched(
    released_file: bytes, right: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Formatting, comments, parentheses and unrelated statements: every case gets the patch."""
    wanted = mutate.without_unrelated(right)
    released = released_file.decode()
    found: Counter[str] = Counter()

    @settings(fuzz, max_examples=300 * TIMES)
    @given(st.integers(0, 2**32), st.integers(1, 12), st.booleans())
    def check(seed: int, count: int, whole: bool) -> None:
        source = mutated(released, seed, count, mutate.NEUTRAL)
        if whole:
            source = mutated(source, seed, 1, mutate.WHOLE)
        data = source.encode()
        assert mutate.without_unrelated(data) == mutate.without_unrelated(released_file)
        plan = make_plan(PATCH, data)
        found[plan.state.value] += 1
        assert plan.state is PatchState.NEEDED, (plan.problem, plan.line, plan.findings)
        assert len(plan.broken) == 4
        assert mutate.without_unrelated(plan.after) == wanted

    check()
    show(capsys, "fuzz, neutral", found)
    assert found.total() == 300 * TIMES


def outcome(data: bytes, wanted: str) -> tuple[str, bytes]:
    """What became of a source, once everything that must hold of every outcome does."""
    plan = make_plan(PATCH, data)
    if plan.state is PatchState.DRIFTED:
        assert plan.after == data
        assert plan.problem or any(finding.reason for finding in plan.findings)
        return "refused", data
    after = ast.dump(ast.parse(plan.after))
    if plan.state is PatchState.FIXED:
        assert plan.after == data
    else:
        assert plan.after != data
        again = make_plan(PATCH, plan.after)
        assert again.state is PatchState.FIXED, again.findings
    kind = "already right" if plan.state is PatchState.FIXED else "patched"
    return kind + ("" if after == wanted else ", another program"), plan.after


def test_what_is_hostile_is_mended_right_or_refused(
    released_file: bytes, right: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Edits of the very lines that the rewrites read, on the released file, on each half-fixed one
    and on the right one. What is accepted although it is another program is run: those lines are
    all that was changed, so its numbers have to be right.
    """
    sources = [expected(released_file, subset).decode() for subset in proper_subsets()]
    sources += [right.decode()] * 5
    wanted = ast.dump(ast.parse(right))
    found: Counter[str] = Counter()
    accepted: dict[str, bytes] = {}

    @settings(fuzz, max_examples=1000 * TIMES)
    @given(st.integers(0, 2**32), st.integers(1, 3), st.sampled_from(sources))
    def check(seed: int, count: int, source: str) -> None:
        data = mutated(source, seed, count, mutate.HOSTILITIES).encode()
        kind, after = outcome(data, wanted)
        found[kind] += 1
        if kind.endswith("another program"):
            accepted[ast.dump(ast.parse(after))] = after

    check()
    show(capsys, "fuzz, hostile", found)
    assert found.total() == 1000 * TIMES
    assert found["refused"]
    assert found["patched"]

    (site,) = (cache.released() / "lib").glob("python3*/site-packages")
    assert (site / MODEL_FILE).read_bytes() == released_file
    sample = random.Random(0).sample(list(accepted.values()), min(len(accepted), SAMPLE * TIMES))
    candidates = [Candidate(PATCH, str(number), data) for number, data in enumerate(sample)]
    proof = verify(find_target(str(cache.released())), candidates, device="cpu")
    # Code of no rewrite's business, such as a tensor that is called, may stop the model aloud.
    # A model that runs must be right, and the defect's own error must be gone.
    ran = [each for each in proof.results if each.crash is None]
    crashes = [each.crash["message"] for each in proof.results if each.crash is not None]
    with capsys.disabled():
        worst = max((each.distance or 0) / each.limit for each in ran)
        print(
            f"fuzz, proof: {len(sample)} of {len(accepted)} other programs were run: {len(ran)} "
            f"give numbers, at worst {worst:.2f} x the limit; {len(crashes)} stop: {set(crashes)}"
        )
    wrong = [difference(right, sample[int(each.file)]) for each in ran if not each.passed]
    assert not wrong, "\n\n".join(wrong)
    assert not [message for message in crashes if "must be Tensor, not tuple" in message]
    assert len(ran) >= 10


def difference(right: bytes, source: bytes) -> str:
    lines = (each.decode().splitlines() for each in (right, source))
    return "\n".join(difflib.unified_diff(*lines, lineterm="", n=1))
