"""One engine in a process of its own: starts it for a file and writes down what it answers.

Usage: ``python __main__.py serve ORDER.json`` (written by ``engine.py``).

On a GPU a process has one task, since what an engine leaves there is gone with its process alone.
On a CPU one process imports vLLM, which is most of the time, and each task is a fork of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import re
import signal
import sys
import time
import traceback
from typing import Any

from . import plugins, throughput
from .choose import FREE_MEMORY, GIB, needed_bytes
from .finder import INSPECTION, loads, name_file
from .language import N_, Message, packed
from .outcome import CannotRun, Steps, check_root, describe, importing_vllm

SETTLING = 10.0
"""Seconds in which the memory of the engine before this one must be free again."""


def main(order_file: str) -> None:
    with open(order_file, encoding="utf-8") as stream:
        order = json.load(stream)
    step = Steps(order["steps"], order["since"])
    with writing_what_cannot_run(order):
        step(N_("importing vLLM ({engine})", engine=order["engine"]))
        import_vllm(order)
        for number, task in enumerate(order["tasks"]):
            inspect(order, task, order["tasks"][number - 1] if number else None)
            if order["fork"]:
                ask_apart(order, task, step)
            else:
                write(order, ask(order, task, step))
    leave()


def leave() -> None:
    """End at once: vLLM leaves threads and process groups, and nothing of them is worth a wait."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def import_vllm(order: dict[str, Any]) -> None:
    with importing_vllm():
        import vllm.entrypoints.llm  # noqa: F401
    check_root(order["root"])
    with open(os.path.join(order["folder"], "imported"), "w", encoding="utf-8"):
        pass


@contextlib.contextmanager
def writing_what_cannot_run(order: dict[str, Any]) -> Any:
    try:
        yield
    except CannotRun as error:
        write(order, {"cannot": {"reason": error.reason, "hint": error.hint}})


def write(order: dict[str, Any], answer: dict[str, Any]) -> None:
    with open(order["answers"], "a", encoding="utf-8") as stream:
        stream.write(json.dumps(_told(answer)) + "\n")


def _told(answer: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it; what is long in it are numbers, and no message is among them."""
    return {
        name: each if name in ("tokens", "rows") else packed(each) for name, each in answer.items()
    }


def inspect(order: dict[str, Any], task: dict[str, Any], before: dict[str, Any] | None) -> None:
    """Have this process, and every one that the engine starts, load the task's file.

    vLLM looks at the class in a second process that imports vLLM again. On a CPU that process is a
    fork, and its answer is kept for all forks that ask about this file, and for no other.
    """
    name_file(order["listing"], task["module"], task["file"]["path"])
    order.setdefault("inspected", 0)
    known = before and (before["module"], before["file"]) == (task["module"], task["file"])
    if known or not order["fork"]:
        return
    from vllm.model_executor.models import registry

    asked: Any = getattr(registry, "_try_inspect_model_cls", None)
    own: Any = getattr(registry, "_run_in_subprocess", None)
    if own and hasattr(asked, "cache_clear"):
        asked.cache_clear()
        order["inspected"] = os.path.getsize(order["log"])
        registry._run_in_subprocess = run_in_fork
        asked(task["architecture"], registry.ModelRegistry.models.get(task["architecture"]))
        registry._run_in_subprocess = own


def run_in_fork(function: Any) -> Any:
    """What ``function`` returns in a fork of this process; RuntimeError with its last words."""
    sys.stdout.flush()
    sys.stderr.flush()
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        os.environ[INSPECTION] = "1"
        answer: tuple[Any, str | None]
        try:
            plugins.load()
            answer = (function(), None)
        except BaseException:
            answer = (None, traceback.format_exc())
        with os.fdopen(write, "wb") as stream:
            pickle.dump(answer, stream)
        leave()
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        told = stream.read()
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    if not told:
        how = repr(signal.Signals(-code)) if code < 0 else f"exit status {code}"
        raise RuntimeError(f"the process died with {how}")
    result, error = pickle.loads(told)
    if error:
        raise RuntimeError(error.strip())
    return result


def ask_apart(order: dict[str, Any], task: dict[str, Any], step: Any) -> None:
    """The same as ``ask`` in a fork, whose death is written down as an answer."""
    sys.stdout.flush()
    sys.stderr.flush()
    answers, begun = count(order["answers"]), os.path.getsize(order["log"])
    process = os.fork()
    if process == 0:
        os.setpgid(0, 0)
        with writing_what_cannot_run(order):
            write(order, ask(order, task, step))
        leave()
    _, status = os.waitpid(process, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)  # what the engine had started
    if count(order["answers"]) == answers:
        write(order, {"died": os.waitstatus_to_exitcode(status), "begun": begun})


def count(path: str) -> int:
    if not os.path.exists(path):
        return 0
    with open(path, encoding="utf-8") as stream:
        return sum(1 for _ in stream)


def ask(order: dict[str, Any], task: dict[str, Any], step: Any) -> dict[str, Any]:
    """The engine's numbers with one model file, or its speed, or the error in which it ended."""
    import vllm

    which = Message(task["file"]["id"])
    label = f"{order['engine']}, {task['precision']}, {task['mode']}"
    plugins.load()
    if task["impl"] == "vllm":
        plugins.check_registered(task["architecture"], task["module"])
    if task["timed"]:
        step(N_("timing vLLM ({file}, {label})", file=which, label=label))
        return tokens_per_second(order, task)
    step(N_("running vLLM's engine ({file}, {label})", file=which, label=label))
    answer = {"file": task["file"]["id"], "crash": None}
    try:
        longest = max(len(prompt) for prompt in task["prompts"]) + order["decode"]
        llm = vllm.LLM(**arguments(order, task, longest, len(task["prompts"])))
        check_loaded(order, task)
        answer.update(generate(order, task, llm))
    except CannotRun:
        raise
    except (Exception, SystemExit) as error:
        answer["crash"] = of_inspection(order, describe(error))
    return answer


def of_inspection(order: dict[str, Any], crash: dict[str, Any]) -> dict[str, Any]:
    """What vLLM's second process said, where it says no more than that the class failed in it."""
    if "failed to be inspected" not in crash["message"]:
        return crash
    with open(order["log"], "rb") as stream:
        stream.seek(order["inspected"])
        log = stream.read().decode("utf-8", "replace").strip()
    lines = [re.sub(r"^ERROR .*?\] ", "", line).strip() for line in log.splitlines()]
    told = [line for line in lines if "died with" in line] or [line for line in lines if line]
    return {
        "type": N_("the process in which vLLM looks at the class ended"),
        "message": told[-1][-2000:] if told else N_("it said nothing"),
        "place": None,
        "traceback": crash["traceback"] + log[-20000:],
    }


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


def check_loaded(order: dict[str, Any], task: dict[str, Any]) -> None:
    """Every process that holds a part of the model must have loaded the file in question."""
    if task["impl"] != "vllm":
        return
    found = [each for each in loads(order["listing"]) if not each["inspection"]]
    wanted = task["file"]["path"] or os.path.join(order["root"], *task["module"].split(".")) + ".py"
    for each in found:
        if each["file"] is None or not os.path.samefile(each["file"], wanted):
            raise CannotRun(
                N_(
                    "vLLM loads {module} from another file: {file}",
                    module=task["module"],
                    file=each["file"],
                ),
                N_("remove it, so that {file} is what Python imports", file=wanted),
            )
    ranks = order["parallel"]["tensor"] * order["parallel"]["pipeline"]
    processes = {each["process"] for each in found}
    if len(processes) < ranks:
        raise CannotRun(
            N_(
                "{number} of the {ranks} processes that hold the model loaded {file}",
                number=len(processes),
                ranks=ranks,
                file=wanted,
            ),
            N_("see which plugins this vLLM has: glmpatch status"),
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
        "dtype": task["precision"],
        "enable_prefix_caching": False,
        "enforce_eager": task["mode"] == "eager",
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
        wanted["gpu_memory_utilization"] = memory_share(order, task["precision"])
        # In float32 a chunk goes through a kernel whose products are tf32 on newer GPUs.
        chunked = task["precision"] != "float32"
        wanted["enable_chunked_prefill"] = chunked
        wanted["max_num_batched_tokens"] = order["chunk"] if chunked else sequences * longest
    if task["mode"] == "graphs":
        wanted["compilation_config"] = {"level": 0, "custom_ops": ["none"]}
    elif order["device"] == "cpu" and task["mode"] == "compiled" and order["engine"] == "V0":
        # Without custom operators the fused norm runs out of place, as on a compiled GPU server.
        wanted["compilation_config"] = {
            "level": 2,
            "backend": "inductor",
            "custom_ops": ["none"],
        }
    known = {field.name for field in dataclasses.fields(EngineArgs)}
    return {name: value for name, value in wanted.items() if name in known}


def memory_share(order: dict[str, Any], precision: str) -> float:
    """The share of the GPU's memory to ask for: what is needed, beside what others have taken."""
    import torch

    shares = order["parallel"]["tensor"] * order["parallel"]["pipeline"]
    needed = needed_bytes(order["parameters"], precision, shares)
    until = time.monotonic() + SETTLING
    while True:
        free, total = min(torch.cuda.mem_get_info(number) for number in range(shares))
        if free >= needed:
            break
        if time.monotonic() > until:
            raise CannotRun(
                N_(
                    "the GPU has {free:.1f} of {total:.1f} GiB free, and the engine needs "
                    "{needed:.1f} in {precision}",
                    free=free / GIB,
                    total=total / GIB,
                    needed=needed / GIB,
                    precision=precision,
                ),
                N_("{advice}, or use --via module", advice=FREE_MEMORY),
            )
        time.sleep(0.5)
    # V1 counts what other processes have taken as its own.
    others = total - free if order["engine"] == "V1" else 0
    return float(min(0.98, (others + needed) / total))


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
