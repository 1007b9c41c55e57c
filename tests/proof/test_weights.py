"""A user's own checkpoint: compared where it can be, and said why not where it cannot."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from glmpatch.errors import Exit, Failure
from glmpatch.proof import weights
from tests.support.environment import glmpatch

KNOWN = ["Glm4ForCausalLM"]
CONFIG = {"architectures": ["Glm4ForCausalLM"], "num_hidden_layers": 3}


def tensors(path: Path, content: dict[str, bytes], dtype: str = "BF16") -> None:
    """A safetensors file with these tensors, each of one dimension and of a byte a number."""
    header: dict[str, Any] = {}
    end = 0
    for name, data in content.items():
        header[name] = {
            "dtype": dtype,
            "shape": [len(data)],
            "data_offsets": [end, end + len(data)],
        }
        end += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(content.values()))


def read(path: Path) -> dict[str, bytes]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    return {
        name: body[slice(*tensor["data_offsets"])]
        for name, tensor in header.items()
        if name != "__metadata__"
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of three layers in two shards, in the layout of the real ones."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    shards = {
        "model-00001-of-00002.safetensors": {
            "model.embed_tokens.weight": b"embed",
            "model.layers.0.mlp.weight": b"zero",
            "model.layers.1.mlp.weight": b"one",
        },
        "model-00002-of-00002.safetensors": {
            "model.layers.10.mlp.weight": b"ten",
            "model.layers.2.mlp.weight": b"two",
            "model.norm.weight": b"norm",
        },
    }
    places = {}
    for name, content in shards.items():
        tensors(folder / name, content)
        places.update(dict.fromkeys(content, name))
    index = {"metadata": {"total_size": 23}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_a_sharded_checkpoint_is_opened_by_its_headers(folder: Path) -> None:
    opened = weights.open_weights(folder, KNOWN)
    assert opened.architecture == "Glm4ForCausalLM"
    assert opened.bytes == opened.parameters == len("embedzeroonetentwonorm")


def test_the_first_layers_are_cut_out_and_all_else_is_kept(folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    target = tmp_path / "cut"
    target.mkdir()
    made = weights.cut(weights.open_weights(folder, KNOWN), 2, target)
    assert read(target / "model-00001-of-00002.safetensors") == {
        "model.embed_tokens.weight": b"embed",
        "model.layers.0.mlp.weight": b"zero",
        "model.layers.1.mlp.weight": b"one",
    }
    assert read(target / "model-00002-of-00002.safetensors") == {"model.norm.weight": b"norm"}
    assert json.loads((target / "config.json").read_text()) == {**CONFIG, "num_hidden_layers": 2}
    assert (target / "tokenizer.json").read_text() == "{}"
    again = weights.open_weights(target, KNOWN)
    assert again.bytes == made.bytes == len("embedzeroonenorm")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_cannot_be_compared_is_named(folder: Path, tmp_path: Path) -> None:
    def refused(path: Path = folder) -> str:
        with pytest.raises(Failure) as caught:
            weights.open_weights(path, KNOWN)
        assert caught.value.code is Exit.PROOF_NOT_RUN
        assert caught.value.hint
        return caught.value.message

    assert "No such file" in refused(tmp_path / "nowhere")
    config = folder / "config.json"
    for changed, told in (
        ({"architectures": ["LlamaForCausalLM"]}, "a checkpoint of LlamaForCausalLM"),
        ({"architectures": None}, "a checkpoint of no architecture"),
        ({"architectures": "Glm4ForCausalLM"}, "a checkpoint of no architecture"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized (gptq): not comparable"),
        ({"quantization_config": ["strange"]}, "quantized (an unnamed method)"),
    ):
        config.write_text(json.dumps({**CONFIG, **changed}))
        assert told in refused()
    config.write_text("{")
    assert "is no JSON" in refused()
    config.write_text(json.dumps(CONFIG))
    shard = folder / "model-00002-of-00002.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    assert f"{shard} is truncated or damaged" in refused()
    shard.write_bytes(whole[:20])
    assert "only the beginning of one" in refused()
    shard.write_bytes(b"")
    assert "only the beginning of one" in refused()
    for header in (b'{"a": {}}', b'{"a": {"data_offsets": [5, 1], "shape": [1], "dtype": "F16"}}'):
        shard.write_bytes(struct.pack("<Q", len(header)) + header)
        assert "no safetensors file" in refused()
    tensors(shard, {"model.norm.weight": b"norm"}, "F8_E4M3")
    assert "holds tensors of type F8_E4M3" in refused()
    shard.unlink()
    assert f"lacks 1 of 2 shards: {shard.name}" in refused()
    for index in ("{}", '{"weight_map": {"a": "../outside.safetensors"}}'):
        (folder / "model.safetensors.index.json").write_text(index)
        assert "names no shard" in refused()
    (folder / "model.safetensors.index.json").unlink()
    assert "holds no safetensors" in refused()


def test_more_layers_than_there_are_is_said_so(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="has 3") as caught:
        weights.cut(weights.open_weights(folder, KNOWN), 4, tmp_path)
    assert caught.value.hint == "--layers 3"
    (folder / "config.json").write_text(json.dumps({"architectures": KNOWN}))
    with pytest.raises(Failure, match="does not say how many layers") as caught:
        weights.cut(weights.open_weights(folder, KNOWN), 4, tmp_path)
    assert "--layers" in caught.value.hint


def test_layers_without_a_model_are_wrong_usage() -> None:
    done = glmpatch("verify", "--layers", "1")
    assert done.returncode == Exit.USAGE
    assert "--model" in done.stderr
