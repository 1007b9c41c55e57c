"""The images that the tests look at, each built once."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real.docker import stand_in
from tests.real.docker.engine import Engine, Unavailable, running
from tests.support.cache import uv

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "docker"

SITE = ("--build-arg", f"SITE={stand_in.SITE}")

Build = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker engine that holds nothing but the stand-in for the published image."""
    try:
        with running() as engine:
            heavy = stand_in.heavy(engine)
            stand_in.forget_all(engine, but=heavy)
            yield engine
            stand_in.forget_all(engine, but=heavy)
    except Unavailable as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no Docker engine: {reason}")
        pytest.skip(f"no Docker engine: {reason}")


@pytest.fixture(scope="session")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has before the build: the example, and beside it a wheel of glmpatch."""
    folder = tmp_path_factory.mktemp("docker") / "context"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("*.whl"))
    uv("build", "--wheel", "--out-dir", str(folder), str(ROOT))
    return folder


@pytest.fixture(scope="session")
def published(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of the stand-in."""
    return stand_in.published(engine, tmp_path_factory.mktemp("docker") / "published")


@pytest.fixture(scope="session")
def build(engine: Engine, context: Path) -> Build:
    """Build a Dockerfile of the example, its FROM untouched, on the image of the given id."""

    def build(
        dockerfile: str,
        tag: str,
        base: str,
        *options: str,
        check: bool = True,
        buildkit: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        engine.docker("tag", base, stand_in.PUBLISHED)
        options = ("--file", str(context / dockerfile), *options)
        return engine.build(context, tag, *options, check=check, buildkit=buildkit)

    return build


@pytest.fixture(scope="session")
def single(build: Build, published: str) -> str:
    """The image of ``Dockerfile``."""
    build("Dockerfile", "glmpatch-single", published)
    return "glmpatch-single"


@pytest.fixture(scope="session")
def multistage(single: str, build: Build, published: str) -> str:
    """The image of ``Dockerfile.multistage``; it shares most steps with that of ``Dockerfile``."""
    build("Dockerfile.multistage", "glmpatch-multistage", published, *SITE)
    return "glmpatch-multistage"


@pytest.fixture(scope="session")
def buildkit(build: Build, published: str, context: Path) -> str:
    """The image that Docker's newer builder makes of ``Dockerfile.multistage``.

    Without the proof, which takes long and knows nothing of builders.
    """
    tag = "glmpatch-buildkit"
    text = (context / "Dockerfile.multistage").read_text()
    assert text.count("glmpatch apply --verify ") == 1
    unproven = context / "Dockerfile.unproven"
    unproven.write_text(text.replace("glmpatch apply --verify ", "glmpatch apply "))
    done = build(unproven.name, tag, published, *SITE, check=False, buildkit=True)
    if "buildx component is missing" in done.stdout:
        pytest.skip("this machine's Docker has no BuildKit")
    assert done.returncode == 0, done.stdout
    return tag
