"""Nodes without a cluster: each a folder, asked in this process, with every fault on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from glmpatch.catalogue import Row, Table
from glmpatch.fleet import node, phases
from glmpatch.fleet.phases import Answer, Lost, Machine, Order
from glmpatch.language import N_
from glmpatch.site.target import Target, find_target
from tests.fleet import toy
from tests.support import site
from tests.support.site import Site

SECOND = "vllm/second.py"
LATER = N_("Say it once more.")
PATCHES = (
    toy.PATCH,
    replace(toy.PATCH, id="second", file=SECOND, neighbours=(), afterwards=(LATER,)),
)
NAMES = tuple(patch.id for patch in PATCHES)
TABLE = Table(
    (
        toy.ROW,
        Row(
            SECOND,
            toy.ROW.sha256,
            toy.ROW.releases,
            toy.ROW.state,
            toy.ROW.findings,
            toy.ROW.mended,
            toy.ROW.form,
            toy.ROW.parts,
        ),
    ),
    toy.TABLE.neighbours,
)
ORDER: Order = {"names": [], "start": "glmpatch", "on": ["--ray"], "language": "en"}
STATUS: Order = {**ORDER, "check": True}
APPLY: Order = {
    **ORDER,
    "verify": False,
    "via": "auto",
    "dry_run": False,
    "any_version": False,
    "allow_editable": False,
}
REVERT: Order = {**ORDER, "force": False, "allow_editable": False}

Fault = Callable[[Order], "Answer | Lost"]


def make(root: Path, version: str = "0.8.4") -> Site:
    """A vLLM that needs both patches."""
    others = {toy.BESIDE: toy.BESIDE_IT, SECOND: toy.BEFORE}
    return site.make(root, toy.BEFORE, version, others, toy.FILE, "toy")


@dataclass
class StandIn:
    """Nodes by name: the folder of each one's vLLM."""

    nodes: dict[str, Path]
    faults: dict[tuple[str, str], Fault] = field(default_factory=dict)
    """(order, node) -> what happens there instead."""
    gone: set[str] = field(default_factory=set)
    dies_after: dict[str, str] = field(default_factory=dict)
    """Order -> the node that goes away once all have answered it."""
    interrupt_in: str = ""
    interrupted: bool = False
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def machines(self) -> list[Machine]:
        return [Machine(name, name) for name in self.nodes if name not in self.gone]

    def alive(self) -> set[str]:
        return set(self.nodes) - self.gone

    def ask(
        self, orders: Mapping[str, Order], what: str, seconds: float, finish: bool = False
    ) -> Mapping[str, Answer | Lost]:
        (do,) = {order["do"] for order in orders.values()}
        self.asked.append((do, tuple(orders)))
        if do == self.interrupt_in:
            assert finish, "an interrupt would end this order half done"
            self.interrupted = True
        answers = {name: self._one(name, order) for name, order in orders.items()}
        self.gone |= {self.dies_after[do]} if do in self.dies_after else set()
        return answers

    def _one(self, name: str, order: Order) -> Answer | Lost:
        if name in self.gone:
            return Lost("the node died")
        fault = self.faults.get((order["do"], name))
        return fault(order) if fault else self.obey(name, order)

    def obey(self, name: str, order: Order) -> Answer:
        """What the node would do, with all that travels as plain as it must be."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(node, "find_target", lambda python: self._target(name))
            patch.setattr(node, "select_patches", lambda names, warn: PATCHES)
            answer: dict[str, Any] = _plain(node.obey(_plain(order)))
        return answer

    def _target(self, name: str) -> Target:
        return find_target(path=str(self.nodes[name]))

    def did(self) -> list[str]:
        """The orders that were given, one after the other."""
        return [do for do, _ in self.asked]


def _plain(value: Any) -> Any:
    """A worker that cannot import glmpatch yet must be able to read it."""
    assert type(value) in (dict, list, str, int, float, bool, type(None)), value
    for each in value.items() if isinstance(value, dict) else ():
        _plain(list(each))
    for each in value if isinstance(value, list) else ():
        _plain(each)
    return value


def apply(fleet: StandIn, **options: Any) -> dict[str, Machine]:
    """``apply`` on all of them; what became of each."""
    machines = fleet.machines()
    phases.apply(fleet, machines, {**APPLY, **options})
    return {machine.name: machine for machine in machines}
