"""The patches about weights, as a user meets them: proven, repaired, and taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from glmpatch.catalogue import select_patches
from tests.support import light
from tests.support.environment import glmpatch
from tests.support.proving import mended, released

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("name", "release"),
    [("glm4-moe", "0.24.0"), ("glm4-moe-mtp", "0.13.0"), ("glm-ocr-mtp", "0.29.0")],
)
def test_apply_with_proof_and_revert(name: str, release: str, tmp_path: Path) -> None:
    (patch,) = select_patches([name])
    env = light.install(release, tmp_path / "env")
    file = env.site / patch.path(release)
    where = ("--python", str(env.root))
    before = env.tree()

    done = glmpatch("apply", name, "--verify", *where)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{name}: passed" in done.stdout
    assert file.read_bytes() == mended(patch, release)
    again = glmpatch("apply", name, *where)
    assert again.returncode == 0, again.stdout + again.stderr
    assert glmpatch("status", name, "--check", *where).returncode == 0

    done = glmpatch("revert", name, *where)
    assert done.returncode == 0, done.stdout + done.stderr
    assert file.read_bytes() == released(patch, release)
    assert env.tree() == before
    assert glmpatch("status", name, "--check", *where).returncode == 1
