"""A small wheel, a folder to write to, and a table that knows the wheel's files."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from glmpatch import catalogue
from glmpatch.errors import Exit, Failure
from glmpatch.fleet.wheel import Repaired, repair_wheel
from glmpatch.patch import Patch
from tests.fleet import toy


@pytest.fixture(autouse=True)
def _table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "table", lambda patch: toy.TABLE)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return toy.pack(tmp_path / toy.NAME, toy.contents())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def repair(source: Path, out: Path, *patches: Patch) -> Repaired:
    return repair_wheel(source, out, patches or (toy.PATCH,))


def written(done: Repaired) -> Path:
    assert done.path is not None
    return done.path


def refused(source: Path, out: Path, code: Exit, words: str, *patches: Patch) -> Failure:
    """What a repair is refused with: one clear error, nothing written and no thread left."""
    there = sorted(os.listdir(out)) if out.is_dir() else []
    with pytest.raises(Failure) as raised:
        repair(source, out, *patches)
    failure = raised.value
    assert failure.code is code, failure.message
    assert words in failure.message
    assert failure.hint
    assert (sorted(os.listdir(out)) if out.is_dir() else []) == there
    assert threading.active_count() == 1
    return failure
