"""Part of the probe: what vLLM's configuration answers, case by case.

A second copy of the module that holds ``ModelConfig`` is run beside vLLM's own, from the file that
the request names, so that nothing else of the process sees it. Runs on Python 3.9 and newer.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import tempfile
from typing import Any

CANDIDATE = "glmpatch_candidate"


def measure(behaviour: dict[str, Any], file: dict[str, Any], find_spec: Any) -> list[str]:
    """The answers of one file to all cases.

    Args:
        behaviour: module and cases, as the patch names them.
        file: where the module's source is; a path of None is vLLM's own.
        find_spec: name and path in, a spec that runs that source out.
    """
    try:
        module = _load(behaviour["module"], file["path"], find_spec)
        return [_ask(module, case) for case in behaviour["cases"]]
    finally:
        sys.modules.pop(CANDIDATE, None)


def _load(name: str, path: str | None, find_spec: Any) -> Any:
    own = importlib.import_module(name)
    if path is None:
        return own
    spec = find_spec(CANDIDATE, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[CANDIDATE] = module
    spec.loader.exec_module(module)
    return module


def _ask(module: Any, case: dict[str, Any]) -> str:
    """``bfloat16`` and the like, or ``refused: `` and the error's message."""
    import transformers
    from vllm.model_executor.models.registry import ModelRegistry

    architecture = case["architecture"]
    model_class = getattr(importlib.import_module(case["module"]), architecture)
    # Registering the class itself spares the second process in which vLLM inspects architectures.
    ModelRegistry.register_model(architecture, model_class)
    config = getattr(transformers, case["config_class"])(
        architectures=[architecture], torch_dtype=case["checkpoint"]
    )
    folder = tempfile.mkdtemp(prefix="checkpoint-")
    config.save_pretrained(folder)
    try:
        chosen = module.ModelConfig(
            model=folder,
            task="generate",
            tokenizer=folder,
            tokenizer_mode="auto",
            trust_remote_code=False,
            dtype=case["dtype"],
            seed=0,
            enforce_eager=True,
            skip_tokenizer_init=True,
            model_impl="vllm",
        )
    except ValueError as error:
        return f"refused: {error}"
    return str(chosen.dtype).replace("torch.", "")
