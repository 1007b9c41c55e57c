"""A reference computed layer by layer is, to the last bit, the one computed whole."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from glmpatch.proof import process

PROBE = Path(process.__file__).parent / "probe" / "__main__.py"
CODE = """
import runpy, sys
layers = runpy.run_path(sys.argv[1])["load"]("layers")
import torch, transformers
for name in ("Glm4", "Glm"):
    config = getattr(transformers, name + "Config")(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, head_dim=16,
        num_attention_heads=2, num_key_value_heads=1, pad_token_id=0, attention_bias=True,
        attn_implementation="eager")
    torch.manual_seed(0)
    model = getattr(transformers, name + "ForCausalLM")(config).eval()
    for weight in model.parameters():
        weight.data = weight.data.bfloat16()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    tokens = torch.arange(20)[None]
    with torch.inference_mode(), layers.converted(model, "float32", "cpu"):
        streamed = model(tokens, use_cache=False).logits
        assert {w.dtype for w in model.parameters()} == {torch.bfloat16}
        try:
            model(torch.tensor([[99]]))
        except IndexError:
            pass
    after = model.state_dict()
    assert all(torch.equal(after[k], v) and after[k].dtype == v.dtype for k, v in before.items())
    low = model(tokens, use_cache=False).logits
    for weight in model.parameters():
        weight.data = weight.data.float()
    whole = model(tokens, use_cache=False).logits
    assert streamed.dtype == torch.float32 and torch.equal(streamed, whole)
    assert low.dtype == torch.bfloat16 and not torch.equal(low.float(), whole)
print("equal")
"""


@pytest.mark.real
def test_layer_by_layer_gives_the_same_numbers(released: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(released / "bin" / "python"), "-I", "-B", "-c", CODE, str(PROBE)],
        env=process.environment(tmp_path, "cpu"),
        capture_output=True,
        text=True,
    )
    assert done.stdout == "equal\n", done.stderr
