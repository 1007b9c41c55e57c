"""Plugins of vLLM: loaded as a server loads them, and named where they serve another model."""

from __future__ import annotations

from pathlib import Path

import pytest

from glmpatch.errors import Exit, Failure
from glmpatch.patches.glm4_residual.patch import PATCH
from glmpatch.proof.driver import Candidate, Verification, verify
from tests.support.environment import Environment
from tests.support.sources import repaired

pytestmark = pytest.mark.real

OTHER = """\
def register():
    from vllm import ModelRegistry
    ModelRegistry.register_model("Glm4ForCausalLM", "gcu_plugin.glm4:Glm4ForCausalLM")
"""
REPLACES = """\
def register():
    from vllm.model_executor.models import glm4
    def forward(self, positions, hidden_states, residual):
        return hidden_states, residual
    glm4.Glm4DecoderLayer.forward = forward
"""
BYSTANDER = """\
import os
def register():
    open(os.environ["GLMPATCH_TEST"], "w").write("loaded")
"""


def install(env: Environment, name: str, source: str) -> None:
    """A plugin in the environment, as pip would leave it."""
    package = f"{name}_plugin"
    (env.site / package).mkdir()
    (env.site / package / "__init__.py").write_text(source)
    info = env.site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[vllm.general_plugins]\n{name} = {package}:register\n")


def ask(env: Environment) -> Verification:
    right = repaired(env.model.read_bytes())
    planned = Candidate(PATCH.id, "planned", PATCH.proof, str(PATCH.file), right)
    return verify(env.python, env.site, [], [planned], precision="float32")


def refused(env: Environment) -> Failure:
    with pytest.raises(Failure) as caught:
        ask(env)
    assert caught.value.code is Exit.PROOF_NOT_RUN
    return caught.value


def test_a_plugin_that_serves_another_model_is_named(env: Environment) -> None:
    install(env, "gcu", OTHER)
    install(env, "other", "def register(): pass\n")
    failure = refused(env)
    assert (
        "vLLM serves Glm4ForCausalLM by another file: gcu_plugin.glm4:Glm4ForCausalLM "
        "(plugin gcu)" in failure.message
    )
    assert failure.hint.endswith("VLLM_PLUGINS=other")


def test_a_plugin_that_replaces_a_method_is_named(env: Environment) -> None:
    install(env, "gcu", REPLACES)
    failure = refused(env)
    assert "Glm4DecoderLayer.forward is replaced by" in failure.message
    assert "(plugin gcu)" in failure.message


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import flash_of_another_world\n", "ModuleNotFoundError: No module named"),
        ("def register():\n    raise SystemExit('no device')\n", "SystemExit: no device"),
    ],
)
def test_a_plugin_that_raises_is_named(env: Environment, source: str, told: str) -> None:
    install(env, "gcu", source)
    failure = refused(env)
    assert "vLLM's plugin gcu (gcu_plugin:register) cannot be loaded: " in failure.message
    assert told in failure.message
    assert "VLLM_PLUGINS=" in failure.hint


def test_what_is_left_out_and_what_stands_by_is_no_hindrance(
    env: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(env, "gcu", "raise RuntimeError('not to be loaded')\n")
    install(env, "other", BYSTANDER)
    monkeypatch.setenv("GLMPATCH_TEST", str(tmp_path / "seen"))
    monkeypatch.setenv("VLLM_PLUGINS", "other")
    assert ask(env).passed
    assert (tmp_path / "seen").read_text() == "loaded"


def test_a_package_beside_the_file_is_what_python_takes(env: Environment) -> None:
    (env.model.parent / "glm4").mkdir()
    (env.model.parent / "glm4" / "__init__.py").write_text("class Glm4ForCausalLM: pass\n")
    failure = refused(env)
    assert "vLLM serves Glm4ForCausalLM by another file: " in failure.message
    assert failure.message.endswith("glm4/__init__.py")
