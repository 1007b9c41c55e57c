"""A user's own checkpoint, in the layout in which real ones are published."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from glmpatch.errors import Exit, Failure
from glmpatch.patches.glm4_residual.patch import PATCH
from glmpatch.patches.glm_rope.patch import PATCH as OTHER
from glmpatch.proof.driver import Candidate, Verification, verify
from tests.support.environment import MODEL_FILE
from tests.support.sources import repaired

pytestmark = pytest.mark.real

MAKE = """
import sys, torch, transformers
torch.manual_seed(0)
config = transformers.Glm4Config(
    vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=4,
    num_attention_heads=4, num_key_value_heads=2, head_dim=32, partial_rotary_factor=0.5,
    max_position_embeddings=256, attention_bias=True, pad_token_id=0, eos_token_id=[1],
    tie_word_embeddings=False, initializer_range=0.2, architectures=["Glm4ForCausalLM"],
)
model = transformers.Glm4ForCausalLM(config).to(torch.bfloat16)
model.save_pretrained(sys.argv[1], max_shard_size="60KB")
"""


@pytest.fixture(scope="module")
def sharded(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint written by Transformers, in more shards than it has layers."""
    folder = tmp_path_factory.mktemp("sharded")
    python = str(released / "bin" / "python")
    subprocess.run([python, "-I", "-B", "-c", MAKE, str(folder)], check=True)
    assert len(list(folder.glob("*.safetensors"))) > 4
    return folder


def ask(root: Path, model: Path, **options: Any) -> Verification:
    """The right file on the weights of ``model``; a file of another model is there too."""
    (site,) = (root / "lib").glob("python3*/site-packages")
    right = repaired((site / MODEL_FILE).read_bytes())
    candidates = [
        Candidate(PATCH.id, "planned", PATCH.proof, str(PATCH.file), right),
        Candidate(OTHER.id, "installed", OTHER.proof, str(OTHER.file)),
    ]
    return verify(root / "bin" / "python", site, [], candidates, model=model, **options)


def test_the_first_layers_of_a_real_layout_are_proven(released: Path, sharded: Path) -> None:
    proof = ask(released, sharded, layers=2)
    assert proof.passed
    assert not proof.full
    assert proof.weights == f"the weights of {sharded}, the first 2 layers"
    assert proof.left_out == (f"{OTHER.id}, which is about another model than --model",)
    assert proof.precisions == ("float32", "bfloat16")
    for each in proof.results:
        assert each.patch == PATCH.id
        assert each.wrong is None
        # Named faults are known to show on our own weights alone.
        assert len(each.statistics) == (1 if each.precision == "float32" else 2)


def test_a_checkpoint_that_lacks_a_tensor_is_said_so(
    released: Path, sharded: Path, tmp_path: Path
) -> None:
    """Transformers would make the tensor up, and go on."""
    folder = tmp_path / "lacking"
    shutil.copytree(sharded, folder)
    index = folder / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    gone = told["weight_map"].pop("model.norm.weight")
    index.write_text(json.dumps(told))
    if gone not in told["weight_map"].values():
        (folder / gone).unlink()
    with pytest.raises(Failure, match="lacks 1 tensors of a Glm4ForCausalLM") as caught:
        ask(released, folder)
    assert caught.value.code is Exit.PROOF_NOT_RUN
    assert "model.norm.weight" in caught.value.message


def test_a_real_layout_is_proven_through_the_engine(cpu_engine: Path, sharded: Path) -> None:
    proof = ask(cpu_engine, sharded, via="engine", mode="eager")
    assert proof.passed
    assert proof.weights == f"the weights of {sharded}"
    assert {each.mode for each in proof.results} == {"eager"}
