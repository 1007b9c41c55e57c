"""Two model files side by side in one process, in turn: ``python forward.py REQUEST.json``.

Run by the interpreter that owns vLLM, as the probe is and with the probe's own means; prints the
seconds of every forward pass as JSON, by file and kind of pass.
"""

from __future__ import annotations

import json
import runpy
import sys
import time
from typing import Any


def main(request_file: str) -> None:
    with open(request_file, encoding="utf-8") as stream:
        request = json.load(stream)
    module = runpy.run_path(request["probe"])["load"]("module")
    sys.path.insert(0, request["root"])
    module.use_platform("cpu")
    import torch

    torch.set_num_threads(request["threads"])
    proof = request["proof"]
    checkpoint = module.open_checkpoint({"model": None}, proof, "float32", "cpu")
    prompts = checkpoint.draw(request["tokens"].values())
    models = {
        name: build(module, checkpoint, proof, path) for name, path in request["files"].items()
    }
    one, other = ([model(prompt) for prompt in prompts] for model in models.values())
    away = max(float((mine - theirs).abs().max()) for mine, theirs in zip(one, other))
    seconds: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in models} for kind in request["tokens"]
    }
    for _ in range(request["runs"]):
        for kind, prompt in zip(request["tokens"], prompts):
            for name, model in models.items():
                started = time.perf_counter()
                for _ in range(request["passes"][kind]):
                    model(prompt)
                seconds[kind][name].append(time.perf_counter() - started)
    print(json.dumps({"seconds": seconds, "away": away}))


def build(module: Any, checkpoint: Any, proof: Any, path: str) -> Any:
    """A model by the file at ``path``, as a function of a prompt."""
    import torch
    from vllm.forward_context import set_forward_context

    with module._loaded(proof, path) as model_class:
        assert sys.modules[model_class.__module__].__file__ == path
        if not hasattr(model_class, "sample"):
            # 0.8.4 takes for a model that generates only what has this method; 0.8.5's lacks it.
            model_class.sample = lambda self, logits, sampling_metadata: None
        with module.vllm_config(checkpoint, proof["architecture"], model_class) as config:
            model = model_class(vllm_config=config).eval()
    model.load_weights(checkpoint.reference.state_dict().items())

    def forward(prompt: Any) -> Any:
        with torch.inference_mode(), set_forward_context(None, config):
            return module._forward(model, prompt)

    return forward


if __name__ == "__main__":
    main(sys.argv[1])
