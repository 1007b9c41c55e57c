"""``glmpatch wheel``, and what an environment made from such a wheel is said to be."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path

import pytest

from tests.command.test_cli import ask, here, of, states
from tests.support import fake
from tests.support.environment import Environment

pytestmark = pytest.mark.real  # the files are vLLM's own


@pytest.fixture
def released_wheel(tmp_path: Path) -> Path:
    """A small wheel with the released files of vLLM 0.8.4 that the patches are about."""
    fake.vllm(
        tmp_path / "site", fake.source("vllm/model_executor/models/glm4.py"), others=fake.released()
    )
    path = tmp_path / "vllm-0.8.4-cp38-abi3-manylinux1_x86_64.whl"
    info = tmp_path / "site" / "vllm-0.8.4.dist-info"
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nTag: cp38-abi3-linux_x86_64\n")
    record = info / "RECORD"
    lines = []
    for file in sorted((tmp_path / "site").rglob("*")):
        if file.is_file() and file != record:
            digest = urlsafe_b64encode(sha256(file.read_bytes()).digest()).rstrip(b"=").decode()
            name = file.relative_to(tmp_path / "site")
            lines.append(f"{name},sha256={digest},{file.stat().st_size}\n")
    record.write_text("".join(lines) + f"{info.name}/RECORD,,\n")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((tmp_path / "site").rglob("*")):
            if file.is_file():
                archive.write(file, str(file.relative_to(tmp_path / "site")))
    return path


def test_an_environment_made_from_it_says_so(released_wheel: Path, tmp_path: Path) -> None:
    answer = ask("wheel", str(released_wheel), "-o", str(tmp_path), code=0)
    made = Path(answer["wheel"])
    assert made.exists()
    assert {each["id"] for each in answer["patches"]} == {"glm4-residual", "glm-rope"}
    env = Environment(tmp_path / "env")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(env.root)], check=True)
    uv = [sys.executable, "-m", "uv", "pip", "install", "-q", "--no-deps"]
    subprocess.run([*uv, "--python", str(env.python), str(made)], check=True)
    on = ("--python", str(env.root))
    told = ask("status", "--check", *on, code=0)
    assert states(told)["glm4-residual"] == "applied"
    assert of(told)["wheel"] == released_wheel.name
    assert "glm4-residual: applied (wheel)" in here("status", *on).stdout
    assert f"in the wheel made from {released_wheel.name}" in here("apply", *on).stdout
    before = env.tree()
    done = here("revert", *on)
    assert done.returncode == 0
    assert f"it came in a wheel made from {released_wheel.name}" in done.stdout
    # The repaired wheel would satisfy ==, and is offered where it came from.
    assert "vllm===0.8.4" in done.stdout
    assert env.tree() == before


def test_its_hint_names_a_folder_with_a_blank_as_a_shell_takes_it(
    released_wheel: Path, tmp_path: Path
) -> None:
    links = tmp_path / "my links"
    links.mkdir()
    done = here("wheel", str(released_wheel), "-o", str(links))
    assert f"--find-links '{links}' vllm==" in done.stderr


def test_a_repaired_wheel_has_nothing_to_repair(released_wheel: Path, tmp_path: Path) -> None:
    made = json.loads(here("wheel", str(released_wheel), "-o", str(tmp_path), "--json").stdout)
    done = here("wheel", made["wheel"], "-o", str(tmp_path))
    assert done.returncode == 0
    assert "nothing to repair" in done.stdout


def test_a_proof_needs_an_environment(released_wheel: Path) -> None:
    done = here("wheel", str(released_wheel), "--verify")
    assert done.returncode == 2
    assert f"glmpatch wheel {released_wheel} --verify --python" in done.stderr
