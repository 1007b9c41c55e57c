"""A tiny tree with vLLM's own files, and the command run in a forked process: milliseconds."""

from __future__ import annotations

import functools
import os
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

from glmpatch import catalogue
from glmpatch.patch import Patch
from glmpatch.patches.glm4_residual.patch import PATCH
from glmpatch.source import plan
from glmpatch.source.plan import Plan, make_plan
from tests.support import command, releases, site
from tests.support.environment import MODEL_FILE
from tests.support.site import Site

RELEASE = "0.8.4"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.real)


def make(root: Path, version: str | None = RELEASE) -> Site:
    """A site-packages, or a source tree, with the released model file and its neighbours."""
    others = {file: _read(file) for file in PATCH.beside(RELEASE)}
    return site.make(root, _read(MODEL_FILE), version, others)


@functools.cache
def _read(file: str) -> bytes:
    data = releases.read(RELEASE, file)
    assert data is not None
    return data


@pytest.fixture(scope="session")
def released_file() -> bytes:
    """vLLM 0.8.4's GLM-4 model file."""
    return _read(MODEL_FILE)


@pytest.fixture
def tree(tmp_path: Path) -> Site:
    """A tiny site-packages with the released model file."""
    return make(tmp_path / "site")


@pytest.fixture
def open_tree() -> Iterator[Site]:
    """The same where other users reach it, which they do not below ``tmp_path``."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield make(Path(folder, "site"))


@pytest.fixture(scope="package", autouse=True)
def _one_patch() -> Iterator[None]:
    """Every system call of one patch is tried; those of another would be the same again.

    For this package only: a wider scope would hide the other patches from all tests after it.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(catalogue, "load_patches", lambda warn=None: (PATCH,))
        yield


@pytest.fixture(scope="package", autouse=True)
def _warm(_one_patch: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    command.warm(make(tmp_path_factory.mktemp("warm") / "site"))


@pytest.fixture
def plan_once(monkeypatch: pytest.MonkeyPatch, released_file: bytes) -> Callable[..., Plan]:
    """The plan depends on the bytes alone; thousands of runs need no more than one."""
    plans: dict[bytes, Plan] = {}

    @functools.wraps(make_plan)
    def remembered(
        patch: Patch,
        data: bytes,
        version: str | None = None,
        only: Collection[str] | None = None,
        right: Collection[str] = (),
    ) -> Plan:
        assert patch is PATCH
        if only is not None:
            return make_plan(patch, data, version, only, right)
        if data not in plans:
            plans[data] = make_plan(patch, data, version)
        return plans[data]

    remembered(PATCH, remembered(PATCH, released_file).after)
    monkeypatch.setattr(plan, "make_plan", remembered)
    return remembered


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheels of the real metadata and models alone: seconds instead of minutes."""
    folder = tmp_path_factory.mktemp("wheels")
    for version in (RELEASE, "0.8.5"):
        source = releases.tree(version)
        info = f"vllm-{version}.dist-info"
        lines = (source / info / "RECORD").read_text().splitlines()
        names = [line.split(",")[0] for line in lines]
        kept = [
            name
            for name in names
            if name.startswith(("vllm/__init__.py", "vllm/model_executor/models/", f"{info}/"))
            if not name.endswith(("RECORD", ".pyc"))
        ]
        record = [line for line in lines if line.split(",")[0] in kept]
        wheel = folder / f"vllm-{version}-cp38-abi3-manylinux1_x86_64.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name in kept:
                archive.write(source / name, name)
            archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,", ""]))
    return folder


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """Note how many cases a test tried; they are printed at the end of the run."""

    def note(what: str, cases: int) -> None:
        record_property("cases", (what, cases))

    return note
