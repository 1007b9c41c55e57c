"""The probe: runs in the interpreter that owns vLLM, measures, and writes one JSON report.

Usage: ``python probe.py REQUEST.json`` (written by ``driver.py``, which also judges the report).

It imports the standard library, torch, transformers and vLLM only, and runs on Python 3.9 and
newer. vLLM is imported for real. The probe looks at numbers and never at the source of a model.

For every proof in the request it makes a small checkpoint of the real architecture with random
weights, asks Transformers for the log-probabilities of the next token at every position of fixed
prompts, in the tested precision and in the one above it, and then asks vLLM's own model file, once
for each file that the request names, built and run in plain PyTorch (vLLM's ``forward_native``).
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import inspect
import json
import os
import sys
import tempfile
import time
import traceback
from typing import Any

ABOVE = {"float32": "float64", "bfloat16": "float32"}
"""Tested precision -> precision of the reference, one above it."""


class CannotRun(Exception):
    """The measurement itself is not possible here; it says nothing about the model file."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.reason, self.hint = reason, hint


def load_from(name: str, path: str) -> Any:
    """The spec of a module that is run from this file, bypassing bytecode."""
    return importlib.util.spec_from_loader(name, SourceOnly(name, path))


class FileFinder:
    """Import hook that loads the named modules from other files, bypassing bytecode."""

    def __init__(self, paths: dict[str, str]) -> None:
        self.paths = paths

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in self.paths:
            return None
        return load_from(name, self.paths[name])


class SourceOnly(importlib.machinery.SourceFileLoader):
    """Compiles the source every time, so that no bytecode of another file can stand in for it."""

    def get_code(self, fullname: str) -> Any:
        return compile(self.get_data(self.path), self.path, "exec", dont_inherit=True)


def find_vllm(root: str, paths: list[str]) -> None:
    """Make ``import vllm`` lead to ``root``, with everything else found where it was."""
    sys.path.extend(path for path in paths if path not in sys.path)
    found = importlib.machinery.PathFinder.find_spec("vllm")
    where = os.path.dirname(os.path.dirname(found.origin)) if found and found.origin else ""
    if os.path.realpath(where) != os.path.realpath(root):
        sys.path.insert(0, root)


def use_platform(device: str) -> None:
    """Tell vLLM which device it runs on; must come before any other vLLM module is imported.

    Without a GPU, vLLM resolves no platform at all, and its CPU platform asks for compiled
    operators that the CUDA wheel does not have. This one asks for plain PyTorch.
    """
    if device != "cpu":
        return
    import vllm.platforms
    from vllm.platforms.interface import UnspecifiedPlatform

    class PlainCpuPlatform(UnspecifiedPlatform):  # type: ignore[misc,unused-ignore]
        device_name = device_type = "cpu"
        dispatch_key = "CPU"

        @classmethod
        def is_async_output_supported(cls, enforce_eager: Any) -> bool:
            return False

        @classmethod
        def get_device_name(cls, device_id: int = 0) -> str:
            return "cpu"

    vllm.platforms._current_platform = PlainCpuPlatform()


def causal_attention() -> Any:
    """A plain causal attention with the interface of vLLM's ``Attention``.

    Called with flat ``(tokens, heads * head_size)`` queries and ``(tokens, kv_heads * head_size)``
    keys and values of one sequence; returns ``(tokens, heads * head_size)``.
    """
    import torch

    class CausalAttention(torch.nn.Module):  # type: ignore[misc,unused-ignore]
        def __init__(
            self,
            num_heads: int,
            head_size: int,
            scale: float,
            num_kv_heads: int | None = None,
            **_: Any,
        ) -> None:
            super().__init__()
            self.heads, self.kv_heads = num_heads, num_kv_heads or num_heads
            self.head_size, self.scale = head_size, scale

        def forward(self, query: Any, key: Any, value: Any, *_: Any) -> Any:
            tokens = query.shape[0]
            q = query.view(1, tokens, self.heads, self.head_size).transpose(1, 2)
            k, v = (
                x.view(1, tokens, self.kv_heads, self.head_size)
                .transpose(1, 2)
                .repeat_interleave(self.heads // self.kv_heads, dim=1)
                for x in (key, value)
            )
            out = torch.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, scale=self.scale
            )
            return out.transpose(1, 2).reshape(tokens, self.heads * self.head_size)

    return CausalAttention


class Checkpoint:
    """A small checkpoint of one architecture, its fixed prompts and what Transformers says of it.

    ``logprobs`` maps a precision to a list of ``(tokens, vocabulary)`` float64 tensors on the CPU.
    """

    def __init__(self, proof: dict[str, Any], precision: str, device: str) -> None:
        import torch
        import transformers

        generator = torch.Generator().manual_seed(proof["seed"])
        config = getattr(transformers, proof["config_class"])(
            **proof["config"], architectures=[proof["architecture"]], torch_dtype=precision
        )
        config._attn_implementation = "eager"
        reference = getattr(transformers, proof["architecture"])(config).eval()
        with torch.no_grad():
            for name, weight in sorted(reference.named_parameters()):
                weight.copy_(_draw(name, weight, generator))
        # The weights are those that the tested precision can hold, so that only arithmetic differs.
        reference.to(getattr(torch, precision))
        self.weights = {n: w.detach().clone() for n, w in reference.state_dict().items()}
        self.config, self.device, self.precision = config, device, precision
        self.prompts = [
            torch.randint(config.vocab_size, (length,), generator=generator)
            for length in proof["prompts"]
        ]
        self.logprobs = {p: self._ask(reference, p) for p in (precision, ABOVE[precision])}
        self.folder = tempfile.mkdtemp(prefix="checkpoint-")
        config.save_pretrained(self.folder)

    def _ask(self, model: Any, precision: str) -> Any:
        import torch

        model = model.to(device=self.device, dtype=getattr(torch, precision))
        with torch.inference_mode():
            return [
                _logprobs(model(p[None].to(self.device), use_cache=False).logits[0])
                for p in self.prompts
            ]


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


def _logprobs(logits: Any) -> Any:
    import torch

    return torch.log_softmax(logits.double(), dim=-1).cpu()


@contextlib.contextmanager
def vllm_config(checkpoint: Checkpoint, architecture: str, model_class: Any) -> Any:
    """The configuration under which vLLM builds and runs one model; process-wide state reset."""
    from vllm.config import (
        CompilationConfig,
        DeviceConfig,
        ModelConfig,
        VllmConfig,
        set_current_vllm_config,
    )
    from vllm.model_executor.layers import rotary_embedding
    from vllm.model_executor.models.registry import ModelRegistry

    # vLLM keeps rope objects for the whole process; one of an earlier model must not serve here.
    rotary_embedding._ROPE_DICT.clear()
    # Registering the class itself spares the second process in which vLLM inspects architectures.
    ModelRegistry.register_model(architecture, model_class)
    config = VllmConfig(
        model_config=ModelConfig(
            model=checkpoint.folder,
            task="generate",
            tokenizer=checkpoint.folder,
            tokenizer_mode="auto",
            trust_remote_code=False,
            dtype=checkpoint.precision,
            seed=0,
            enforce_eager=True,
            skip_tokenizer_init=True,
            model_impl="vllm",
        ),
        device_config=DeviceConfig(checkpoint.device),
        compilation_config=CompilationConfig(level=0, custom_ops=["none"]),
    )
    with set_current_vllm_config(config):
        _start_process_groups()
        yield config


def _start_process_groups() -> None:
    """World size 1 over gloo, met through a file: no port, no host name, no network."""
    import torch
    from vllm.distributed import parallel_state

    if torch.distributed.is_initialized():
        return
    meeting = os.path.join(tempfile.mkdtemp(prefix="meeting-"), "file")
    parallel_state.init_distributed_environment(
        1, 0, distributed_init_method=f"file://{meeting}", local_rank=0, backend="gloo"
    )
    parallel_state.initialize_model_parallel(1, 1, backend="gloo")


def ask_vllm(checkpoint: Checkpoint, proof: dict[str, Any], path: str | None) -> Any:
    """Log-probabilities by vLLM's model file, or by the file at ``path`` in its place."""
    import torch
    from vllm.forward_context import set_forward_context

    sys.modules.pop(proof["module"], None)
    finder = FileFinder({proof["module"]: path} if path else {})
    sys.meta_path.insert(0, finder)
    try:
        module = importlib.import_module(proof["module"])
        model_class = getattr(module, proof["architecture"])
        _replace_attention()
        with vllm_config(checkpoint, proof["architecture"], model_class) as config:
            dtype = torch.get_default_dtype()
            torch.set_default_dtype(getattr(torch, checkpoint.precision))
            try:
                with torch.device(checkpoint.device):
                    model = model_class(vllm_config=config).eval()
            finally:
                torch.set_default_dtype(dtype)
            model.load_weights((n, w.cpu()) for n, w in checkpoint.weights.items())
            with torch.inference_mode(), set_forward_context(None, config):
                return [_forward(model, p.to(checkpoint.device)) for p in checkpoint.prompts]
    finally:
        sys.meta_path.remove(finder)
        sys.modules.pop(proof["module"], None)


def _replace_attention() -> None:
    """Give every loaded model file the plain attention: vLLM's needs kernels and a paged cache."""
    from vllm.attention import Attention

    plain = causal_attention()
    for name, module in list(sys.modules.items()):
        if name.startswith("vllm.model_executor.models."):
            for key, value in list(vars(module).items()):
                if value is Attention:
                    setattr(module, key, plain)


def _forward(model: Any, prompt: Any) -> Any:
    import torch

    positions = torch.arange(len(prompt), device=prompt.device)
    # Up to 0.7.3 a model hands every attention its cache; the plain one uses none.
    older = {"kv_caches": [None] * model.config.num_hidden_layers, "attn_metadata": None}
    takes = inspect.signature(model.forward).parameters
    extra = {name: value for name, value in older.items() if name in takes}
    return _logprobs(model.compute_logits(model(prompt, positions, **extra), None))


def compare(numbers: Any, reference: Any) -> dict[str, Any]:
    """Worst absolute difference of two lists of log-probabilities, and how often the top agrees."""
    import torch

    worst, equal, total = 0.0, 0, 0
    finite = True
    for mine, theirs in zip(numbers, reference):
        finite = finite and bool(torch.isfinite(mine).all())
        worst = max(worst, float((mine - theirs).abs().max()))
        equal += int((mine.argmax(-1) == theirs.argmax(-1)).sum())
        total += len(theirs)
    return {"distance": worst if finite else None, "equal": equal, "tokens": total}


def measure_file(checkpoint: Checkpoint, proof: dict[str, Any], file: dict[str, Any]) -> Any:
    """One file of one proof: its numbers, or the error in which it ended."""
    reference = checkpoint.logprobs[ABOVE[checkpoint.precision]]
    try:
        numbers = ask_vllm(checkpoint, proof, file["path"])
        if [n.shape for n in numbers] != [r.shape for r in reference]:
            raise ValueError(f"logits of shape {[tuple(n.shape) for n in numbers]}")
        return {"file": file["id"], "crash": None, **compare(numbers, reference)}
    except (Exception, SystemExit) as error:
        return {"file": file["id"], "crash": describe(error)}


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as data, with the innermost place in vLLM."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{f.filename}:{f.lineno}" for f in frames if f"{os.sep}vllm{os.sep}" in f.filename]
    return {
        "type": type(error).__name__,
        "message": str(error)[:2000],
        "place": places[-1] if places else None,
        "traceback": "".join(traceback.format_exception(type(error), error, error.__traceback__)),
    }


def choose_device(asked: str) -> tuple[str, str]:
    """``auto``, ``cpu`` or ``cuda`` -> torch device and its readable name."""
    import torch

    if asked == "cuda" and not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        why = "no GPU is visible to it" if built else "it was built without GPU support"
        raise CannotRun(
            f"--device cuda: torch {torch.__version__} finds no usable GPU ({why})",
            "use --device cpu: the module proof needs no GPU",
        )
    if asked == "cpu" or not torch.cuda.is_available():
        return "cpu", "CPU"
    return "cuda", torch.cuda.get_device_name(0)


def measure(request: dict[str, Any], step: Any) -> dict[str, Any]:
    """Everything the request asks for; raises CannotRun when the environment does not allow it."""
    report: dict[str, Any] = {"results": [], "python": sys.version.split()[0]}
    step("importing torch and transformers")
    try:
        import torch
        import transformers
    except ImportError as error:
        raise CannotRun(
            f"{sys.executable} cannot import {error.name}: {error}",
            "name the interpreter that runs vLLM with --python",
        ) from error
    report.update(torch=torch.__version__, transformers=transformers.__version__)
    for proof in request["proofs"] + request["behaviours"]:
        if not hasattr(transformers, proof["config_class"]):
            raise CannotRun(
                f"transformers {transformers.__version__} has no {proof['config_class']}",
                f"install transformers {proof['transformers']} or newer "
                "in the environment that has vLLM",
            )
    device, report["device"] = choose_device(request["device"])
    step("importing vLLM")
    try:
        use_platform(device)
        import vllm.model_executor.models.llama
    except Exception as error:
        # Which file of vLLM does not import is the message's business; nothing was measured.
        raise CannotRun(
            f"vLLM itself cannot be imported: {type(error).__name__}: {error}",
            "look at the environment of vLLM: python -c 'import vllm'",
        ) from error
    report["vllm"] = vllm.__version__
    found = os.path.dirname(os.path.dirname(os.path.abspath(vllm.__file__)))
    if os.path.realpath(found) != os.path.realpath(request["root"]):
        raise CannotRun(
            f"{sys.executable} imports the vLLM in {found}, not the one in {request['root']}",
            "name the interpreter of that environment with --python",
        )
    precision = request["precision"]
    for proof in request["proofs"]:
        step(f"asking Transformers ({proof['architecture']})")
        checkpoint = Checkpoint(proof, precision, device)
        noise = compare(checkpoint.logprobs[precision], checkpoint.logprobs[ABOVE[precision]])
        peak = max(float(r.abs().max()) for r in checkpoint.logprobs[ABOVE[precision]])
        for file in proof["files"]:
            step(f"asking vLLM ({file['id']})")
            result = measure_file(checkpoint, proof, file)
            report["results"].append(
                {"proof": proof["id"], "noise": noise["distance"], "peak": peak, **result}
            )
    report["behaviours"] = [
        {"proof": each["id"], "file": file["id"], **ask_configuration(each, file, step)}
        for each in request["behaviours"]
        for file in each["files"]
    ]
    return report


def ask_configuration(asked: dict[str, Any], file: dict[str, Any], step: Any) -> dict[str, Any]:
    """The answers of vLLM's configuration by one file, or the error in which it ended."""
    step(f"asking vLLM's configuration ({file['id']})")
    spec = load_from("glmpatch_behaviour", os.path.join(os.path.dirname(__file__), "behaviour.py"))
    behaviour = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(behaviour)
    try:
        return {"crash": None, "answers": behaviour.measure(asked, file, load_from)}
    except (Exception, SystemExit) as error:
        return {"crash": describe(error), "answers": []}


def main(request_file: str) -> None:
    started = time.monotonic()
    with open(request_file, encoding="utf-8") as stream:
        request = json.load(stream)
    find_vllm(request["root"], request["paths"])

    def step(text: str) -> None:
        with open(request["steps"], "a", encoding="utf-8") as stream:
            stream.write(f"{time.monotonic() - started:.1f} {text}\n")

    try:
        report = measure(request, step)
    except CannotRun as reason:
        report = {"cannot": {"message": reason.reason, "hint": reason.hint}}
    report["seconds"] = round(time.monotonic() - started, 1)
    with open(request["report"], "w", encoding="utf-8") as stream:
        json.dump(report, stream)
    # vLLM leaves threads and process groups; nothing of them is worth waiting for.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
