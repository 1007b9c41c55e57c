"""Taken up by every Python process that an engine of the probe starts, through PYTHONPATH.

vLLM starts processes of its own (one inspects the model class, others hold a shard each), and
planned bytes must be what is loaded in all of them.
"""

import importlib.machinery
import importlib.util
import os
import sys


def _load(name: str, path: str) -> object:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _take_up() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    finder = _load("glmpatch_finder", os.path.join(os.path.dirname(here), "finder.py"))
    finder.install(os.environ["GLMPATCH_LISTING"])  # type: ignore[attr-defined]
    # The environment's own sitecustomize, which this one hides.
    others = [path for path in sys.path if os.path.abspath(path or os.curdir) != here]
    hidden = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if hidden is not None and hidden.origin is not None:
        _load("sitecustomize", hidden.origin)


_take_up()
