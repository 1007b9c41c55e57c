"""Loads a model file from elsewhere, so that planned bytes are proven before they are installed.

Standard library only: ``hook/sitecustomize.py`` takes this file into every process that an engine
starts.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import sys
from typing import Any

INSPECTION = "GLMPATCH_INSPECTION"
"""Set in the environment of a process that looks at a model class, and serves nothing."""
INSPECTS = "vllm.model_executor.models.registry"
"""The module that vLLM itself runs in such a process."""


def load_from(name: str, path: str) -> Any:
    """The spec of a module that is run from this file, bypassing bytecode."""
    return importlib.util.spec_from_loader(name, SourceOnly(name, path))


class FileFinder:
    """Import hook that loads the named modules from other files, bypassing bytecode."""

    def __init__(self, paths: dict[str, str]) -> None:
        self.paths = paths

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in self.paths:
            return None
        return load_from(name, self.paths[name])


class SourceOnly(importlib.machinery.SourceFileLoader):
    """Compiles the source every time, so that no bytecode of another file can stand in for it."""

    def get_code(self, fullname: str) -> Any:
        return compile(self.get_data(self.path), self.path, "exec", dont_inherit=True)


class ListedFinder(FileFinder):
    """The same for the modules that a JSON file names when vLLM imports one of its models.

    Read anew each time: one process may load several files, one after another. What each process
    loads is written down, since an engine may hold its model in processes of its own.
    """

    def __init__(self, listing: str) -> None:
        super().__init__({})
        self.listing = listing

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if not name.startswith("vllm.model_executor.models."):
            return None
        with open(self.listing, encoding="utf-8") as stream:
            listing = json.load(stream)
        if name not in listing["modules"]:
            return None
        where = listing["modules"][name]
        spec = load_from(name, where) if where else _installed(name, path)
        _write_down(self.listing, name, spec and spec.origin)
        return spec


def _installed(name: str, path: Any) -> Any:
    """The spec of the module as it is found without this hook."""
    return importlib.machinery.PathFinder.find_spec(name, path)


def _write_down(listing: str, name: str, origin: str | None) -> None:
    """One line for each time that a process was handed a model file."""
    command = getattr(sys, "orig_argv", sys.argv)
    line = {
        "process": os.getpid(),
        "module": name,
        "file": origin,
        "inspection": INSPECTION in os.environ or INSPECTS in command,
    }
    with open(listing + ".loaded", "a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def name_file(listing: str, module: str, path: str | None) -> None:
    """Have every process of this listing load ``module`` from ``path``; None is vLLM's own."""
    with open(listing, encoding="utf-8") as stream:
        content = json.load(stream)
    content["modules"] = {module: path}
    with open(listing + ".new", "w", encoding="utf-8") as stream:
        json.dump(content, stream)
    os.replace(listing + ".new", listing)  # another process may be reading it
    open(listing + ".loaded", "w", encoding="utf-8").close()


def loads(listing: str) -> list[dict[str, Any]]:
    """What was written down since a file was named: process, module, file, inspection or not."""
    with open(listing + ".loaded", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def is_at_home(root: str) -> bool:
    """Whether this interpreter itself looks for packages where that vLLM lies."""
    return any(os.path.realpath(path) == os.path.realpath(root) for path in _OWN)


_OWN = list(sys.path)
"""Where this interpreter looked before anything was added."""


def find_vllm(root: str, paths: list[str]) -> None:
    """Make ``import vllm`` lead to ``root``, with everything else found where it was."""
    sys.path.extend(path for path in paths if path not in sys.path)
    found = importlib.machinery.PathFinder.find_spec("vllm")
    where = os.path.dirname(os.path.dirname(found.origin)) if found and found.origin else ""
    if os.path.realpath(where) != os.path.realpath(root):
        sys.path.insert(0, root)


def install(listing: str) -> None:
    """Make this process import vLLM, and the model files, as ``listing`` says."""
    with open(listing, encoding="utf-8") as stream:
        wanted = json.load(stream)
    find_vllm(wanted["root"], wanted["paths"])
    sys.meta_path.insert(0, ListedFinder(listing))
