"""The light environment imports what the patches of the family mend, from the oldest release on."""

from __future__ import annotations

from pathlib import Path

import pytest

from glmpatch.site.target import find_target
from tests.support import light, releases

MODULES = (
    "vllm.reasoning.glm4_moe_reasoning_parser",
    "vllm.entrypoints.openai.tool_parsers.glm4_moe_tool_parser",
    "vllm.tool_parsers.glm4_moe_tool_parser",
    "vllm.tool_parsers.glm47_moe_tool_parser",
    "vllm.model_executor.models.glm4_1v",
    "vllm.model_executor.models.glm4_moe",
    "vllm.model_executor.models.glm4_moe_mtp",
    "vllm.model_executor.models.glm_ocr_mtp",
    "vllm.entrypoints.openai.serving_chat",
    "vllm.entrypoints.openai.chat_completion.serving",
)
IMPORT = """
import importlib, sys, vllm
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    assert vllm.__path__[0] in module.__file__, module.__file__
    print("imported", name)
"""


def present(release: str) -> list[str]:
    """The modules that the release has."""
    files = {name: f"{name.replace('.', '/')}.py" for name in MODULES}
    return [name for name, file in files.items() if releases.read(release, file) is not None]


@pytest.mark.real
@pytest.mark.parametrize("release", ["0.9.2", "0.10.0", "0.14.1", "0.19.1", "0.23.0", "0.33.0"])
def test_a_release_imports(release: str) -> None:
    wanted = present(release)
    done = light.run(release, IMPORT, *wanted)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("imported") == len(wanted) >= 1


@pytest.mark.real
def test_an_installed_copy_is_an_environment_for_glmpatch(tmp_path: Path) -> None:
    copy = light.install("0.10.0", tmp_path / "env")
    target = find_target(python=str(copy.root))
    assert (target.version, target.python) == ("0.10.0", copy.python)
    assert target.package.parent == copy.site
    where = copy.run("import vllm; print(vllm.__file__)").stdout.strip()
    assert Path(where).parent.parent == copy.site
    assert not copy.model.is_symlink()
