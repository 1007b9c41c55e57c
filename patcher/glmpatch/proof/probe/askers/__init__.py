"""Askers: each puts a kind of question to a file of vLLM, in the interpreter that owns vLLM.

How to add one:

1. ``askers/NAME.py`` with one function::

        def answer(module: str, path: str | None, questions: list[Any]) -> list[Any]:

   ``module`` is the name under which vLLM imports the file (``vllm.tool_parsers.glm4_moe``),
   ``path`` where the source to be asked lies, None for the installed one, and ``questions`` what
   the patch's questions ask, as JSON gives it back. It returns one answer for each question, in
   their order: anything that JSON carries (tuples become lists, keys of objects strings). An error
   that it lets through is a crash of the file, and the file has failed. Where an error is an answer
   (code that must refuse), it returns ``refusal(error)``. ``attempt`` makes an answer of the error
   of one question, so that the others are still asked: an answer that no right one is equal to.

2. In the patch: ``proof=Answers(asker="NAME", about="vLLM's tool parser",
   questions="patch_name.questions", asks=("Parser.extract*",))``, where ``asks`` names the
   definitions that right answers vouch for, and the questions with their right answers in
   ``patches/patch_name/questions.py`` (see ``proof/questions.py``). The right answers are never
   sent here.

``with candidate(module, path) as loaded:`` gives the module that is to be asked. It stands in
``sys.modules`` in place of vLLM's own while the block runs, so that whatever imports it by name
gets it too, and a class that registers itself under a name is registered anew; afterwards vLLM's
own is back. ``beside(module, path)`` gives a second copy instead, under a name of its own, for a
module whose classes are compared by identity all over vLLM (``vllm.config``).

An asker runs on Python 3.9 and newer, and must run where vLLM is no more than its ``.py`` files on
the path: no compiled code, any torch, no GPU. So it imports what it needs inside its functions, and
nothing else. Before it is called, vLLM has been told that it runs on a plain CPU, unless the device
is a GPU. Nothing may be downloaded, and what is written goes below ``tempfile.gettempdir()``. One
process asks all files of all patches: an asker leaves nothing changed behind.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from typing import Any

from ..finder import FileFinder, load_from
from ..outcome import CannotRun, describe

BESIDE = "glmpatch_candidate"


@contextlib.contextmanager
def candidate(module: str, path: str | None) -> Any:
    """The module that is to be asked, in the place of vLLM's own for as long as the block runs."""
    package, _, name = module.rpartition(".")
    own = sys.modules.pop(module, None)
    finder = FileFinder({module: path} if path else {})
    sys.meta_path.insert(0, finder)
    try:
        yield importlib.import_module(module)
    finally:
        sys.meta_path.remove(finder)
        sys.modules.pop(module, None)
        holder = sys.modules.get(package)
        if own is not None:
            sys.modules[module] = own
            setattr(holder, name, own)
        elif holder is not None and name in vars(holder):
            delattr(holder, name)


@contextlib.contextmanager
def beside(module: str, path: str | None) -> Any:
    """A copy of the module for as long as the block runs; vLLM's own, where ``path`` is None."""
    if path is None:
        yield importlib.import_module(module)
        return
    importlib.import_module(module)
    spec = load_from(BESIDE, path)
    copy = importlib.util.module_from_spec(spec)
    sys.modules[BESIDE] = copy
    try:
        spec.loader.exec_module(copy)
        yield copy
    finally:
        sys.modules.pop(BESIDE, None)


def refusal(error: BaseException) -> str:
    """The answer of code that refuses: ``refused: `` and the error's message."""
    return f"refused: {error}"


def attempt(ask: Any, question: Any) -> Any:
    """The answer of ``ask`` to a question, or the error in which it ended, as an answer."""
    try:
        return ask(question)
    except CannotRun:
        raise
    except Exception as error:
        told = describe(error)
        return {"raised": f"{told['type']}: {told['message']}", "place": told["place"]}
