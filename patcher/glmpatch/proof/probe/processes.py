"""The processes in which engines run: started, waited for, and gone with all that they started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from typing import Any

from .language import N_, unpacked
from .outcome import LOOK, CannotRun

BLOCK = 16
"""Tokens in a block of the paged cache: vLLM's default."""
CHUNK = 64
"""Tokens that one step computes on a GPU in bfloat16."""
DECODE = 8
"""Tokens that follow each prompt: enough for some to begin a new block."""


def ask(request: dict[str, Any], device: str, tasks: Any) -> list[dict[str, Any]]:
    """What the engines answer to each task, in their order; raises CannotRun.

    On a GPU each task has a process to itself: what an engine leaves in its process may make the
    next one fail, and its memory is free when the process is gone. On a CPU one process for all
    imports vLLM and asks in forks of itself, those of one file one after another.
    """
    answers: dict[int, dict[str, Any]] = {}
    order = sorted(range(len(tasks)), key=lambda n: _together(tasks, n))
    groups: list[list[int]] = []
    for number in order:
        same = groups and tasks[groups[-1][0]]["engine"] == tasks[number]["engine"]
        if device == "cpu" and same:
            groups[-1].append(number)
        else:
            groups.append([number])
    for group in groups:
        while group:
            # The process may have died of one task; the others are put to another.
            found = _start(request, device, [tasks[number] for number in group])
            answers.update(zip(group, found))
            group = group[len(found) :]
    return [answers[number] for number in range(len(tasks))]


def _together(tasks: Any, number: int) -> Any:
    """Where a task stands among all: by engine, and by the first task of the same file."""
    task = tasks[number]
    same = ("engine", "module", "file")
    first = next(n for n, each in enumerate(tasks) if all(each[k] == task[k] for k in same))
    return task["engine"] != "V1", first, number


def ask_for_facts(request: dict[str, Any], files: Any) -> dict[str, Any]:
    """The answer of ``facts``; raises CannotRun."""
    order = _order(request, {"files": files})
    status = _run("facts", order, _environment(order))
    if not os.path.exists(order["answers"]):
        raise CannotRun(
            N_(
                "the process that asks vLLM for its GPUs ended ({how}): {last}",
                how=_how(status),
                last=_last(order),
            ),
            LOOK,
        )
    with open(order["answers"], encoding="utf-8") as stream:
        answer: dict[str, Any] = unpacked(json.load(stream))
    if "cannot" in answer:
        raise CannotRun(**answer["cannot"])
    return answer


def _start(request: dict[str, Any], device: str, tasks: Any) -> list[dict[str, Any]]:
    """Run ``serve`` in a process of its own; at least one answer."""
    order = _order(
        request,
        {
            "engine": tasks[0]["engine"],
            "device": device,
            "fork": device == "cpu",
            "block": BLOCK,
            "chunk": CHUNK,
            "decode": DECODE,
            "tasks": tasks,
        },
    )
    status = _run("serve", order, _environment(order))
    answers: list[dict[str, Any]] = []
    if os.path.exists(order["answers"]):
        with open(order["answers"], encoding="utf-8") as stream:
            answers = [_read(line) for line in stream]
    if answers and "cannot" in answers[-1]:
        raise CannotRun(**answers[-1]["cannot"])
    if len(answers) < len(tasks):
        answers.append({"died": status, "begun": 0})
    return [
        _death(order, answer["died"], task, answer["begun"]) if "died" in answer else answer
        for answer, task in zip(answers, tasks)
    ]


def _read(line: str) -> dict[str, Any]:
    """One answer; what is long in it are numbers, and no message is among them."""
    answer: dict[str, Any] = json.loads(line)
    return {
        name: each if name in ("tokens", "rows") else unpacked(each)
        for name, each in answer.items()
    }


def _order(request: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """What a process is told, and written there in a folder of its own."""
    folder = tempfile.mkdtemp(prefix="engine-")
    kept = ("root", "paths", "steps", "since", "parallel", "parameters")
    names = {name: os.path.join(folder, name) for name in ("order", "listing", "answers", "log")}
    order = {**{name: request[name] for name in kept}, **content, "folder": folder, **names}
    listing = {"root": order["root"], "paths": order["paths"], "modules": {}}
    for name, written in (("order", order), ("listing", listing)):
        with open(names[name], "w", encoding="utf-8") as stream:
            json.dump(written, stream)
    return order


def _run(part: str, order: dict[str, Any], environment: dict[str, str]) -> int:
    """The exit status of a part of the probe in a process group of its own, which ends with it."""
    with open(order["log"], "wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-B", "-s"),
                *(os.path.join(os.path.dirname(__file__), "__main__.py"), part, order["order"]),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=order["folder"],
            env=environment,
            start_new_session=True,
        )
        try:
            return process.wait()
        finally:
            # Workers that are left would hold the memory that the next engine needs.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _how(status: int) -> str:
    if status < 0:
        return N_("signal {name}", name=-status)
    return N_("exit status {status}", status=status)


def _log(order: dict[str, Any], begun: int = 0) -> str:
    with open(order["log"], "rb") as stream:
        stream.seek(begun)
        return stream.read().decode("utf-8", "replace").strip()


def _last(order: dict[str, Any], begun: int = 0) -> str:
    return (_log(order, begun).splitlines() or [N_("it said nothing")])[-1]


def _death(order: dict[str, Any], status: int, task: dict[str, Any], begun: int) -> dict[str, Any]:
    """The answer of an engine whose process ended early: a crash, once vLLM was imported."""
    how, last = _how(status), _last(order, begun)
    if not os.path.exists(os.path.join(order["folder"], "imported")):
        raise CannotRun(
            N_(
                "the engine's process ended ({how}) before it had imported vLLM: {last}",
                how=how,
                last=last,
            ),
            LOOK,
        )
    crash = {
        "type": N_("the engine's process ended"),
        "message": N_("{how}: {last}", how=how, last=last),
        "place": None,
        "traceback": _log(order, begun)[-20000:],
    }
    if task["timed"]:
        return {"error": crash}
    return {"file": task["file"]["id"], "crash": crash}


def _environment(order: dict[str, Any]) -> dict[str, str]:
    """As Python's ``-I`` would have it, but for the hook that loads the model file.

    ``-I`` itself would be handed on to the processes that vLLM starts, and keep the hook out.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment.update(
        GLMPATCH_LISTING=order["listing"],
        PYTHONDONTWRITEBYTECODE="1",
        PYTHONNOUSERSITE="1",
        PYTHONPATH=os.path.join(os.path.dirname(os.path.abspath(__file__)), "hook"),
        PYTHONSAFEPATH="1",
        VLLM_CPU_KVCACHE_SPACE="1",
        # The engine in the process that asks it: an error of the model comes out as what it is.
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_HOST_IP="127.0.0.1",
    )
    environment.pop("VLLM_USE_V1", None)
    if "engine" in order:
        environment["VLLM_USE_V1"] = "1" if order["engine"] == "V1" else "0"
    ranks = order["parallel"]["tensor"] * order["parallel"]["pipeline"]
    if order.get("device") == "cpu" and ranks > 1:
        # Left to itself, newer vLLM wants a NUMA node for each process.
        processors = sorted(os.sched_getaffinity(0))
        environment.setdefault(
            "VLLM_CPU_OMP_THREADS_BIND",
            "|".join(",".join(map(str, processors[rank::ranks])) for rank in range(ranks)),
        )
    return environment
