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

    Read anew each time: one engine process may be asked for several files.
    """

    def __init__(self, listing: str) -> None:
        super().__init__({})
        self.listing = listing

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if not name.startswith("vllm.model_executor.models."):
            return None
        with open(self.listing, encoding="utf-8") as stream:
            self.paths = json.load(stream)["modules"]
        return super().find_spec(name, path, target)


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
