"""A user's own checkpoint: looked through before anything is started, and cut to its first layers.

Only the headers of the safetensors files are read, so that a checkpoint of 60 GB takes no time.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glmpatch.errors import Exit, Failure
from glmpatch.language import N_, _, joined

HEADER_LIMIT = 100_000_000
"""Bytes that a safetensors header may have, by the format's own rule."""
FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of numbers that Transformers and vLLM both take as they are."""
AGAIN = N_("download the checkpoint again")
LAYER = re.compile(r"\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Shard:
    """One safetensors file: its tensors with type, shape and place in the data after the header."""

    path: Path
    start: int
    tensors: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Weights:
    """A checkpoint that can be compared."""

    folder: Path
    config: Mapping[str, Any]
    shards: Sequence[Shard]

    @property
    def architecture(self) -> str:
        return str(self.config["architectures"][0])

    @property
    def bytes(self) -> int:
        """Size of all tensors as they are stored."""
        return sum(_size(each) for shard in self.shards for each in shard.tensors.values())

    @property
    def parameters(self) -> int:
        """How many numbers the tensors hold."""
        tensors = [each for shard in self.shards for each in shard.tensors.values()]
        return sum(math.prod(each["shape"]) for each in tensors)


def open_weights(folder: Path, known: Sequence[str]) -> Weights:
    """The checkpoint in ``folder``, of one of the architectures ``known``.

    Raises:
        Failure: it cannot be compared, and why.
    """
    config = _json(folder / "config.json", _("--model takes the folder of a checkpoint"))
    named = config.get("architectures")
    architecture = named[0] if isinstance(named, list) and named else _("no architecture")
    if architecture not in known:
        raise _not(
            _(
                "{folder} is a checkpoint of {architecture}, and not of {known}",
                folder=folder,
                architecture=architecture,
                known=joined(dict.fromkeys(known), N_("{one} or {other}")),
            ),
            _("name the folder of a checkpoint that a patch is about, such as GLM-4-0414"),
        )
    if config.get("quantization_config"):
        told = config["quantization_config"]
        method = told.get("quant_method") if isinstance(told, dict) else None
        method = method or _("an unnamed method")
        raise _not(
            _(
                "{folder} is quantized ({method}): not comparable, since Transformers and vLLM "
                "compute differently with such weights by design",
                folder=folder,
                method=method,
            ),
            _("name the checkpoint that it was made from"),
        )
    shards = [_shard(path) for path in _files(folder)]
    others = {each["dtype"] for shard in shards for each in shard.tensors.values()} - {*FLOATS}
    if others:
        raise _not(
            _(
                "{folder} holds tensors of type {types}: not comparable, since Transformers and "
                "vLLM compute differently with such weights",
                folder=folder,
                types=", ".join(sorted(map(str, others))),
            ),
            _("name a checkpoint whose tensors are {types}", types=", ".join(FLOATS[1:])),
        )
    return Weights(folder, config, shards)


def cut(weights: Weights, layers: int, folder: Path) -> Weights:
    """A checkpoint of the first layers, made in ``folder``; all but weights and depth as it was.

    Raises:
        Failure: it has no so many layers, or there is no room for them.
    """
    depth = weights.config.get("num_hidden_layers")
    if not isinstance(depth, int):
        raise _not(
            _(
                "{file} does not say how many layers there are",
                file=weights.folder / "config.json",
            ),
            _("leave out --layers, or download the checkpoint again"),
        )
    if layers > depth:
        raise _not(
            _(
                "--layers {layers}: {folder} has {depth}",
                layers=layers,
                folder=weights.folder,
                depth=depth,
            ),
            f"--layers {depth}",
        )
    kept = [
        Shard(shard.path, shard.start, tensors)
        for shard in weights.shards
        if (tensors := {k: v for k, v in shard.tensors.items() if _within(k, layers)})
    ]
    config = {**weights.config, "num_hidden_layers": layers}
    needed = Weights(weights.folder, config, kept).bytes
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise _not(
            _(
                "the first {layers} layers take {needed:.1f} GB, and {folder} has {free:.1f} GB "
                "free",
                layers=layers,
                needed=needed / 1e9,
                folder=folder.parent,
                free=free / 1e9,
            ),
            _("name another place with TMPDIR, or ask for fewer layers"),
        )
    for path in weights.folder.iterdir():
        if path.is_file() and "safetensors" not in path.name and path.name != "config.json":
            (folder / path.name).symlink_to(path.resolve())
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    written = [_copy(shard, folder / shard.path.name) for shard in kept]
    names = {name: shard.path.name for shard in written for name in shard.tensors}
    index = {"metadata": {"total_size": needed}, "weight_map": names}
    if [shard.path.name for shard in written] != ["model.safetensors"]:
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    return Weights(folder, config, written)


def _within(name: str, layers: int) -> bool:
    layer = LAYER.search(name)
    return layer is None or int(layer[1]) < layers


def _copy(shard: Shard, path: Path) -> Shard:
    """The tensors of ``shard`` alone, at ``path``."""
    end = 0
    header: dict[str, Any] = {}
    for name, tensor in shard.tensors.items():
        header[name] = {**tensor, "data_offsets": [end, end + _size(tensor)]}
        end += _size(tensor)
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with shard.path.open("rb") as source, path.open("wb") as target:
        target.write(struct.pack("<Q", len(text)) + text)
        for tensor in shard.tensors.values():
            source.seek(shard.start + tensor["data_offsets"][0])
            left = _size(tensor)
            while left:
                block = source.read(min(left, 1 << 24))
                target.write(block)
                left -= len(block)
    return Shard(path, 8 + len(text), header)


def _files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        whole = folder / "model.safetensors"
        if not whole.exists():
            raise _not(
                _(
                    "{folder} holds no safetensors: neither {file} nor {index}",
                    folder=folder,
                    file=whole.name,
                    index=index.name,
                ),
                _("download the checkpoint again; other formats are not read"),
            )
        return [whole]
    places = _json(index, _(AGAIN)).get("weight_map")
    whose = places.values() if isinstance(places, dict) else ()
    names = sorted({name for name in whose if isinstance(name, str) and "/" not in name})
    if not names:
        raise _not(_("{file} names no shard", file=index), _(AGAIN))
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise _not(
            _(
                "{folder} lacks {number} of {whole} shards: {names}",
                folder=folder,
                number=len(missing),
                whole=len(names),
                names=", ".join([*missing[:3], *["..."] * (len(missing) > 3)]),
            ),
            _(AGAIN),
        )
    return [folder / name for name in names]


def _shard(path: Path) -> Shard:
    with path.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        text = stream.read(length) if 0 < length <= HEADER_LIMIT else b""
    try:
        header = json.loads(text)
        tensors = {k: v for k, v in header.items() if k != "__metadata__"}
        end = max(_end(tensor) for tensor in tensors.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _not(
            _("{file} is no safetensors file, or only the beginning of one", file=path),
            _(AGAIN),
        ) from error
    whole, there = 8 + length + end, path.stat().st_size
    if there != whole:
        raise _not(
            _(
                "{file} is truncated or damaged: {there} bytes, and by its header {whole}",
                file=path,
                there=there,
                whole=whole,
            ),
            _(AGAIN),
        )
    return Shard(path, 8 + length, tensors)


def _end(tensor: Mapping[str, Any]) -> int:
    """Where its data end; raises where the entry is no tensor's."""
    start, end = tensor["data_offsets"]
    if not (0 <= start <= end and math.prod(tensor["shape"]) >= 0 and tensor["dtype"]):
        raise ValueError("no tensor")
    return int(end)


def _size(tensor: Mapping[str, Any]) -> int:
    start, end = tensor["data_offsets"]
    return int(end - start)


def _json(path: Path, hint: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise _not(f"{path}: {error.strerror}", hint) from error
    except ValueError as error:
        raise _not(_("{file} is no JSON: {error}", file=path, error=error), _(AGAIN)) from error
    if not isinstance(content, dict):
        raise _not(_("{file} holds no JSON object", file=path), _(AGAIN))
    return content


def _not(reason: str, hint: str) -> Failure:
    return Failure(Exit.PROOF_NOT_RUN, _("the proof could not run: {why}", why=reason), hint)
