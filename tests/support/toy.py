"""A toy patch of a toy file, with a table of its own: all of the disk side without a download."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

import libcst as cst
import pytest

from glmpatch import catalogue
from glmpatch.catalogue import Table, parse_table
from glmpatch.patch import Neighbour, Numbers, Patch, Place, Rewrite, Unrecognized
from glmpatch.proof.driver import Candidate, Result, Verification
from glmpatch.source.snippets import Snippet, replace
from tests import known

FILE = "vllm/model_executor/models/toy.py"
BESIDE = "vllm/model_executor/models/base.py"
PATCH = Patch(
    id="toy-sum",
    title="Toys subtract where they must add",
    symptoms=("silent: every sum is a difference",),
    why="The toy of 0.8.4 and 0.8.5 takes a minus for a plus.",
    how="Adds.",
    upstream="https://example.org/1",
    removal="Not needed from 0.9 on.",
    versions=">=0.8.4,<0.9",
    file=FILE,
    rewrites=(Rewrite("add-up", "add, do not subtract"), Rewrite("keep-sign", "keep the sign")),
    proof=Numbers("Toy", "ToyConfig", "4.0", ("float32",), {}),
    neighbours=(Neighbour(BESIDE),),
)
RELEASED = b"""\
\"\"\"A toy.\"\"\"
from base import Base


class Toy(Base):
    def forward(self, hidden, residual):
        total = hidden - residual
        return -total
"""
REPAIRED = RELEASED.replace(b"hidden - residual", b"hidden + residual").replace(b"-total", b"total")
NEXT = RELEASED.replace(b"class Toy", b"LAYERS = 2\n\n\nclass Toy")
"""The file of 0.8.5, which has the same defects."""
NEIGHBOUR = b"class Base:\n    pass\n"
RELEASES: Mapping[str, Mapping[str, bytes]] = {
    "0.8.4": {FILE: RELEASED, BESIDE: NEIGHBOUR},
    "0.8.5": {FILE: NEXT, BESIDE: NEIGHBOUR},
    "0.9.0": {FILE: REPAIRED + b"VERSION = 9\n", BESIDE: NEIGHBOUR},
}

DIFFERENCE = Snippet("TOTAL = HIDDEN - RESIDUAL")
SUM = Snippet("TOTAL = HIDDEN + RESIDUAL")
NEGATED = Snippet("return -TOTAL")
RETURNED = Snippet("return TOTAL")


def add_up(module: cst.Module) -> list[Place]:
    for found in DIFFERENCE.find(module):
        return [Place(found.node, True, replace(found, "TOTAL = HIDDEN + RESIDUAL"))]
    return [Place(_one(SUM, module))]


def keep_sign(module: cst.Module) -> list[Place]:
    for found in NEGATED.find(module):
        return [Place(found.node, True, replace(found, "return TOTAL"))]
    return [Place(_one(RETURNED, module))]


def _one(snippet: Snippet, module: cst.Module) -> cst.CSTNode:
    for found in snippet.find(module):
        return found.node
    raise Unrecognized("it is not there", module)


def table(patch: Patch = PATCH) -> Table:
    """The table of the toy's releases, made as that of every patch is."""
    if patch.id not in _tables:
        every = [(name, files.get) for name, files in RELEASES.items()]
        _tables[patch.id] = parse_table(known.make(patch, every))
    return _tables[patch.id]


_tables: dict[str, Table] = {}


def use(monkeypatch: pytest.MonkeyPatch, *patches: Patch) -> None:
    """glmpatch knows the toy patch, or these variants of it, and no other."""
    every = patches or (PATCH,)
    for patch in every:
        _register(patch)
    monkeypatch.setattr(catalogue, "load_patches", lambda warn=None: every)
    monkeypatch.setattr(catalogue, "table", table)


def _register(patch: Patch) -> None:
    """Its rewrites are where glmpatch looks for those of a patch."""
    rewrites = ModuleType("rewrites")
    rewrites.add_up, rewrites.keep_sign = add_up, keep_sign  # type: ignore[attr-defined]
    name = f"glmpatch.patches.{patch.name}"
    sys.modules.setdefault(name, ModuleType(name))
    sys.modules.setdefault(f"{name}.rewrites", rewrites)


_register(PATCH)


def prover(
    right: Callable[[Candidate], bool],
    full: bool = True,
    versions: Mapping[str, str] = {"torch": "2.6.0+cu124", "transformers": "4.51.3"},
) -> Callable[[Sequence[Candidate]], Verification]:
    """A proof that measures nothing: ``right`` says which candidates pass."""

    def prove(candidates: Sequence[Candidate]) -> Verification:
        results = tuple(Result(c.patch, c.name, "numbers", right(c)) for c in candidates)
        return Verification("module", "cpu", versions, 1.0, results, full=full)

    return prove
