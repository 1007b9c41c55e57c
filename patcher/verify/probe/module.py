"""The module way: vLLM's model file alone, in plain PyTorch (vLLM's ``forward_native``)."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
import tempfile
from typing import Any

from .checkpoint import ABOVE, Checkpoint, compare, logprobs, open_checkpoint, peak
from .finder import FileFinder
from .outcome import check_root, describe, importing_vllm


def precision(device: str) -> str:
    """Plain PyTorch computes float32 as exactly on one device as on another."""
    return "float32"


def measure(request: dict[str, Any], device: str, report: dict[str, Any], step: Any) -> None:
    """Fill ``report`` with what the module way finds; raises CannotRun."""
    import_vllm(request, device, report, step)
    tested = request["precision"]
    for proof in request["proofs"]:
        step(f"asking Transformers ({proof['architecture']})")
        checkpoint = open_checkpoint(request, proof, device)
        prompts = checkpoint.draw(proof["prompts"])
        noisy, reference = (checkpoint.ask(prompts, p) for p in (tested, ABOVE[tested]))
        noise = compare(noisy, reference)
        known = {
            "proof": proof["id"],
            "noise": noise["distance"],
            "noise_series": noise["series"],
            "peak": peak(reference),
        }
        for file in proof["files"]:
            step(f"asking vLLM ({file['id']})")
            result = measure_file(checkpoint, prompts, reference, proof, file)
            report["results"].append({**known, **result})


def import_vllm(request: dict[str, Any], device: str, report: dict[str, Any], step: Any) -> None:
    """Import vLLM into this process, which it runs in without an engine; raises CannotRun."""
    step("importing vLLM")
    with importing_vllm():
        use_platform(device)
        import vllm.model_executor.models.llama
    report["vllm"] = vllm.__version__
    check_root(request["root"])


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


def ask_vllm(checkpoint: Checkpoint, prompts: Any, proof: dict[str, Any], path: str | None) -> Any:
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
            model.load_weights((n, w.cpu()) for n, w in checkpoint.reference.state_dict().items())
            with torch.inference_mode(), set_forward_context(None, config):
                return [_forward(model, p.to(checkpoint.device)) for p in prompts]
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
    return logprobs(model.compute_logits(model(prompt, positions, **extra), None))


def measure_file(
    checkpoint: Checkpoint,
    prompts: Any,
    reference: Any,
    proof: dict[str, Any],
    file: dict[str, Any],
) -> Any:
    """One file of one proof: its numbers, or the error in which it ended."""
    try:
        numbers = ask_vllm(checkpoint, prompts, proof, file["path"])
        if [n.shape for n in numbers] != [r.shape for r in reference]:
            raise ValueError(f"logits of shape {[tuple(n.shape) for n in numbers]}")
        return {"file": file["id"], "crash": None, **compare(numbers, reference)}
    except (Exception, SystemExit) as error:
        return {"file": file["id"], "crash": describe(error)}
