"""A small checkpoint of a real architecture, and what Transformers computes with it."""

from __future__ import annotations

import functools
import json
import os
import tempfile
from typing import Any

ABOVE = {"float32": "float64", "bfloat16": "float32"}
"""Tested precision -> precision of the reference, one above it."""


class Checkpoint:
    """Random weights in the real architecture, and Transformers' model of them.

    Sequences are one-dimensional tensors of token ids; log-probabilities are lists of
    ``(tokens, vocabulary)`` float64 tensors on the CPU.
    """

    def __init__(self, proof: dict[str, Any], precision: str, device: str) -> None:
        import torch
        import transformers

        self.device, self.precision, self.architecture = device, precision, proof["architecture"]
        self.generator = torch.Generator().manual_seed(proof["seed"])
        self.config = getattr(transformers, proof["config_class"])(
            **proof["config"], architectures=[proof["architecture"]], torch_dtype=precision
        )
        self.folder = tempfile.mkdtemp(prefix="checkpoint-")
        self.config.save_pretrained(self.folder)
        _ = self.reference  # drawn before any prompt is

    @functools.cached_property
    def reference(self) -> Any:
        """Transformers' model, its weights such as the tested precision can hold: only arithmetic
        is to differ."""
        import torch
        import transformers

        self.config._attn_implementation = "eager"
        model = getattr(transformers, self.architecture)(self.config).eval()
        with torch.no_grad():
            for name, weight in sorted(model.named_parameters()):
                weight.copy_(_draw(name, weight, self.generator))
        _convert(model, self.precision, "cpu")
        return model

    def draw(self, lengths: Any) -> Any:
        """Random sequences of these lengths, in tokens."""
        import torch

        return [
            torch.randint(self.config.vocab_size, (length,), generator=self.generator)
            for length in lengths
        ]

    def save(self) -> None:
        """Write weights and a tokenizer too: an engine starts from a folder, as a server does."""
        self.reference.save_pretrained(self.folder)
        vocabulary = {str(token): token for token in range(self.config.vocab_size)}
        for name, content in (
            (
                "tokenizer.json",
                {"model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "0"}},
            ),
            ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
        ):
            with open(os.path.join(self.folder, name), "w", encoding="utf-8") as stream:
                json.dump(content, stream)

    def ask(self, sequences: Any, precision: str) -> Any:
        """Transformers' log-probabilities of the next token at every position."""
        import torch

        _convert(self.reference, precision, self.device)
        with torch.inference_mode():
            return [
                logprobs(self.reference(s[None].to(self.device), use_cache=False).logits[0])
                for s in sequences
            ]


class Given(Checkpoint):
    """The same of a user's checkpoint, in a folder that nothing is written to."""

    def __init__(self, folder: str, proof: dict[str, Any], precision: str, device: str) -> None:
        import torch
        import transformers

        self.device, self.precision, self.architecture = device, precision, proof["architecture"]
        self.generator = torch.Generator().manual_seed(proof["seed"])
        self.config = transformers.AutoConfig.from_pretrained(folder)
        self.folder = folder

    @functools.cached_property
    def reference(self) -> Any:
        import torch
        import transformers

        return (
            getattr(transformers, self.architecture)
            .from_pretrained(
                self.folder,
                torch_dtype=getattr(torch, self.precision),
                attn_implementation="eager",
            )
            .eval()
        )

    def save(self) -> None:
        """It is there already."""


def open_checkpoint(request: dict[str, Any], proof: dict[str, Any], device: str) -> Checkpoint:
    """The user's checkpoint, where the request names one, else one of random weights."""
    if request["model"]:
        return Given(request["model"], proof, request["precision"], device)
    return Checkpoint(proof, request["precision"], device)


def _convert(model: Any, precision: str, device: str) -> None:
    """Convert weights, and move them; the rope's frequencies stay float32, as when loaded."""
    import torch

    for weight in model.parameters():
        weight.data = weight.data.to(device=device, dtype=getattr(torch, precision))
    for buffer in model.buffers():
        buffer.data = buffer.data.to(device)


def _draw(name: str, weight: Any, generator: Any) -> Any:
    """Random weights under which every part of the model shows in the numbers.

    As initialised by ``from_config`` the logits are too flat to tell right from wrong, and norm
    weights of one would hide an exchange of two norms.
    """
    import torch

    sample = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    if weight.dim() == 1 and name.endswith("bias"):
        return 0.5 * sample
    if weight.dim() == 1:
        return 0.5 + torch.rand(weight.shape, generator=generator, dtype=torch.float64)
    if "embed" in name:
        return sample
    return sample * (2.0 / weight.shape[1] ** 0.5)


def logprobs(logits: Any) -> Any:
    import torch

    return torch.log_softmax(logits.double(), dim=-1).cpu()


def compare(numbers: Any, reference: Any, asked: Any = None) -> dict[str, Any]:
    """Worst absolute difference of two lists of log-probabilities, and how often the top agrees.

    ``asked`` marks the entries that there are numbers for; all of them, if None. ``series`` is the
    worst difference at each position, a list for each sequence.
    """
    import torch

    equal, total, finite = 0, 0, True
    series = []
    for number, (mine, theirs) in enumerate(zip(numbers, reference)):
        there = torch.ones_like(mine, dtype=torch.bool) if asked is None else asked[number]
        finite = finite and bool(torch.isfinite(mine[there]).all())
        away = (mine - theirs).abs().masked_fill(~there, 0.0)
        series.append(away.amax(-1).tolist())
        best = mine.masked_fill(~there, float("-inf")).argmax(-1)
        equal += int((best == theirs.argmax(-1)).sum())
        total += len(theirs)
    worst = max(value for each in series for value in each) if finite else None
    return {"distance": worst, "equal": equal, "tokens": total, "series": series if finite else []}


def peak(reference: Any) -> float:
    """The largest log-probability, in absolute value: what rounding is relative to."""
    return max(float(each.abs().max()) for each in reference)
