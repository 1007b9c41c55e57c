"""CI elsewhere runs what CI here runs, and pre-commit the checks that the tests run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent


def read(file: str) -> Any:
    return yaml.safe_load((ROOT / file).read_text("utf-8"))


def test_the_workflow_runs_the_one_command() -> None:
    (job,) = read(".github/workflows/ci.yml")["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert job["timeout-minutes"] == 90
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


def test_pre_commit_runs_the_checks_of_the_tests() -> None:
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    commands = " / ".join(hook["entry"] for hook in repository["hooks"])
    for check in ("ruff check", "ruff format", "mypy", "docs.generate"):
        assert check in commands
