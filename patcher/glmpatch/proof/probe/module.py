"""The module way: vLLM's model file alone, in plain PyTorch (vLLM's ``forward_native``)."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
import tempfile
import traceback
from typing import Any

from . import fused, plugins
from .attention import plain_attention
from .checkpoint import Checkpoint, Yardstick, logprobs, open_checkpoint
from .compare import compare, known
from .finder import FileFinder
from .language import N_, Message
from .outcome import CannotRun, asking, check_root, describe, importing_vllm


class NotServable(Exception):
    """vLLM's runners could not work with the class, however right its numbers are."""


def precisions(device: str) -> tuple[str, ...]:
    """Plain PyTorch computes in all of them, on one device as on another."""
    return ("float32", "bfloat16")


def measure(request: dict[str, Any], device: str, report: dict[str, Any], step: Any) -> None:
    """Fill ``report`` with what the module way finds; raises CannotRun."""
    import_vllm(request, device, report, step)
    if device == "cpu" and not request["model"]:
        import torch

        # So small a model is computed faster by one thread than by many that wait for each other.
        torch.set_num_threads(1)
    step(N_("loading vLLM's plugins"))
    plugins.load()
    for proof in request["proofs"]:
        plugins.check_served(proof, request["root"])
    for proof in request["proofs"]:
        for precision in request["precisions"]:
            if precision in proof["precisions"]:
                _measure(request, proof, precision, device, report, step)


def _measure(
    request: dict[str, Any],
    proof: dict[str, Any],
    precision: str,
    device: str,
    report: dict[str, Any],
    step: Any,
) -> None:
    step(
        N_(
            "computing the reference ({architecture}, {precision})",
            architecture=proof["architecture"],
            precision=precision,
        )
    )
    checkpoint = open_checkpoint(request, proof, precision, device)
    prompts = checkpoint.draw(proof["prompts"])
    yardstick = Yardstick(checkpoint, prompts)
    about = {"proof": proof["id"], "kind": "numbers", **known(yardstick)}
    for file in proof["files"]:
        which = Message(file["id"])
        step(N_("asking vLLM ({file}, {precision})", file=which, precision=precision))
        with asking(request, proof["id"], file["id"]):
            for norms in fused.WAYS:
                result = measure_file(checkpoint, prompts, yardstick, proof, file, norms)
                report["results"].append({**about, **result})


def import_vllm(request: dict[str, Any], device: str, report: dict[str, Any], step: Any) -> None:
    """Import vLLM into this process, which it runs in without an engine; raises CannotRun."""
    step(N_("importing vLLM"))
    with importing_vllm():
        use_platform(device)
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


def ask_vllm(
    checkpoint: Checkpoint, prompts: Any, proof: dict[str, Any], path: str | None, norms: str
) -> Any:
    """Log-probabilities by vLLM's model file, or by the file at ``path`` in its place.

    ``norms`` is the way in which the fused operators leave their results.
    """
    import torch
    from vllm.forward_context import set_forward_context

    with _loaded(proof, path) as model_class, fused.leaving(norms):
        check_interface(model_class)
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


@contextlib.contextmanager
def _loaded(proof: dict[str, Any], path: str | None) -> Any:
    """The model class of the file in question, with the plain attention; gone afterwards."""
    name = proof["module"]
    finder = FileFinder({name: path} if path else {})
    with plain_attention():
        sys.modules.pop(name, None)
        sys.meta_path.insert(0, finder)
        try:
            with _importing(name):
                module = importlib.import_module(name)
            yield getattr(module, proof["architecture"])
        finally:
            sys.meta_path.remove(finder)
            sys.modules.pop(name, None)


@contextlib.contextmanager
def _importing(module: str) -> Any:
    """Raises CannotRun where a file that this one imports is broken, and not this one: the
    innermost one that was being imported, unless what it missed is of this file."""
    spec = importlib.util.find_spec(module)
    try:
        yield
    except Exception as error:
        frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
        imported = [code.co_filename for code in frames if code.co_name == "<module>"]
        if isinstance(error, SyntaxError) and error.filename:
            imported.append(error.filename)
        of_this_file = getattr(error, "name", None) == module
        broken = imported[-1] if imported and os.path.isfile(imported[-1]) else None
        if spec and broken not in (None, spec.origin) and not of_this_file:
            raise CannotRun(
                N_(
                    "{file}, which {module} imports, is broken: {error}",
                    file=broken,
                    module=module,
                    error=f"{type(error).__name__}: {error}",
                ),
                N_(
                    "look at the environment of vLLM: {command}",
                    command=f"python -c 'import {module}'",
                ),
            ) from error
        raise


def check_interface(model_class: Any) -> None:
    """vLLM's own test of what its runners call on a model that generates text."""
    from vllm.model_executor.models import interfaces_base as interfaces

    if interfaces.is_text_generation_model(model_class):
        return
    asked = interfaces.VllmModelForTextGeneration
    names = {n for each in asked.__mro__ for n, v in vars(each).items() if inspect.isfunction(v)}
    lacking = sorted(
        name
        for name in names
        if not name.startswith("_") and not callable(getattr(model_class, name, None))
    )
    raise NotServable(
        N_("vLLM's runners call what the class lacks: {names}", names=", ".join(lacking))
        if lacking
        else N_(
            "vLLM does not take the class for a model that generates text: its __init__ or "
            "forward has not the arguments that vLLM gives by name"
        )
    )


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
    yardstick: Yardstick,
    proof: dict[str, Any],
    file: dict[str, Any],
    norms: str,
) -> Any:
    """One file of one proof: its numbers, or the error in which it ended."""
    found = {"file": file["id"], "norms": norms, "crash": None}
    try:
        numbers = ask_vllm(checkpoint, prompts, proof, file["path"], norms)
        if [n.shape for n in numbers] != [r.shape for r in yardstick.reference]:
            raise ValueError(f"logits of shape {[tuple(n.shape) for n in numbers]}")
        return {**found, **compare(numbers, yardstick)}
    except CannotRun:
        raise
    except (Exception, SystemExit) as error:
        return {**found, "crash": describe(error)}
