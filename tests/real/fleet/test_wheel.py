"""A repaired wheel of the real vLLM 0.8.4, as pip and uv take it; and what it costs to make."""

from __future__ import annotations

import email
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from glmpatch import catalogue
from glmpatch.fleet.archive import Archive
from glmpatch.fleet.contents import Wheel, name_of
from glmpatch.fleet.wheel import Repaired, wheel
from glmpatch.site import wheel_receipt as receipt
from tests import released
from tests.fleet import toy
from tests.support import cache
from tests.support.environment import MODEL_FILE

pytestmark = pytest.mark.real

MEMORY = 60
"""MB that making a wheel may take, LibCST included."""
TIME = 1.5
"""Times what copying the wheel and its sha256 take of a CPU."""


@pytest.fixture(scope="module")
def done(released_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Repaired:
    return wheel(released_wheel, tmp_path_factory.mktemp("links"))


@pytest.fixture(scope="module")
def made(done: Repaired) -> Path:
    """The repaired wheel, alone in its folder."""
    assert done.path is not None
    return done.path


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with pip alone."""
    root = tmp_path_factory.mktemp("bare") / "env"
    cache.uv("venv", "--seed", "--python", sys.executable, str(root))
    return root


def pip(root: Path, *arguments: str) -> str:
    command = [str(root / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def uv(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """uv with a cache for this module: it keeps each wheel from a path unpacked, 0.9 GB of vLLM."""
    folder = tmp_path_factory.mktemp("uv")

    def uv(*arguments: str, stderr: bool = False) -> str:
        return cache.uv(*arguments, stderr=stderr, env={"UV_CACHE_DIR": str(folder)})

    yield uv
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def uv_pip(uv: Callable[..., str]) -> Callable[..., str]:
    def install(root: Path, *arguments: str) -> str:
        return uv("pip", "install", "--python", str(root), *arguments, stderr=True)

    return install


def site(root: Path) -> Path:
    (folder,) = (root / "lib").glob("python3*/site-packages")
    return folder


def mended() -> dict[str, str]:
    """File -> sha256 of the repaired one, from the table, for what is repaired unasked."""
    rows = [
        row
        for patch in catalogue.load_patches()
        if patch.advised and patch.covers("0.8.4")
        for row in catalogue.table(patch).of("0.8.4")
    ]
    assert MODEL_FILE in {row.file for row in rows}
    return {row.file: row.mended for row in rows}


def assert_repaired(root: Path, done: Repaired) -> None:
    """That the environment has the repaired vLLM, whole, and nothing of another one."""
    folder = site(root)
    for file, digest in mended().items():
        assert sha256((folder / file).read_bytes()).hexdigest() == digest
    assert [each.name for each in folder.glob("vllm-*")] == [f"vllm-{done.version}.dist-info"]
    found = receipt.read_wheel_receipt(folder / f"vllm-{done.version}.dist-info")
    assert found is not None
    assert found["from"]["name"] == done.source.name
    code = (
        "import importlib.metadata as m, importlib.util as u, pathlib, json, sys;"
        "d = m.distribution('vllm');"
        "spec = u.spec_from_file_location('x', d.locate_file(sys.argv[1]));"
        "print(json.dumps([d.version, len(d.files), spec.loader.get_data(spec.origin).hex()]))"
    )
    command = [str(root / "bin" / "python"), "-c", code, MODEL_FILE]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    version, files, content = json.loads(output)
    assert version == done.version
    assert sha256(bytes.fromhex(content)).hexdigest() == mended()[MODEL_FILE]
    assert files > 1000


# -- what is made -------------------------------------------------------------------------------


def test_the_same_bytes_twice_and_every_file_is_that_of_record(
    released_wheel: Path, made: Path, done: Repaired, tmp_path: Path
) -> None:
    assert done.released
    again = wheel(released_wheel, tmp_path)
    assert again.path is not None
    assert (again.path.name, digest(again.path)) == (made.name, digest(made))
    with Archive(made) as archive:
        assert Wheel(archive, name_of(made)).check_files() > 1000


def test_only_what_was_repaired_differs(released_wheel: Path, made: Path, done: Repaired) -> None:
    with zipfile.ZipFile(released_wheel) as old, zipfile.ZipFile(made) as new:
        info = f"vllm-{done.version}.dist-info"
        was = {e.filename.replace("vllm-0.8.4.dist-info", info): e.CRC for e in old.infolist()}
        now = {e.filename: e.CRC for e in new.infolist()}
        changed = {name for name in {*was, *now} if was.get(name) != now.get(name)}
        beside = {f"{info}/{file}" for file in ("METADATA", "RECORD", receipt.NAME)}
        assert changed == {*mended(), *beside}
        before, after = (
            email.message_from_bytes(wheel.read(f"{folder}/METADATA"))
            for wheel, folder in ((old, "vllm-0.8.4.dist-info"), (new, info))
        )
        assert (before["Version"], after["Version"]) == ("0.8.4", done.version)
        assert before.get_all("Requires-Dist") == after.get_all("Requires-Dist")
        assert b"linux_x86_64" in new.read(f"{info}/WHEEL")
    assert made.name.endswith("-cp38-abi3-manylinux1_x86_64.whl")


def digest(path: Path) -> str:
    with path.open("rb") as file:
        found = sha256()
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


COST = """
import hashlib, json, os, sys, time
from pathlib import Path
from unittest import mock
from glmpatch.fleet import released, wheel as wheels

source, folder = map(Path, sys.argv[1:])

def copy():
    with source.open("rb") as old, (folder / "copy").open("wb") as new:
        while block := old.read(1 << 20):
            new.write(block)
        os.fsync(new.fileno())
    os.unlink(folder / "copy")

def repair():
    os.unlink(wheels.wheel(source, folder).path)

def sha256():
    with source.open("rb") as file:
        found = hashlib.sha256()
        while block := file.read(1 << 20):
            found.update(block)

def cost(do):
    before = time.perf_counter(), time.process_time()
    do()
    return time.perf_counter() - before[0], time.process_time() - before[1]

first, _ = cost(repair)
real, made = wheels._plan, []

def plan(*arguments):
    if not made:
        made.append(real(*arguments))
    return made[0]

wheels._plan = plan
repair()
rounds = [[cost(do) for do in (copy, repair, sha256)] for _ in range(3)]
copied, repaired, hashed = (
    [min(each[part] for each in column) for part in (0, 1)] for column in zip(*rounds)
)
with mock.patch.object(released, "wheels", dict):
    unpacked, _ = cost(repair)
peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
print(json.dumps([first, copied, repaired, hashed, unpacked, int(peak) / 1024]))
"""


def test_what_it_costs(
    released_wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against copying to the same disk. The plans, for which LibCST reads the files, are left out.

    sha256 runs beside the copying, so that it costs time only where no core is free: of seconds
    of the clock what is printed is true of this machine now, of seconds of a CPU there is a limit.
    """
    command = [sys.executable, "-c", COST, str(released_wheel), str(tmp_path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    first, copied, repaired, hashed, unpacked, memory = json.loads(output)
    with capsys.disabled():
        print(
            f"\ncopy {copied[0]:.2f} s, wheel {repaired[0] / copied[0]:.2f} x (CPU: copy "
            f"{copied[1]:.2f} s, sha256 {hashed[1]:.2f} s, wheel {repaired[1]:.2f} s); the first "
            f"in a process, with LibCST {first:.2f} s; one that the registry does not have "
            f"{unpacked:.2f} s; {memory:.0f} MB"
        )
    assert memory <= MEMORY
    assert repaired[1] <= TIME * (copied[1] + hashed[1])


def test_the_table_of_released_wheels_is_the_registrys() -> None:
    assert released.main("--check") == 0


# -- who takes it -------------------------------------------------------------------------------


@pytest.fixture
def needs(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a package that wants a release of vLLM."""

    def make(version: str) -> Path:
        name = "needs_vllm_" + version.replace(".", "_")
        files = {
            f"{name}.py": b"",
            f"{name}-1.dist-info/METADATA": (
                f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\nRequires-Dist: vllm=={version}\n"
            ).encode(),
            f"{name}-1.dist-info/WHEEL": (
                b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            ),
        }
        path = tmp_path / f"{name}-1-py3-none-any.whl"
        return toy.pack(path, files, info=f"{name}-1.dist-info")

    return make


def test_pip_installs_it_and_is_content_and_uninstalls_it(
    bare: Path, made: Path, done: Repaired, needs: Callable[[str], Path]
) -> None:
    output = pip(bare, "install", "--no-deps", "--no-compile", "-q", str(made))
    assert_repaired(bare, done)
    pip(bare, "install", "-q", "--no-deps", str(needs("0.8.4")), str(needs("0.8.3")))
    problems = pip(bare, "check")
    assert "needs-vllm-0-8-4" not in problems.replace("_", "-"), output + problems
    assert "needs-vllm-0-8-3 1 has requirement vllm==0.8.3" in problems.replace("_", "-"), problems
    pip(bare, "uninstall", "-q", "-y", "vllm")
    assert list(site(bare).glob("vllm*")) == []


def test_over_an_installed_release_it_takes_an_upgrade(
    released_wheel: Path,
    made: Path,
    done: Repaired,
    uv_pip: Callable[..., str],
    tmp_path: Path,
) -> None:
    root = tmp_path / "env"
    cache.uv("venv", "--seed", "--python", sys.executable, str(root))
    uv_pip(root, "--no-deps", str(released_wheel))
    wanted = ["--no-deps", "--find-links", str(made.parent), "vllm==0.8.4"]
    dry = ["install", "--dry-run", *wanted]
    assert "Would install" not in pip(root, *dry)
    assert f"Would install vllm-{done.version}" in pip(root, *dry, "-U")
    assert "+ vllm" not in uv_pip(root, *wanted)
    assert f"+ vllm=={done.version}" in uv_pip(root, "-U", *wanted)
    assert_repaired(root, done)


def test_links_are_preferred_to_the_index_also_with_hashes(
    bare: Path, made: Path, done: Repaired, uv_pip: Callable[..., str], tmp_path: Path
) -> None:
    pinned = tmp_path / "requirements.txt"
    pinned.write_text(f"vllm=={done.version} --hash=sha256:{digest(made)}\n")
    wrong = tmp_path / "wrong.txt"
    wrong.write_text(f"vllm=={done.version} --hash=sha256:{'0' * 64}\n")
    links = ["--dry-run", "--no-deps", "--find-links", str(made.parent)]
    for what in (["vllm==0.8.4"], ["--require-hashes", "-r", str(pinned)]):
        assert f"Would install vllm-{done.version}" in pip(bare, "install", *links, *what)
        assert f"+ vllm=={done.version}" in uv_pip(bare, *links, *what)
    assert "THESE PACKAGES DO NOT MATCH" in pip(
        bare, "install", *links, "--require-hashes", "-r", str(wrong)
    )


def test_uv_locks_it_and_a_package_that_wants_the_release_gets_it(
    made: Path,
    done: Repaired,
    needs: Callable[[str], Path],
    uv: Callable[..., str],
    tmp_path: Path,
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    links = project / "links"
    links.mkdir()
    os.link(made, links / made.name)
    shutil.copy(needs("0.8.4"), links)
    (project / "pyproject.toml").write_text(
        f"""\
[project]
name = "server"
version = "1"
requires-python = "=={sys.version_info.major}.{sys.version_info.minor}.*"
dependencies = ["needs-vllm-0-8-4"]

[tool.uv]
find-links = ["links"]
environments = [
    "sys_platform == 'linux' and platform_machine == 'x86_64' and \
platform_python_implementation == 'CPython'",
]
"""
    )
    uv("lock", "--project", str(project))
    assert f'name = "vllm"\nversion = "{done.version}"\n' in (project / "uv.lock").read_text()
    uv("lock", "--check", "--project", str(project))
