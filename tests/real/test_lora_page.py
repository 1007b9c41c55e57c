"""The script of docs/lora.md splits an adapter without changing what it computes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support import light

PAGE = Path(__file__).parents[2] / "docs" / "lora.md"
MAKE = """
import json, pathlib, torch
from safetensors.torch import save_file
torch.manual_seed(0)
name = "base_model.model.model.layers.0."
sizes = {"mlp.gate_up_proj": (12, 4), "self_attn.q_proj": (8, 4)}
tensors = {}
for part, (outputs, inputs) in sizes.items():
    tensors[f"{name}{part}.lora_A.weight"] = torch.randn(2, inputs)
    tensors[f"{name}{part}.lora_B.weight"] = torch.randn(outputs, 2)
pathlib.Path("old").mkdir()
save_file(tensors, "old/adapter_model.safetensors")
config = {"r": 2, "target_modules": ["q_proj", "gate_up_proj"]}
pathlib.Path("old/adapter_config.json").write_text(json.dumps(config))
"""
COMPARE = """
import json, torch
from safetensors.torch import load_file
old, new = (load_file(f"{each}/adapter_model.safetensors") for each in ("old", "new"))
name = "base_model.model.model.layers.0."
update = lambda tensors, part: (
    tensors[f"{name}{part}.lora_B.weight"] @ tensors[f"{name}{part}.lora_A.weight"]
)
halves = [update(new, f"mlp.{part}_proj") for part in ("gate", "up")]
assert torch.equal(torch.cat(halves), update(old, "mlp.gate_up_proj"))
assert torch.equal(update(new, "self_attn.q_proj"), update(old, "self_attn.q_proj"))
assert not any("gate_up_proj" in each for each in new)
config = json.load(open("new/adapter_config.json"))
assert config == {"r": 2, "target_modules": ["q_proj", "gate_proj", "up_proj"]}, config
"""


@pytest.mark.real
def test_the_split_adapter_is_the_same_function(tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    for code, arguments in ((MAKE, ()), (script, ("old", "new")), (COMPARE, ())):
        command = [str(light.python()), "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
