"""Measures all that the request asks for, and writes the report."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from . import behaviour, engine, module
from .finder import find_vllm, load_from
from .outcome import CannotRun, Steps, describe


def measure(request: dict[str, Any], step: Any) -> dict[str, Any]:
    """The report; raises CannotRun when the environment does not allow it."""
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
    report["way"], device = choose(request["device"], request["via"])
    parallel = max(request["parallel"].values()) > 1
    if report["way"] == "module" and (request["against"] or len(request["modes"]) == 1 or parallel):
        raise CannotRun(
            "the module way, which it is unless there is a GPU, has no modes, no other model "
            "and one process",
            "ask the whole engine: --via engine",
        )
    part = engine if report["way"] == "engine" else module
    request["precision"] = report["precision"] = request["precision"] or part.precision(device)
    if request["proofs"]:
        part.measure(request, device, report, step)
    if request["behaviours"] and (part is engine or not request["proofs"]):
        module.import_vllm(request, device, report, step)
    report["behaviours"] = [
        {"proof": each["id"], "file": file["id"], **ask_configuration(each, file, step)}
        for each in request["behaviours"]
        for file in each["files"]
    ]
    # Not asked before: it opens the GPU, and an engine wants to be the only one there.
    report["device"] = "CPU" if device == "cpu" else torch.cuda.get_device_name(0)
    return report


def ask_configuration(asked: dict[str, Any], file: dict[str, Any], step: Any) -> dict[str, Any]:
    """The answers of vLLM's configuration by one file, or the error in which it ended."""
    step(f"asking vLLM's configuration ({file['id']})")
    try:
        return {"crash": None, "answers": behaviour.measure(asked, file, load_from)}
    except (Exception, SystemExit) as error:
        return {"crash": describe(error), "answers": []}


def choose(asked: str, via: str) -> tuple[str, str]:
    """The way, and the torch device: the engine where there is a GPU for it, else the module."""
    import torch

    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        built = torch.version.cuda or torch.version.hip
        why = "no GPU is visible to it" if built else "it was built without GPU support"
        raise CannotRun(
            f"--device cuda: torch {torch.__version__} finds no usable GPU ({why})",
            "use --device cpu: the module proof needs no GPU",
        )
    if via == "engine":
        return via, engine.choose_device(asked)
    usable = there and asked != "cpu" and not engine.built_for_cpu()
    return "engine" if usable and via == "auto" else "module", "cuda" if usable else "cpu"


def main(request_file: str) -> None:
    with open(request_file, encoding="utf-8") as stream:
        request = json.load(stream)
    started = request["since"] = time.time()
    find_vllm(request["root"], request["paths"])
    step = Steps(request["steps"], started)
    try:
        report = measure(request, step)
    except CannotRun as reason:
        report = {"cannot": {"message": reason.reason, "hint": reason.hint}}
    report["seconds"] = round(time.time() - started, 1)
    with open(request["report"], "w", encoding="utf-8") as stream:
        json.dump(report, stream)
    # vLLM leaves threads and process groups; nothing of them is worth waiting for.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
