"""One engine in a process of its own: starts it for every file and writes down what it answers.

Usage: ``python __main__.py serve ORDER.json`` (written by ``engine.py``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import sys
from typing import Any

from . import throughput
from .outcome import CannotRun, Steps, check_root, describe, importing_vllm

GIB = 2**30
NEEDED = 3 * GIB
"""GPU memory beside the weights: CUDA's own context and workspaces, most of it."""


def main(order_file: str) -> None:
    with open(order_file, encoding="utf-8") as stream:
        order = json.load(stream)
    step = Steps(order["steps"], order["since"])
    try:
        for task in order["tasks"]:
            write(order, ask(order, task, step))
            clean_up()
    except CannotRun as error:
        write(order, {"cannot": {"reason": error.reason, "hint": error.hint}})
    sys.stdout.flush()
    sys.stderr.flush()
    # vLLM leaves threads and process groups; nothing of them is worth waiting for.
    os._exit(0)


def write(order: dict[str, Any], answer: dict[str, Any]) -> None:
    with open(order["answers"], "a", encoding="utf-8") as stream:
        stream.write(json.dumps(answer) + "\n")


def ask(order: dict[str, Any], task: dict[str, Any], step: Any) -> dict[str, Any]:
    """The engine's numbers with one model file, or its speed, or the error in which it ended."""
    label = f"{order['mode']}, {order['engine']}"
    if "vllm" not in sys.modules:
        step(f"importing vLLM ({label})")
    with importing_vllm():
        import vllm
    check_root(order["root"])
    with open(os.path.join(order["folder"], "imported"), "w", encoding="utf-8"):
        pass
    take(order, task)
    if task["timed"]:
        step(f"timing vLLM ({task['file']['id']}, {label})")
        return tokens_per_second(order, task)
    step(f"asking vLLM ({task['file']['id']}, {label})")
    answer = {"file": task["file"]["id"], "vllm": vllm.__version__, "crash": None}
    try:
        longest = max(len(prompt) for prompt in task["prompts"]) + order["decode"]
        llm = vllm.LLM(**arguments(order, task, longest, len(task["prompts"])))
        loaded(order, task)
        answer.update(generate(order, task, llm))
    except CannotRun:
        raise
    except (Exception, SystemExit) as error:
        cannot_start(error)
        answer["crash"] = describe(error)
    return answer


def tokens_per_second(order: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """Throughput of the engine with one model file, or the error in which it ended."""
    import vllm

    load = task["timed"]
    longest = load["prefill"] + load["decode"] + 1
    try:
        llm = vllm.LLM(
            **{
                **arguments(order, task, longest, load["batch"]),
                "load_format": "dummy",
                "max_num_batched_tokens": load["batch"] * load["prefill"],
            }
        )
        return throughput.measure(llm, load, task["vocabulary"])
    except (Exception, SystemExit) as error:
        return {"error": describe(error)}


def take(order: dict[str, Any], task: dict[str, Any]) -> None:
    """Have this process, and every one that the engine starts, load that file."""
    with open(order["listing"], encoding="utf-8") as stream:
        listing = json.load(stream)
    path = task["file"]["path"]
    listing["modules"] = {task["module"]: path} if path else {}
    with open(order["listing"], "w", encoding="utf-8") as stream:
        json.dump(listing, stream)
    sys.modules.pop(task["module"], None)


def loaded(order: dict[str, Any], task: dict[str, Any]) -> None:
    """The engine must have run the file in question, and no other."""
    module = sys.modules.get(task["module"])
    elsewhere = module is None and max(order["parallel"].values()) > 1
    if task["impl"] != "vllm" or elsewhere:
        return
    wanted = task["file"]["path"] or os.path.join(order["root"], *task["module"].split(".")) + ".py"
    if module is None or not os.path.samefile(module.__file__ or "", wanted):
        where = module.__file__ if module else "none"
        raise CannotRun(
            f"vLLM serves {task['architecture']} by another file: {where}",
            "remove the plugin or the edit that puts another model in its place",
        )


def arguments(
    order: dict[str, Any], task: dict[str, Any], longest: int, sequences: int
) -> dict[str, Any]:
    """Arguments of ``vllm.LLM``; those that this version does not know are left out.

    ``longest`` is in tokens, ``sequences`` how many run at once.
    """
    from vllm.engine.arg_utils import EngineArgs

    parallel = order["parallel"]
    wanted: dict[str, Any] = {
        "disable_log_stats": True,
        "dtype": order["precision"],
        "enable_prefix_caching": False,
        "enforce_eager": order["mode"] == "eager",
        "max_logprobs": task["top"],
        "max_model_len": longest,
        "max_num_seqs": sequences,
        "model": task["checkpoint"],
        "model_impl": task["impl"],
        # What the sequences fill, twice over, and not what the device would hold.
        "num_gpu_blocks_override": 2 * sequences * (longest // order["block"] + 1),
        "pipeline_parallel_size": parallel["pipeline"],
        "seed": 0,
        "skip_tokenizer_init": True,
        "swap_space": 0,
        "tensor_parallel_size": parallel["tensor"],
    }
    if max(parallel.values()) > 1:
        wanted["distributed_executor_backend"] = "mp"
    if order["device"] == "cuda":
        wanted["gpu_memory_utilization"] = memory_share(order)
        wanted["enable_chunked_prefill"] = True
        wanted["max_num_batched_tokens"] = order["chunk"]
    elif order["mode"] == "compiled" and order["engine"] == "V0":
        # Without custom operators the fused norm runs out of place, as on a compiled GPU server.
        wanted["compilation_config"] = {
            "level": 2,
            "backend": "inductor",
            "custom_ops": ["none"],
        }
    known = {field.name for field in dataclasses.fields(EngineArgs)}
    return {name: value for name, value in wanted.items() if name in known}


def memory_share(order: dict[str, Any]) -> float:
    """The share of the GPU's memory to ask for: what is needed, beside what others have taken."""
    import torch

    free, total = torch.cuda.mem_get_info()
    width = 4 if order["precision"] == "float32" else 2
    shares = order["parallel"]["tensor"] * order["parallel"]["pipeline"]
    needed = NEEDED + order["parameters"] * width / shares
    if free < needed:
        raise CannotRun(
            f"the GPU has {free / GIB:.1f} of {total / GIB:.1f} GiB free, and the engine needs "
            f"{needed / GIB:.1f}",
            "stop what runs there, name another GPU with CUDA_VISIBLE_DEVICES, or use --via module",
        )
    # V1 counts what other processes have taken as its own.
    others = total - free if order["engine"] == "V1" else 0
    return float(min(0.98, (others + needed) / total))


def cannot_start(error: BaseException) -> None:
    """Errors that say nothing about the model file."""
    text = str(error)
    if type(error).__name__ == "OutOfMemoryError" or "memory for the cache blocks" in text:
        raise CannotRun(
            f"the GPU has too little free memory: {text.splitlines()[0]}",
            "stop what runs there, name another GPU with CUDA_VISIBLE_DEVICES, or use --via module",
        ) from error
    if "init_shm_manager" in text:
        raise CannotRun(
            "this vLLM was built for the CPU without AVX-512, and splits no model without it",
            "leave out --tp and --pp, or build vLLM where the processor has AVX-512",
        ) from error
    if isinstance(error, NotImplementedError) and "VLLM_USE_V1" in text:
        raise CannotRun(text.splitlines()[0], "use --via module") from error


def generate(order: dict[str, Any], task: dict[str, Any], llm: Any) -> dict[str, Any]:
    """Tokens and log-probabilities of all prompts in one batch."""
    from vllm import SamplingParams

    parameters = SamplingParams(
        temperature=0.0,
        max_tokens=order["decode"],
        ignore_eos=True,
        detokenize=False,
        logprobs=task["top"],
        prompt_logprobs=task["top"],
    )
    outputs = llm.generate(
        [{"prompt_token_ids": prompt} for prompt in task["prompts"]],
        parameters,
        use_tqdm=False,
    )
    tokens, rows = [], []
    for prompt, output in zip(task["prompts"], outputs):
        generated = list(output.outputs[0].token_ids)
        if len(generated) != order["decode"]:
            raise ValueError(f"{len(generated)} tokens generated, asked for {order['decode']}")
        tokens.append(prompt + generated)
        # Nothing precedes the first token of a prompt, so that vLLM has no numbers for it.
        found = [*output.prompt_logprobs[1:], *output.outputs[0].logprobs]
        rows.append([{token: value.logprob for token, value in row.items()} for row in found])
        if any(len(row) < task["top"] for row in rows[-1]) or len(rows[-1]) + 1 != len(tokens[-1]):
            raise ValueError("log-probabilities are missing")
    return {"tokens": tokens, "rows": rows}


def clean_up() -> None:
    """Leave nothing behind by which the next file in this process could be judged."""
    import torch
    from vllm.distributed import cleanup_dist_env_and_memory
    from vllm.model_executor.layers import rotary_embedding
    from vllm.model_executor.models import registry

    gc.collect()
    cleanup_dist_env_and_memory()
    torch._dynamo.reset()
    with contextlib.suppress(AttributeError):
        rotary_embedding._ROPE_DICT.clear()
    with contextlib.suppress(AttributeError):
        registry._try_load_model_cls.cache_clear()
