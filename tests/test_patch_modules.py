"""A patch module that is no good is named, and the other patches work without it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patcher.errors import Exit
from patcher.patch import Patch, PatchState, load_patches
from patcher.sound import fault
from patches.glm4_residual import PATCH
from tests.support.environment import Environment

ROOT = Path(__file__).resolve().parent.parent
GOOD = {patch.id for patch in load_patches()}
BAD: Mapping[str, tuple[dict[str, Any], str]] = {
    "another id": ({"id": "glm4"}, "has the id 'glm4'; the name of the file makes it"),
    "no reason": ({"why": " \n"}, "says nothing under why"),
    "a long title": ({"title": "one\ntwo"}, "title of more than one line"),
    "a file outside of vLLM": ({"file": "torch/nn/init.py"}, "no Python file of the package vllm"),
    "a file above": ({"file": "vllm/../torch/a.py"}, "no Python file of the package vllm"),
    "an absolute file": ({"file": "/etc/passwd"}, "no Python file of the package vllm"),
    "no rewrites": ({"rewrites": ()}, "has no rewrites"),
    "twin rewrites": ({"rewrites": PATCH.rewrites[:1] * 2}, "two rewrites of one id"),
    "a rewrite of no place": (
        {"rewrites": (replace(PATCH.rewrites[0], places=0),)},
        "accounts for no place",
    ),
    "no sha256": ({"known": {"7c49": PatchState.FIXED}}, "which is no sha256"),
    "an applied hash": ({"known": {"0" * 64: PatchState.APPLIED}}, "needed or fixed"),
    "no specifier": ({"versions": "0.8.4"}, "no PEP 440 specifier"),
    "an empty range": ({"versions": ">=0.9,<0.8"}, "which no version is"),
    "two versions at once": ({"versions": "==0.8.4,==0.8.5"}, "which no version is"),
}


@pytest.mark.parametrize("name", BAD)
def test_nonsense_in_a_declaration_is_named(name: str) -> None:
    changes, expected = BAD[name]
    assert expected in fault(replace(PATCH, **changes), "glm4_residual")


@pytest.mark.parametrize("declared", [None, "glm4-residual", Patch])
def test_something_else_than_a_patch_is_named(declared: object) -> None:
    assert fault(declared, "glm4_residual") == "defines no PATCH that is a Patch"


@pytest.mark.parametrize(
    "versions",
    ["==0.8.4", "==0.8.*", ">=0.7.3,<0.8.5", "~=0.8.1", ">0.8.4,<0.8.5", "!=0.8.4", "<0.1", ">9"],
)
def test_a_range_that_some_version_satisfies_is_sound(versions: str) -> None:
    assert fault(replace(PATCH, versions=versions), "glm4_residual") == ""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of glmpatch to which a bad patch module can be added."""
    for package in ("patcher", "patches"):
        shutil.copytree(ROOT / package, tmp_path / package)
    return tmp_path


SAME_FILE = """\
from dataclasses import replace
from patches.glm4_residual import PATCH
PATCH = replace(PATCH, id="other")
"""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import no_such_module\n", "cannot be imported: ModuleNotFoundError: No module named"),
        ("def f(:\n", "cannot be imported: SyntaxError"),
        ("import sys; sys.exit(3)\n", "cannot be imported: SystemExit: 3"),
        ("", "defines no PATCH that is a Patch"),
        (
            SAME_FILE,
            "mends vllm/model_executor/models/glm4.py, as glm4-residual does",
        ),
    ],
)
def test_the_other_patches_work_without_a_bad_one(
    copy: Path, env: Environment, source: str, expected: str
) -> None:
    (copy / "patches" / "other.py").write_text(source)

    def run(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "patcher", *arguments],
            cwd=copy,
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout, done.stderr

    code, _, errors = run("list")
    assert code == Exit.INTERNAL
    assert f"patches/other.py {expected}" in errors
    assert "Traceback" not in errors
    code, out, errors = run("apply", "--json", "--python", str(env.root))
    answer = json.loads(out)
    assert code == Exit.INTERNAL, errors
    assert {each["id"] for each in answer["patches"] if each["changed"]} == GOOD
    assert expected in " ".join(answer["warnings"])
    code, _, errors = run("revert", *GOOD, "--python", str(env.root))
    assert code == 0, "what was named is done, and nothing is missing"
    code, _, errors = run("explain", "other")
    assert code == Exit.USAGE
    assert expected in errors


def test_without_anyone_to_warn_a_bad_module_is_an_error(copy: Path) -> None:
    (copy / "patches" / "other.py").write_text("PATCH = 1\n")
    done = subprocess.run(
        [sys.executable, "-c", "from patcher.patch import load_patches; load_patches()"],
        cwd=copy,
        env={},
        capture_output=True,
        text=True,
    )
    assert "patches/other.py defines no PATCH that is a Patch" in done.stderr
    assert done.returncode == 1
