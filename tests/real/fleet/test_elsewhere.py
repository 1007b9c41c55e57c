"""Where the fleet is something else: the examples and lines of docs/fleets.md, in plain folders."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support import cache, fake, releases
from tests.support.command import read_only
from tests.support.environment import MODEL_FILE, Environment, glmpatch

pytestmark = pytest.mark.real
EXAMPLES = Path(__file__).parents[3] / "examples"
DOCS = Path(__file__).parents[3] / "docs" / "fleets.md"
ID = "glm4-residual"
WHERE = "import importlib.util as i; print(i.find_spec('vllm.model_executor.models.glm4').origin)"


def light(root: Path) -> Environment:
    env = fake.environment(root, fake.source(MODEL_FILE), others=fake.released())
    for package in ("vllm/model_executor", "vllm/model_executor/models"):
        (env.site / package / "__init__.py").touch()
    (env.site / "vllm/_version.py").write_text("__version__ = version = '0.8.4'\n")
    (root / "bin" / "python3").symlink_to("python")
    return env


@pytest.fixture
def image(tmp_path: Path) -> Environment:
    return light(tmp_path / "image")


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """The command as a program."""
    program = tmp_path / "glmpatch"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m glmpatch "$@"\n')
    program.chmod(0o755)
    return program


# -- Kubernetes ---------------------------------------------------------------------------------


def test_a_copy_on_a_volume(image: Environment, command: Path, tmp_path: Path) -> None:
    """The example, but for the network and the proof; what the server imports is the repaired."""
    pod = yaml.safe_load((EXAMPLES / "kubernetes" / "pod.yaml").read_text())["spec"]
    (init,) = pod["initContainers"]
    volume = tmp_path / "volume"
    volume.mkdir()
    lines = init["args"][0].splitlines()
    (told,) = (line for line in lines if "/bin/glmpatch" in line)
    assert "--verify" in told
    script = "\n".join(line for line in lines if "venv" not in line and "pip install" not in line)
    script = script.replace("/tools/glmpatch/bin/glmpatch", str(command))
    script = script.replace("--verify ", "").replace("/repaired", str(volume))
    path = f"{image.root / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        [*init["command"], script], env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    repaired = volume / MODEL_FILE
    assert repaired.read_bytes() == fake.repaired()[MODEL_FILE]
    assert image.model.read_bytes() == fake.source(MODEL_FILE)

    (server,) = pod["containers"]
    (overlay,) = (each["value"] for each in server["env"] if each["name"] == "PYTHONPATH")
    assert overlay == "/repaired"
    there = {**os.environ, "PATH": path, "PYTHONPATH": str(volume)}
    origin = subprocess.run(
        ["python3", "-c", WHERE], env=there, capture_output=True, text=True
    ).stdout.strip()
    assert origin == str(repaired)
    probe = [str(command), *server["startupProbe"]["exec"]["command"][1:]]
    assert probe[1:4] == ["status", "--check", "-q"]
    assert subprocess.run(probe, env=there).returncode == 0
    without = {name: value for name, value in there.items() if name != "PYTHONPATH"}
    assert subprocess.run(probe, env=without).returncode == 1


def test_a_copy_whose_metadata_came_along(image: Environment, tmp_path: Path) -> None:
    """Two whole installs: --path says which, --python whose interpreter proves and compiles it."""
    for name in ("vllm", "vllm-0.8.4.dist-info"):
        shutil.copytree(image.site / name, tmp_path / "volume" / name)
    on = ("--path", str(tmp_path / "volume"), "--python", str(image.root))
    assert glmpatch("apply", *on).returncode == 0
    assert glmpatch("status", "--check", *on).returncode == 0
    assert glmpatch("status", "--check", "--python", str(image.root)).returncode == 1


def test_two_on_a_path_that_no_variable_says(image: Environment, tmp_path: Path) -> None:
    """By a .pth file both are there: it is asked which is meant, and the answer works."""
    shutil.copytree(image.site / "vllm", tmp_path / "volume" / "vllm")
    (image.site / "volume.pth").write_text(f"{tmp_path / 'volume'}\n")
    run = glmpatch("status", "--python", str(image.root))
    assert run.returncode == 3
    assert "more than one vLLM" in run.stderr
    (named,) = re.findall(r"--path (\S+)", run.stderr)
    assert glmpatch("apply", "--path", named, "--python", str(image.root)).returncode == 0


# -- docker run --read-only, and every start ----------------------------------------------------


def test_a_read_only_root_is_looked_at_and_left_alone(image: Environment) -> None:
    on = ("--python", str(image.root))
    with read_only(image.root):
        assert glmpatch("status", "--check", "-q", *on).returncode == 1
        run = glmpatch("apply", *on)
        assert run.returncode == 3
        assert "read-only" in run.stderr
    assert glmpatch("apply", *on).returncode == 0
    with read_only(image.root):
        for line in (["status", "--check", "-q"], ["apply", "-q"]):
            run = glmpatch(*line, *on)
            assert (run.returncode, run.stdout, run.stderr) == (0, "", ""), run.stderr


def test_a_start_that_waits_for_the_repair(image: Environment, command: Path) -> None:
    """The lines of the entrypoint in the page."""
    (entrypoint,) = re.findall(r"```sh\n(#!/bin/sh\n.*?)```", DOCS.read_text(), re.S)
    script = entrypoint.replace("exec vllm serve", "echo serve")
    script = re.sub(r"\bglmpatch (\w+)", rf"{command} \1 --python {image.root}", script)
    assert str(command) in script
    for _ in range(2):
        done = subprocess.run(["sh", "-c", script, "sh", "model"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "serve model\n"), done.stderr
    assert image.model.read_bytes() == fake.repaired()[MODEL_FILE]
    image.model.write_bytes(b"(")
    done = subprocess.run(["sh", "-c", script, "sh", "model"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (5, "")


# -- srun ---------------------------------------------------------------------------------------


def test_all_tasks_of_srun_on_one_file_system(image: Environment, command: Path) -> None:
    tasks = [
        subprocess.Popen(
            [str(command), "apply", "--json", "--python", str(image.root)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = [json.loads(task.communicate()[0]) for task in tasks]
    assert [each["exit_code"] for each in said] == [0] * 4
    assert image.model.read_bytes() == fake.repaired()[MODEL_FILE]


# -- Ansible ------------------------------------------------------------------------------------


def test_ansible_over_hosts_that_differ(command: Path, tmp_path: Path) -> None:
    ansible = cache.environment("ansible-core-2.18", ["ansible-core==2.18.*"])
    hosts = {
        "released": light(tmp_path / "released"),
        "repaired": light(tmp_path / "repaired"),
        "upstream": fake.environment(
            tmp_path / "upstream", releases.read("0.8.5", MODEL_FILE), "0.8.5"
        ),
    }
    assert glmpatch("apply", "--python", str(hosts["repaired"].root)).returncode == 0
    drifted = fake.environment(tmp_path / "drifted", b"(")
    inventory = tmp_path / "inventory"

    def play(**envs: Environment) -> tuple[int, dict[str, tuple[str, str]]]:
        inventory.write_text(
            "".join(
                f"{name} ansible_connection=local ansible_python_interpreter={sys.executable} "
                f"vllm_python={env.python} glmpatch={command}\n"
                for name, env in envs.items()
            )
        )
        done = subprocess.run(
            [
                *(str(ansible / "bin" / "ansible-playbook"), "-i", str(inventory)),
                str(EXAMPLES / "ansible" / "glmpatch.yml"),
            ],
            capture_output=True,
            text=True,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(tmp_path / "home")},
        )
        recap = re.findall(r"^(\w+) +: ok=\d+ +changed=(\d) .*failed=(\d)", done.stdout, re.M)
        assert recap, done.stdout + done.stderr
        return done.returncode, {name: (changed, failed) for name, changed, failed in recap}

    nothing = ("0", "0")
    assert play(**hosts) == (
        0,
        {"released": ("1", "0"), "repaired": nothing, "upstream": nothing},
    )
    assert play(**hosts) == (0, dict.fromkeys(hosts, nothing))
    assert play(drifted=drifted) == (2, {"drifted": ("0", "1")})
