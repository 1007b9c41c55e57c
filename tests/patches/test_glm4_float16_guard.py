"""glm4-float16-guard on a toy of its file: the guard stands before the precision is verified."""

from __future__ import annotations

import ast

import pytest

from glmpatch.patch import PatchState
from glmpatch.patches.glm4_float16_guard.patch import PATCH
from glmpatch.patches.glm4_float16_guard.questions import QUESTIONS
from glmpatch.source.plan import make_plan

TOY = """\
import sys

import torch

OTHER = 1


def _get_and_verify_dtype(config, dtype):
    config_dtype = getattr(config, "torch_dtype", None)
    torch_dtype = config_dtype if dtype == "auto" else getattr(torch, dtype)

    # Verify it.
    if torch_dtype != config_dtype:
        print("casting")  # loud

    return torch_dtype


class Other:
    pass
"""
PLATFORM = TOY.replace(
    '    torch_dtype = config_dtype if dtype == "auto"',
    "    from vllm.platforms import current_platform\n"
    "    print(current_platform.supported_dtypes)\n"
    '    torch_dtype = config_dtype if dtype == "auto"',
)
NEEDED = {
    "as released": TOY,
    "a platform that tells": PLATFORM,
    "the test the other way round": TOY.replace(
        "if torch_dtype != config_dtype:", "if config_dtype != torch_dtype:"
    ),
    "the test negated": TOY.replace(
        "if torch_dtype != config_dtype:", "if not torch_dtype == config_dtype:"
    ),
    "a print more": TOY.replace("    # Verify", "    print(dtype)\n    # Verify"),
    "two returns": TOY.replace("    # Verify", "    if not dtype:\n        return 1\n    # Verify"),
    "another configuration": TOY.replace("    # Verify", "    config = config.text\n    # Verify"),
}
TESTS = ("torch_dtype != config_dtype", "config_dtype != t", "not torch_dtype == config_dtype")
DRIFTED = {
    "no such function": TOY.replace("_get_and_verify_dtype", "other"),
    "no such test": TOY.replace("torch_dtype != config_dtype", "torch_dtype is None"),
    "two such tests": TOY.replace(
        "    return", "    if torch_dtype != config_dtype:\n        pass\n    return"
    ),
}


def guard(source: str) -> str:
    """What the function becomes, without layout and comments."""
    plan = make_plan(PATCH, source.encode())
    assert plan.state is PatchState.NEEDED
    assert make_plan(PATCH, plan.after).state is PatchState.FIXED
    before, after = source.splitlines(), plan.after.decode().splitlines()
    assert [line for line in before if line not in after] == [], "nothing is taken away"
    return ast.unparse(ast.parse(plan.after))


@pytest.mark.parametrize("source", NEEDED.values(), ids=NEEDED)
def test_the_guard_stands_before_the_precision_is_verified(source: str) -> None:
    text = guard(source)
    test = "if config.model_type == 'glm4' and torch_dtype == torch.float16:"
    assert text.count(test) == 1
    verify = next(each for each in TESTS if each in source)
    assert text.index(" else getattr(") < text.index(test) < text.index(f"if {verify}")


def test_what_auto_chooses_instead_is_the_platforms_to_say() -> None:
    assert "has_device_capability(80)" in guard(TOY)
    assert "supported_dtypes" not in guard(TOY)
    assert "for each in current_platform.supported_dtypes" in guard(PLATFORM)


@pytest.mark.parametrize("mark", ["    'glm4'\n", "    x = {'glm4': 'no'}\n", '    y("no glm4")\n'])
def test_where_glm4_is_treated_already_nothing_is_proposed(mark: str) -> None:
    """Somebody else's guard is not ours to judge: the file is unproven then."""
    source = TOY.replace("    # Verify", mark + "    # Verify").encode()
    plan = make_plan(PATCH, source)
    assert (plan.state, plan.after) == (PatchState.FIXED, source)


@pytest.mark.parametrize("source", DRIFTED.values(), ids=DRIFTED)
def test_what_it_does_not_know_is_drifted(source: str) -> None:
    plan = make_plan(PATCH, source.encode())
    assert (plan.state, plan.after) == (PatchState.DRIFTED, source.encode())
    assert all(finding.reason for finding in plan.findings)


def test_the_questions_tell_the_models_apart() -> None:
    assert len({question.words for question in QUESTIONS}) == len(QUESTIONS)
