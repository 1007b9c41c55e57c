"""What docs/inventory.md says that inventories say: the commands are run here."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path

import pytest

from tests.command.test_cli import ask, here, of
from tests.command.test_wheel import released_wheel
from tests.support import fake
from tests.support.environment import MODEL_FILE, Environment

pytestmark = pytest.mark.real
__all__ = ["released_wheel"]


@pytest.fixture
def patched(tmp_path: Path) -> Environment:
    env = Environment(tmp_path / "env")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(env.root)], check=True)
    site = next((env.root / "lib").glob("python3*")) / "site-packages"
    info = fake.vllm(site, fake.source(MODEL_FILE), others=fake.released())
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nTag: cp38-abi3-linux_x86_64\n")
    assert here("apply", "--python", str(env.root)).returncode == 0
    return env


@pytest.fixture
def from_wheel(released_wheel: Path, tmp_path: Path) -> Environment:
    env = Environment(tmp_path / "other")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(env.root)], check=True)
    links = tmp_path / "links"
    links.mkdir()
    ask("wheel", str(released_wheel), "-o", str(links), code=0)
    uv = [sys.executable, "-m", "uv", "pip", "install", "-q", "--no-deps", "--no-index"]
    install = [*uv, "--find-links", str(links), "--python", str(env.python), "vllm==0.8.4"]
    subprocess.run(install, check=True)
    return env


def said(*command: str | Path) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def inventory(env: Environment) -> dict[str, str]:
    """The version of vLLM by each of the tools."""
    python, pip = str(env.python), (sys.executable, "-m", "pip", "--python", str(env.python))
    uv = (sys.executable, "-m", "uv", "pip")
    said(*uv, "check", "--python", python)
    said(*pip, "check")
    found = {
        "pip freeze": said(*pip, "freeze"),
        "uv pip freeze": said(*uv, "freeze", "--python", python),
    }
    found = {k: v.partition("vllm==")[2].partition("\n")[0] for k, v in found.items()}
    listed = json.loads(said(sys.executable, "-m", "cyclonedx_py", "environment", python))
    (component,) = (c for c in listed["components"] if c["name"] == "vllm")
    return {**found, "CycloneDX": component["version"]}


def unfit(env: Environment) -> set[str]:
    """Files that are not as RECORD has them."""
    wrong = set()
    with env.record.open(newline="") as lines:
        for name, digest, _ in csv.reader(lines):
            if digest:
                data = (env.site / name).read_bytes()
                own = urlsafe_b64encode(sha256(data).digest()).rstrip(b"=").decode()
                if digest != f"sha256={own}":
                    wrong.add(name)
    return wrong


def test_after_apply(patched: Environment) -> None:
    assert set(inventory(patched).values()) == {"0.8.4"}
    assert unfit(patched) == {MODEL_FILE, "vllm/model_executor/models/glm.py"}
    listed = patched.record.read_text()
    assert "glmpatch-glm4-residual.json" in listed
    assert "glmpatch-glm4-residual.original" in listed
    answer = of(ask("status", "--python", str(patched.root), code=0))
    assert answer["state"] == "applied"
    assert answer["sha256"] == sha256(patched.model.read_bytes()).hexdigest()


def test_after_a_repaired_wheel(from_wheel: Environment) -> None:
    (version,) = set(inventory(from_wheel).values())
    assert version.startswith("0.8.4+glmpatch.")
    assert unfit(from_wheel) == set()
    assert "glmpatch.json" in from_wheel.record.read_text()
    assert of(ask("status", "--python", str(from_wheel.root), code=0))["wheel"]
