"""Fixtures on the real thing: a vLLM 0.8.4 from the registry, and copies of it to change."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.support import cache, environment, releases
from tests.support import cpu_engine as built
from tests.support.environment import MODEL_FILE, Environment

# What tests read is English, whatever the locale of whoever runs them.
os.environ["GLMPATCH_LANG"] = "en"
REAL = Path(__file__).with_name("real")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if REAL in item.path.parents:
            item.add_marker(pytest.mark.real)
    if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd")):
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no GPU on this machine"))


@pytest.fixture(scope="session", autouse=True)
def _heard() -> None:
    """A shell starts what runs in the background deaf to Ctrl-C, and tests send that signal."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def released() -> Path:
    """The root of an environment with vLLM 0.8.4 as released; never to be changed."""
    return cache.released()


@pytest.fixture(scope="session")
def released_file() -> bytes:
    """vLLM 0.8.4's GLM-4 model file."""
    data = releases.read("0.8.4", MODEL_FILE)
    assert data is not None
    return data


@pytest.fixture(scope="session")
def cpu_engine() -> Path:
    """The root of an environment with vLLM 0.8.4 built for the CPU; never to be changed."""
    return built.cpu_engine()


@pytest.fixture
def env(released: Path, tmp_path: Path) -> Environment:
    """A copy of that environment, to be changed."""
    return environment.copy(released, tmp_path / "env")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many cases stand behind a promise, as the tests themselves counted them."""
    passed = terminalreporter.getreports("passed")
    lines = [
        f"{cases:>6}  {what}"
        for report in passed
        for name, (what, cases) in getattr(report, "user_properties", ())
        if name == "cases"
    ]
    files = Counter(r.fspath for r in passed if r.when == "call" and "install" in r.fspath)
    lines += [f"{tests:>6}  tests in {file}" for file, tests in sorted(files.items())]
    if lines:
        terminalreporter.section("cases tried")
        for line in lines:
            terminalreporter.line(line)
