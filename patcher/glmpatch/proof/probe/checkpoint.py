"""A small checkpoint of a real architecture, and what Transformers computes with it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
from typing import Any

from . import effects, layers
from .language import N_
from .outcome import CannotRun

ABOVE = {"float32": "float64", "bfloat16": "float32"}
"""Tested precision -> precision of the reference, one above it."""
LOW = ("bfloat16",)
"""Precisions whose noise hides much: they are judged by statistics, and not by the worst number."""


class Checkpoint:
    """Random weights in the real architecture, and Transformers' model of them.

    Sequences are one-dimensional tensors of token ids; log-probabilities are lists of
    ``(tokens, vocabulary)`` float64 tensors on the CPU.
    """

    by_layers = False
    """Whether a precision above is computed layer by layer, for want of room (``memory.py``)."""

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
        """Random sequences of these lengths, in tokens: together they hold the whole vocabulary,
        or, of one that is larger, no token twice. A row of the embedding shows in no other way."""
        import torch

        vocabulary, total = self.config.vocab_size, sum(lengths)
        each = torch.randperm(vocabulary, generator=self.generator)
        more = torch.randint(vocabulary, (max(0, total - vocabulary),), generator=self.generator)
        return list(torch.cat([each, more])[:total].split(list(lengths)))

    def save(self) -> None:
        """Write weights and a tokenizer too: an engine starts from a folder, as a server does."""
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel

        self.reference.save_pretrained(self.folder)
        # Written by the library that reads it: V1 opens the tokenizer also where it is told to skip
        # it, and Transformers wants every key that this library writes.
        tokenizer = Tokenizer(
            WordLevel({str(token): token for token in range(self.config.vocab_size)}, "0")
        )
        tokenizer.save(os.path.join(self.folder, "tokenizer.json"))
        about = os.path.join(self.folder, "tokenizer_config.json")
        with open(about, "w", encoding="utf-8") as stream:
            json.dump({"tokenizer_class": "PreTrainedTokenizerFast"}, stream)

    def ask(self, sequences: Any, precision: str, logits_times: float = 1.0) -> Any:
        """Transformers' log-probabilities of the next token at every position."""
        import torch

        computing: Any
        if self.by_layers:
            computing = layers.converted(self.reference, precision, self.device)
        else:
            _convert(self.reference, precision, self.device)
            computing = contextlib.nullcontext()
        with torch.inference_mode(), computing:
            return [
                logprobs(
                    self.reference(s[None].to(self.device), use_cache=False).logits[0]
                    * logits_times
                )
                for s in sequences
            ]


class Given(Checkpoint):
    """The same of a user's checkpoint, in a folder that nothing is written to."""

    def __init__(self, folder: str, proof: dict[str, Any], precision: str, device: str) -> None:
        import torch
        import transformers

        self.device, self.precision, self.architecture = device, precision, proof["architecture"]
        self.generator = torch.Generator().manual_seed(proof["seed"])
        self.folder = folder
        with _loading(folder):
            self.config = transformers.AutoConfig.from_pretrained(folder)

    @functools.cached_property
    def reference(self) -> Any:
        import torch
        import transformers

        with _loading(self.folder):
            model, told = getattr(transformers, self.architecture).from_pretrained(
                self.folder,
                torch_dtype=getattr(torch, self.precision),
                attn_implementation="eager",
                output_loading_info=True,
            )
        # What is missing Transformers makes up, and vLLM reads elsewhere: no two would agree.
        lacking = sorted(told["missing_keys"])
        if lacking:
            raise CannotRun(
                N_(
                    "{folder} lacks {number} tensors of a {architecture}: {names}",
                    folder=self.folder,
                    number=len(lacking),
                    architecture=self.architecture,
                    names=", ".join([*lacking[:3], *["..."] * (len(lacking) > 3)]),
                ),
                N_("download the checkpoint again"),
            )
        return model.eval()

    def save(self) -> None:
        """It is there already."""


@contextlib.contextmanager
def _loading(folder: str) -> Any:
    """What Transformers cannot load is the checkpoint's fault, and no file's."""
    try:
        yield
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise CannotRun(
            N_(
                "Transformers cannot load {folder}: {error}",
                folder=folder,
                error=f"{type(error).__name__}: {first}",
            ),
            N_("name the folder of a whole checkpoint that this release of Transformers knows"),
        ) from error


def open_checkpoint(
    request: dict[str, Any], proof: dict[str, Any], precision: str, device: str
) -> Checkpoint:
    """The user's checkpoint, where the request names one, else one of random weights."""
    if request["model"]:
        return Given(request["model"], proof, precision, device)
    return Checkpoint(proof, precision, device)


class Yardstick:
    """What Transformers computes for some sequences, and how far its own rounding goes.

    ``reference`` is in the precision above the tested one, ``noisy`` in the tested one. In a low
    precision, ``effects`` is what each of some named faults does to the reference: on our own
    weights, under which each does something; on those of a trained model some are lost in the
    noise. With ``but_last`` the last token of each sequence was generated, and what would follow it
    was never asked for.
    """

    def __init__(self, checkpoint: Checkpoint, sequences: Any, but_last: bool = False) -> None:
        self.precision = tested = checkpoint.precision
        above = ABOVE[tested]
        end = -1 if but_last else None

        def ask(precision: str, times: float = 1.0) -> Any:
            return [each[:end] for each in checkpoint.ask(sequences, precision, times)]

        self.noisy, self.reference = ask(tested), ask(above)
        self.effects: dict[str, Any] = {}
        if tested in LOW and not isinstance(checkpoint, Given):
            for name, fault in effects.FAULTS.items():
                with fault(checkpoint.reference) as times:
                    if times is not None:
                        self.effects[name] = [
                            (wrong - right).float()
                            for wrong, right in zip(ask(above, times), self.reference)
                        ]


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
    weights of one would hide an exchange of two norms. With matrices twice as large the noise of
    bfloat16 is ten times as large, and hides much.
    """
    import torch

    sample = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    if weight.dim() == 1 and name.endswith("bias"):
        return 0.5 * sample
    if weight.dim() == 1:
        return 0.5 + torch.rand(weight.shape, generator=generator, dtype=torch.float64)
    if "embed" in name:
        return sample
    return sample * weight.shape[1] ** -0.5


def logprobs(logits: Any) -> Any:
    import torch

    return torch.log_softmax(logits.double(), dim=-1).cpu()
