"""Hints are commands that work when pasted: each that a test provokes is run by a shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from glmpatch.site import surroundings
from glmpatch.site.target import find_target
from glmpatch.words import Words
from tests.support import fake
from tests.support.cache import cache
from tests.support.environment import Environment, glmpatch

pytestmark = pytest.mark.real
COMMAND = re.compile(r"(?:^|: )((?:\S*python\S* -m glmpatch|glmpatch|uvx|uv pip|git) .*)$")
SLOW = ("--verify", " verify ")
"""A proof needs a real vLLM; it is enough here that the words are understood."""


def hints(stderr: str) -> list[str]:
    """The commands that the hints of an output name."""
    lines = [line.removeprefix("hint: ") for line in stderr.splitlines() if "hint: " in line]
    return [found[1] for line in lines if (found := COMMAND.search(line))]


def pasted(command: str, env: Environment) -> subprocess.CompletedProcess[str]:
    if any(word in f"{command} " for word in SLOW):
        command += " --help"
    return subprocess.run(
        ["sh", "-c", command],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )


@pytest.fixture
def fresh(tmp_path: Path, released_file: bytes) -> Environment:
    return fake.environment(tmp_path / "my env", released_file, others=fake.released())


@pytest.mark.parametrize("state", ["needed", "unproven", "drifted", "defect", "edited"])
@pytest.mark.parametrize("command", ["status", "apply", "diff", "revert"])
def test_what_a_hint_says_can_be_typed(command: str, state: str, fresh: Environment) -> None:
    source = fresh.model.read_bytes()
    on = ("--path", str(fresh.site))
    if state == "edited":
        assert glmpatch("apply", *on).returncode == 0
        fresh.model.write_bytes(fresh.model.read_bytes() + b"# mine\n")
    elif state == "defect":
        (fresh.dist_info / "METADATA").write_text("Name: vllm\nVersion: 0.8.5.dev7+g0\n")
    elif state != "needed":
        word = b"get_rope(" if state == "drifted" else b"compute_logits("
        fresh.model.write_bytes(source.replace(word, b"other_" + word))
    done = glmpatch(command, *on)
    found = hints(done.stderr)
    assert found or (command, state) in {
        ("apply", "needed"),
        ("apply", "edited"),
        ("diff", "needed"),
        ("diff", "edited"),
        *((("revert", each)) for each in ("needed", "unproven", "drifted", "defect", "edited")),
    }, done.stderr
    for each in found:
        again = pasted(each, fresh)
        assert again.returncode in (0, 5), (each, again.stderr)
        assert "Usage" not in again.stderr, each
        assert "not found" not in again.stderr, each


def test_an_unknown_file_is_to_be_proven_first_and_reinstalled_last(fresh: Environment) -> None:
    source = fresh.model.read_bytes()
    on = ("--path", str(fresh.site))
    fresh.model.write_bytes(source.replace(b"compute_logits(", b"other("))
    lines = [line for line in glmpatch("apply", *on).stderr.splitlines() if "hint" in line]
    assert "apply glm4-residual --verify" in lines[0]
    assert "reinstall" in lines[1]
    fresh.model.write_bytes(source.replace(b"get_rope(", b"other("))
    lines = [line for line in glmpatch("apply", *on).stderr.splitlines() if "hint" in line]
    assert "verify glm4-residual" in lines[0]


def test_the_script_is_named_as_path_finds_it(tmp_path: Path, fresh: Environment) -> None:
    script = Path(sys.executable).with_name("glmpatch")
    on = ["status", "--path", str(fresh.site)]
    for path, start in ((str(script.parent), "glmpatch apply"), ("/nowhere", f"{script} apply")):
        done = subprocess.run(
            [str(script), *on], capture_output=True, text=True, env={**os.environ, "PATH": path}
        )
        assert f"hint: {start}" in done.stderr


def test_uvx_is_named_as_it_was_typed(fresh: Environment) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "uv", "tool", "run", "--from", str(root)),
            *("glmpatch", "status", "--path", str(fresh.site)),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "UV_CACHE_DIR": str(cache() / "uv")},
    )
    assert done.returncode == 0, done.stderr
    assert f"tool run --from {root} glmpatch apply" in done.stderr


def test_the_installer_is_one_that_the_environment_has(
    fresh: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = replace(find_target(str(fresh.root)), paths=(str(fresh.site),))
    monkeypatch.setenv("PATH", "/nowhere")
    assert surroundings.install(target, "a==1").endswith("-m pip install a==1")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert "uv pip install --python" in surroundings.install(target, "a==1")
    pip = fresh.site / "pip" / "__init__.py"
    pip.parent.mkdir()
    pip.touch()
    assert surroundings.install(target, "a==1").endswith("-m pip install a==1")
    assert surroundings.install(target, "a", force=True).endswith("--force-reinstall --no-deps a")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to set a flag and a mount")
def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert surroundings.obstacle(file) == ""
    if subprocess.run(["chattr", "+i", str(file)], capture_output=True).returncode == 0:
        assert f"chattr -i {file}" in surroundings.obstacle(file)
        subprocess.run(["chattr", "-i", str(file)], check=True)
    folder = tmp_path / "mounted"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "x", str(folder)]).returncode == 0:
        try:
            assert "read-only" in surroundings.obstacle(folder)
        finally:
            subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to set a flag")
@pytest.mark.parametrize("where", ["file", "models", "dist-info"])
def test_a_flag_of_chattr_is_named_before_anything_is_done(where: str, fresh: Environment) -> None:
    place = {"file": fresh.model, "models": fresh.model.parent, "dist-info": fresh.dist_info}[where]
    before = fresh.tree()
    if subprocess.run(["chattr", "+i", str(place)], capture_output=True).returncode:
        pytest.skip("a file system without flags")
    try:
        done = glmpatch("apply", "--verify", "--path", str(fresh.site))
    finally:
        subprocess.run(["chattr", "-i", str(place)], check=True)
    assert done.returncode == 3
    assert f"hint: it is immutable: chattr -i '{place}'" in done.stderr
    assert "starting the interpreter" not in done.stderr
    assert fresh.tree() == before


@pytest.mark.parametrize("command", [["statu"], ["status", "--nope"], ["explain"], ["wheel"], []])
def test_wrong_usage_leads_to_the_help_as_it_was_started(command: list[str]) -> None:
    done = glmpatch(*command or ["--nope"], env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 2
    (hint,) = [line for line in done.stderr.splitlines() if line.startswith("hint: ")]
    assert hint.startswith(f"hint: {sys.executable} -m glmpatch ")
    assert hint.endswith(" --help")


def test_what_is_not_advised_is_named_where_it_was_asked_for(fresh: Environment) -> None:
    name = "glm4-float16-guard"
    done = glmpatch("status", name, "--check", "--path", str(fresh.site))
    assert done.returncode == 1
    (command,) = hints(done.stderr)
    assert f" apply {name} --verify " in command
    words = Words("glmpatch", ["--path", "/a"])
    failure = words.proof_failed([name], planned=False, named=[name], any_version=True)
    assert f"glmpatch apply {name} --verify --any-version --path /a mends it" in failure.hint


def test_a_checkout_is_restored_by_git_only_where_git_can(tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").touch()
    (tmp_path / "vllm" / "a.py").write_text("1\n")
    target = find_target(path=str(tmp_path))
    assert "put the file" in surroundings.restore(target, "vllm/a.py")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run(
            ["git", "-c", "user.name=x", "-c", "user.email=x@x", *arguments],
            cwd=tmp_path,
            check=True,
        )
    assert "check out another one" in surroundings.restore(target, "vllm/a.py")
    (tmp_path / "vllm" / "a.py").write_text("2\n")
    command = surroundings.restore(target, "vllm/a.py").partition(": ")[2]
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    assert (tmp_path / "vllm" / "a.py").read_text() == "1\n"
