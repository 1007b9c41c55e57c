"""A proof in Chinese: of the real thing, by the command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from glmpatch.patches.glm4_residual.patch import PATCH
from tests.support.environment import Environment

pytestmark = pytest.mark.real

CHINESE = re.compile("[\u4e00-\u9fff]")


def run(env: Environment, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, for somebody whose locale is Chinese."""
    return subprocess.run(
        [sys.executable, "-m", "glmpatch", *arguments, "--python", str(env.root)],
        capture_output=True,
        text=True,
        env={**os.environ, "GLMPATCH_LANG": "zh_CN", "PYTHONIOENCODING": "utf-8"},
    )


def test_steps_and_verdict_are_chinese_and_what_is_kept_is_english(env: Environment) -> None:
    asked = ("--device", "cpu")
    done = run(env, "verify", PATCH.id, "--precision", "float32", *asked)
    assert done.returncode == 6, done.stderr
    for step in ("正在启动解释器", "正在导入 vLLM", "正在询问 vLLM（已安装，float32）"):
        assert step in done.stderr.splitlines()
    assert f"{PATCH.id}：未通过（文件：已安装）" in done.stdout
    assert "未包括：bfloat16，因为指定了 --precision float32" in done.stdout
    read = run(env, "verify", PATCH.id, "--precision", "float32", "--json", *asked)
    assert read.returncode == 6, read.stderr
    assert not CHINESE.search(json.dumps(json.loads(read.stdout), ensure_ascii=False))
    assert run(env, "apply", PATCH.id, "--verify").returncode == 0
    (receipt,) = env.root.rglob(f"*{PATCH.id}*.json")
    kept = json.loads(receipt.read_text("utf-8"))
    assert kept["verification"]["weights"] == "the same random weights"
    assert not CHINESE.search(json.dumps(kept, ensure_ascii=False))
