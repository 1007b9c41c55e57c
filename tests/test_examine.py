"""The state of a patch on a target: what the file says, the receipt only explains."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from patcher import install
from patcher.examine import Examination, examine, examine_all
from patcher.patch import PatchState
from patcher.target import find_target
from patches.glm4_residual import PATCH
from tests.support import fake
from tests.support.environment import Environment
from tests.support.sources import repaired

DEV = "0.8.3rc2.dev107+gdb95cbc1e"


def make(tmp_path: Path, model: bytes | None, version: str = "0.8.4") -> Environment:
    return fake.environment(tmp_path / "env", model, version)


def look(env: Environment, any_version: bool = False) -> Examination:
    return examine(find_target(path=str(env.site)), PATCH, any_version)


def apply(env: Environment) -> None:
    found = look(env, any_version=True)
    assert found.plan is not None
    install.install(find_target(path=str(env.site)), PATCH, found.path, found.plan, None)


def test_the_released_file_needs_the_patch(tmp_path: Path, released_file: bytes) -> None:
    found = look(make(tmp_path, released_file))
    assert found.state is PatchState.NEEDED
    assert found.covered
    assert not found.defect
    assert found.receipt is None
    assert (found.problem, found.line) == ("", None)


def test_our_receipt_tells_applied_from_fixed(tmp_path: Path, released_file: bytes) -> None:
    env = make(tmp_path, released_file)
    apply(env)
    assert look(env).state is PatchState.APPLIED
    env.receipt.unlink()
    assert look(env).state is PatchState.FIXED


def test_applied_on_a_version_that_is_not_covered_stays_applied(
    tmp_path: Path, released_file: bytes
) -> None:
    env = make(tmp_path, released_file, DEV)
    assert look(env).defect
    apply(env)
    for any_version in (False, True):
        found = look(env, any_version)
        assert found.state is PatchState.APPLIED
        assert not found.defect


def test_a_forged_receipt_changes_nothing(tmp_path: Path, released_file: bytes) -> None:
    env = make(tmp_path, released_file)
    apply(env)
    receipt = json.loads(env.receipt.read_bytes())
    env.model.write_bytes(released_file)
    receipt["after"] = receipt["before"]
    env.receipt.write_text(json.dumps(receipt))
    found = look(env)
    assert found.state is PatchState.NEEDED
    assert not found.stale_receipt


def test_a_receipt_of_another_file_is_named_stale(tmp_path: Path, released_file: bytes) -> None:
    env = make(tmp_path, released_file)
    apply(env)
    assert not look(env).stale_receipt
    env.model.write_bytes(repaired(released_file) + b"# mine\n")
    found = look(env)
    assert found.state is PatchState.FIXED
    assert found.stale_receipt
    env.model.unlink()
    assert look(env).stale_receipt


@pytest.mark.parametrize("version", ["0.8.5", "0.9.0rc1", DEV, "nonsense", ""])
def test_other_versions_are_not_applicable_whatever_the_file(
    tmp_path: Path, released_file: bytes, version: str
) -> None:
    env = make(tmp_path, released_file)
    (env.dist_info / "METADATA").write_text(f"Metadata-Version: 2.1\nVersion: {version}\n")
    files = {released_file: True, repaired(released_file): False, b"x = 1\n": False, b"": False}
    for data, defect in files.items():
        env.model.write_bytes(data)
        found = look(env)
        assert (found.state, found.defect) == (PatchState.NOT_APPLICABLE, defect)
        assert not found.covered


def test_any_version_goes_by_the_structure(tmp_path: Path, released_file: bytes) -> None:
    env = make(tmp_path, released_file, "0.9.0")
    for data, state in {
        released_file: PatchState.NEEDED,
        repaired(released_file): PatchState.FIXED,
        b"x = 1\n": PatchState.DRIFTED,
    }.items():
        env.model.write_bytes(data)
        assert look(env, any_version=True).state is state
    env.model.unlink()
    assert look(env, any_version=True).state is PatchState.NOT_APPLICABLE


def test_a_missing_file_is_drift_where_the_release_has_it(tmp_path: Path) -> None:
    found = look(make(tmp_path, None))
    assert (found.state, found.plan) == (PatchState.DRIFTED, None)
    assert found.problem == "the file is missing"
    assert found.place == str(found.path)


def test_the_first_place_that_is_not_known_is_named(tmp_path: Path, released_file: bytes) -> None:
    source = released_file.replace(b"= residual + hidden", b"= 2 * residual + hidden", 1)
    line = source[: source.index(b"2 * residual")].count(b"\n") + 1
    found = look(make(tmp_path, source))
    assert found.state is PatchState.DRIFTED
    assert found.line == line
    assert found.place == f"{found.path}:{line}"
    assert found.problem


def test_a_linked_file_is_read_and_a_linked_folder_is_not(
    tmp_path: Path, released_file: bytes
) -> None:
    env = make(tmp_path, released_file)
    env.model.rename(tmp_path / "glm4.py")
    env.model.symlink_to(tmp_path / "glm4.py")
    assert look(env).state is PatchState.NEEDED
    for folder in (env.model.parent, env.model.parent.parent):
        folder.rename(tmp_path / folder.name)
        folder.symlink_to(tmp_path / folder.name)
        found = look(env)
        assert found.state is PatchState.DRIFTED
        assert found.problem == f"{folder} is a symbolic link to another folder"
        folder.unlink()
        (tmp_path / folder.name).rename(folder)


def test_a_linked_package_belongs_to_somebody_else(tmp_path: Path, released_file: bytes) -> None:
    env = make(tmp_path, released_file)
    (env.site / "vllm").rename(tmp_path / "vllm")
    (env.site / "vllm").symlink_to(tmp_path / "vllm")
    found = look(env)
    assert found.state is PatchState.DRIFTED
    assert found.problem == f"{env.site / 'vllm'} is a symbolic link to another folder"


def test_what_is_no_file_is_not_opened(tmp_path: Path, released_file: bytes) -> None:
    env = make(tmp_path, released_file)
    env.model.unlink()
    os.mkfifo(env.model)  # opening it would wait for a writer for ever
    assert look(env).problem == "not a regular file"
    env.model.unlink()
    env.model.symlink_to("glm4.py")
    found = look(env)
    assert found.state is PatchState.DRIFTED
    assert found.problem


def test_examining_writes_nothing(tmp_path: Path, released_file: bytes) -> None:
    env = make(tmp_path, released_file)
    before = env.tree()
    (found,) = examine_all(find_target(path=str(env.site)), [PATCH])
    assert found.state is PatchState.NEEDED
    assert env.tree() == before
