"""The example as a build step: real images by a real engine, on a stand-in for the published one.

What the tests look at is what a user gets: files, messages, exit codes, containers.
"""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path

import pytest

from glmpatch.catalogue import load_patches
from glmpatch.source import sha256
from tests.real.docker import stand_in
from tests.real.docker.conftest import EXAMPLE, Build
from tests.real.docker.engine import Engine
from tests.real.docker.stand_in import SITE
from tests.support.environment import MODEL_FILE
from tests.support.sources import repaired, replace

PYTHON = ("--python", "/usr/bin/python3")
INFO = f"{SITE}/vllm-0.8.4.dist-info"
PATCHES = [p for p in load_patches() if p.covers("0.8.4") and p.advised]
REPAIRED = {patch.path("0.8.4") for patch in PATCHES}
LEFT_BY_GLMPATCH = {
    f"{INFO}/glmpatch-{patch.id}.{kind}" for patch in PATCHES for kind in ("json", "original")
}
WHAT_RUNS = f"""\
from importlib.machinery import SourceFileLoader
path = "{SITE}/{MODEL_FILE}"
loader = SourceFileLoader("glm4", path)
print(loader.get_code("glm4") == compile(loader.get_data(path), path, "exec", dont_inherit=True))
"""
"""Whether Python runs what the source says, or old bytecode: asked of Python's own loader."""
RECORDED = f"""\
import base64, csv, hashlib, pathlib
for name, digest, size in csv.reader(open("{INFO}/RECORD", newline="")):
    path = pathlib.Path("{SITE}", name)
    if digest and path.exists():
        data = path.read_bytes()
        found = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        if ("sha256=" + found, str(len(data))) != (digest, size):
            print("differs:", name)
    elif digest:
        print("missing:", name)
"""
DISTRIBUTIONS = """\
from importlib.metadata import distributions
print("\\n".join(sorted({f"{each.name} {each.version}" for each in distributions()})))
"""
every_image = pytest.mark.parametrize("image", ["single", "multistage", "buildkit"])


def python(engine: Engine, image: str, code: str, user: str | None = None) -> str:
    """What Python code prints in a container from ``image``."""
    return engine.run(image, "python3", "-c", code, user=user).stdout.strip()


def content(engine: Engine, image: str, path: str) -> bytes:
    """A file as root sees it; text files only."""
    return engine.run(image, "cat", path, user="root").stdout.encode()


def last_layer(engine: Engine, image: str) -> set[str]:
    """The files that the last step with a layer wrote or removed."""
    top = Path(engine.inspect(image, ".GraphDriver.Data.UpperDir"))
    return {f"/{path.relative_to(top)}" for path in top.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.multistage"])
def test_the_dockerfile_is_clean_under_hadolint(name: str) -> None:
    hadolint = Path(sysconfig.get_path("scripts"), "hadolint")
    done = subprocess.run([hadolint, "--no-color", EXAMPLE / name], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_base_is_the_published_image_by_its_name() -> None:
    for name in ("Dockerfile", "Dockerfile.multistage"):
        first = (EXAMPLE / name).read_text().splitlines()[1]
        assert first.split()[:2] == ["FROM", stand_in.PUBLISHED]


@every_image
def test_the_image_runs_vllm_s_server_as_a_user_who_is_not_root(
    engine: Engine, published: str, image: str, request: pytest.FixtureRequest
) -> None:
    tag = request.getfixturevalue(image)
    for field in (".Config.Entrypoint", ".Config.WorkingDir", ".Config.Cmd"):
        assert engine.inspect(tag, field) == engine.inspect(published, field)
    # A number, so that Kubernetes' runAsNonRoot can tell.
    assert engine.inspect(tag, ".Config.User") == "2000"
    home = 'import os; print(os.getuid(), os.access(os.path.expanduser("~"), os.W_OK))'
    assert python(engine, tag, home) == "2000 True"


@every_image
def test_the_model_file_is_the_repaired_one_and_readable_for_everybody(
    engine: Engine,
    image: str,
    released_file: bytes,
    request: pytest.FixtureRequest,
) -> None:
    tag = request.getfixturevalue(image)
    assert content(engine, tag, f"{SITE}/{MODEL_FILE}") == repaired(released_file)
    listed = engine.run(tag, "stat", "-c", "%U:%G %a", f"{SITE}/{MODEL_FILE}").stdout
    assert listed.strip() == "root:root 644"


@every_image
def test_old_bytecode_does_not_run_in_place_of_the_repaired_file(
    engine: Engine, published: str, image: str, request: pytest.FixtureRequest
) -> None:
    stale = f"{SITE}/vllm/model_executor/models/__pycache__/glm4.cpython-311.pyc"
    assert engine.run(published, "test", "-f", stale, check=False).returncode == 0
    tag = request.getfixturevalue(image)
    assert engine.run(tag, "test", "-f", stale, check=False).returncode == 1
    assert python(engine, tag, WHAT_RUNS) == "True"


@every_image
def test_transformers_that_know_no_glm4_are_replaced_and_no_other_package_changes(
    engine: Engine, published: str, image: str, request: pytest.FixtureRequest
) -> None:
    before = set(python(engine, published, DISTRIBUTIONS).splitlines())
    after = set(python(engine, request.getfixturevalue(image), DISTRIBUTIONS).splitlines())
    assert before - after == {"transformers 4.51.1"}
    assert after - before == {"transformers 4.51.3"}


@every_image
def test_record_and_receipt_tell_the_truth(
    engine: Engine, image: str, released_file: bytes, request: pytest.FixtureRequest
) -> None:
    tag = request.getfixturevalue(image)
    # RECORD keeps the released hash of a repaired file; everything else is as it says.
    differing = {f"differs: {file}" for file in REPAIRED}
    assert set(python(engine, tag, RECORDED).splitlines()) == differing
    record = content(engine, tag, f"{INFO}/RECORD").decode()
    assert {f"{SITE}/{line.split(',')[0]}" for line in record.splitlines()} >= LEFT_BY_GLMPATCH
    assert content(engine, tag, f"{INFO}/glmpatch-glm4-residual.original") == released_file
    receipt = json.loads(content(engine, tag, f"{INFO}/glmpatch-glm4-residual.json"))
    assert receipt["before"] == sha256(released_file)
    assert receipt["after"] == sha256(repaired(released_file))
    proof = receipt["verification"]
    assert (proof["outcome"] if proof else "none") == ("none" if image == "buildkit" else "passed")


@every_image
def test_uninstalling_vllm_leaves_nothing_of_glmpatch_behind(
    engine: Engine, image: str, request: pytest.FixtureRequest
) -> None:
    uninstall = f"python3 -m pip uninstall -q -y vllm && find {SITE} -path '{SITE}/vllm*' -type f"
    done = engine.run(request.getfixturevalue(image), "sh", "-c", uninstall, user="root")
    left = [line for line in done.stdout.splitlines() if line.startswith(SITE)]
    assert left == []


def test_glmpatch_in_the_container_calls_the_repair_applied(engine: Engine, single: str) -> None:
    done = engine.run(single, "glmpatch", "status", "--check", *PYTHON, check=False)
    assert done.returncode == 0, done.stdout
    assert all(f"{patch.id}: applied" in done.stdout for patch in PATCHES)


def test_the_proof_holds_in_the_container_without_a_gpu_or_root(
    engine: Engine, single: str
) -> None:
    command = ("glmpatch", "verify", "--device", "cpu", *PYTHON)
    done = engine.run(single, *command, check=False)
    assert done.returncode == 0, done.stdout
    assert all(f"{patch.id}: passed (installed file)" in done.stdout for patch in PATCHES)


def test_the_proof_and_the_repair_add_only_the_repair_to_the_image(
    engine: Engine, single: str
) -> None:
    models = f"{SITE}/vllm/model_executor/models"
    assert last_layer(engine, single) == {
        *(f"{SITE}/{file}" for file in REPAIRED),
        f"{models}/__pycache__/glm4.cpython-311.pyc",  # its removal
        f"{INFO}/RECORD",
        *LEFT_BY_GLMPATCH,
    }


def test_a_build_of_the_same_things_does_no_work(
    engine: Engine, single: str, build: Build, published: str
) -> None:
    again = build("Dockerfile", "glmpatch-again", published)
    assert "Running in" not in again.stdout
    assert engine.inspect("glmpatch-again", ".Id") == engine.inspect(single, ".Id")


def test_the_multistage_image_holds_no_glmpatch(engine: Engine, multistage: str) -> None:
    everywhere = ("find", "/", "-xdev", "-name", "*glmpatch*")
    found = set(engine.run(multistage, *everywhere, user="root").stdout.splitlines())
    assert found == LEFT_BY_GLMPATCH


def test_the_multistage_image_is_as_large_as_its_base_but_for_transformers(
    engine: Engine, multistage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = engine.docker(
        "history", "--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", multistage
    )
    layers = [line.split(" ", 1) for line in listing.stdout.splitlines()]
    steps = [step for _, step in layers]
    (base,) = (number for number, step in enumerate(steps) if "transformers==4.51.3" in step)
    added = sum(int(size) for size, _ in layers[:base])
    with capsys.disabled():
        print(f"\nmulti-stage image: {added:,} bytes for the repair")
    assert 0 < added < 1_000_000


def test_a_user_who_is_not_root_can_import_the_model_of_the_multistage_image(
    engine: Engine, multistage: str
) -> None:
    code = "import vllm.model_executor.models.glm4 as glm4; print(glm4.__file__)"
    assert python(engine, multistage, code).splitlines()[-1] == f"{SITE}/{MODEL_FILE}"


def test_a_wrong_folder_ends_the_multistage_build(
    multistage: str, build: Build, published: str
) -> None:
    option = ("--build-arg", "SITE=/usr/local/lib/python3.8/dist-packages")
    done = build("Dockerfile.multistage", "glmpatch-wrong", published, *option, check=False)
    assert done.returncode != 0
    assert "COPY failed" in done.stdout


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "Dockerfile.multistage"])
def test_a_vllm_of_an_unknown_form_ends_the_build_with_a_readable_message(
    engine: Engine,
    build: Build,
    published: str,
    released_file: bytes,
    dockerfile: str,
    tmp_path: Path,
) -> None:
    unknown = replace(
        released_file,
        "self.post_attention_layernorm(",
        "self.another_norm(",
    )
    base = stand_in.changed(engine, tmp_path / "changed", published, unknown)
    done = build(dockerfile, "glmpatch-unknown", base, check=False)
    assert done.returncode != 0
    assert not engine.has("glmpatch-unknown")
    # What failed and where, then the message, and then the step with its exit code as the end.
    message, _, end = done.stdout.rpartition("nothing was written")
    *proof, error = message.splitlines()
    failed = next(number for number, line in enumerate(proof) if "glm4-residual: FAILED" in line)
    assert "no attribute 'another_norm'" in proof[failed + 1]
    assert MODEL_FILE in proof[failed + 2]
    assert "error: the proof failed: glm4-residual" in error
    assert "glmpatch apply --verify" in end.strip().splitlines()[-1]
    assert end.strip().endswith("returned a non-zero code: 6")
    assert "Traceback" not in done.stdout
