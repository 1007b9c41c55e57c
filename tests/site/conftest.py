"""A toy patch and a toy vLLM: no test here needs a download."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from glmpatch.site.target import Target, find_target
from tests.support import command, site, toy
from tests.support.site import Site


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    toy.use(monkeypatch)


@pytest.fixture(scope="package", autouse=True)
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Commands run in forked processes, in milliseconds, and as users who may not read ours."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        toy.use(monkeypatch)
        command.warm(make(tmp_path_factory.mktemp("warm") / "site"))


def make(root: Path, model: bytes = toy.RELEASED, version: str | None = "0.8.4") -> Site:
    """A vLLM whose model file is the toy, and with what a proof depends on beside it."""
    made = site.make(root, model, version, {toy.BESIDE: toy.NEIGHBOUR}, toy.FILE, toy.PATCH.id)
    site.distribution(root, "torch", "2.6.0+cu124")
    site.distribution(root, "transformers", "4.51.3")
    return made


@pytest.fixture(params=["0.8.4", None], ids=["wheel", "source tree"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return make(tmp_path / "site", version=request.param)


@pytest.fixture
def target(tree: Site) -> Target:
    return find_target(path=str(tree.root))


@pytest.fixture
def open_toy() -> Iterator[Site]:
    """The same where other users reach it, which they do not below ``tmp_path``."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield make(Path(folder, "site"))
