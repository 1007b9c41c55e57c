"""A command on many machines: who is asked what, in which order, and what became of each.

Nothing here knows how an order travels: a ``Fleet`` carries it. So every failure can be tried in a
test without a cluster.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from glmpatch.errors import Exit, worst
from glmpatch.language import N_, _

Order = Mapping[str, Any]
Answer = Mapping[str, Any]

LOOK_SECONDS = 300.0
"""A node that has not answered by then is lost; a worker alone takes half a minute to start on a
busy machine."""
PROVE_SECONDS = 3600.0
RIGHT = ("applied", "fixed")
"""States of a patch that is in place."""


@dataclass(frozen=True)
class Lost:
    """No answer came, and none will: why, in words."""

    why: str


class Fleet(Protocol):
    """The machines, and a way to ask them."""

    interrupted: bool
    """Whether somebody wants an end while an order that must be finished is under way."""

    def ask(
        self, orders: Mapping[str, Order], what: str, seconds: float, finish: bool = False
    ) -> Mapping[str, Answer | Lost]:
        """Give each node its order at once, and wait for all answers.

        ``what`` says in English what is being done. With ``finish`` an interrupt is kept in mind,
        and the answers are waited for.
        """

    def alive(self) -> set[str]:
        """The ids of the nodes that are there now."""


class Fate(str, enum.Enum):
    """What a command did to a node."""

    NOTHING = "nothing"
    """It had nothing to do there, or was stopped before it did."""
    PLANNED = "planned"
    """A dry run would change it."""
    CHANGED = "changed"
    TAKEN_BACK = "taken-back"
    """Changed, and changed back since it went wrong elsewhere."""
    LEFT = "left"
    """Changed, and it could not be changed back."""
    UNKNOWN = "unknown"
    """It went away, or did not answer: what is there now, nobody has seen."""


@dataclass(eq=False)
class Machine:
    """One node, and what became of it.

    ``failures`` are plain data: code, message, hint.
    """

    id: str
    name: str
    seen: Answer = field(default_factory=dict)
    """What it last said of its vLLM."""
    fate: Fate = Fate.NOTHING
    changes: Sequence[Mapping[str, Any]] = ()
    """What was planned for it."""
    changed: tuple[str, ...] = ()
    """Patches whose files were changed there by this command, and are so now."""
    shared: tuple[str, ...] = ()
    """Patches that were planned and found done by somebody else."""
    failures: list[Mapping[str, Any]] = field(default_factory=list)
    warnings: list[Sequence[str]] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    lost: str = ""
    verify: Mapping[str, Any] | None = None
    asked: Exit = Exit.OK
    """With ``status --check``, whether something is needed."""

    @property
    def exit(self) -> Exit:
        """As on one machine; a node of which nothing is known is one on which no vLLM was found."""
        codes = [Exit(each["code"]) for each in self.failures]
        return worst([*codes, self.asked, *([Exit.TARGET] if self.lost else [])])

    def hear(self, answer: Answer | Lost) -> bool:
        """Keep what an answer says; whether there was one without a failure."""
        if isinstance(answer, Lost):
            self.lost = answer.why
            return False
        self.failures += answer["failures"]
        if "vllm" in answer:
            self.seen = answer
        self.warnings += answer.get("warnings", ())
        self.hints += answer.get("hints", ())
        self.messages += answer.get("messages", ())
        self.asked = Exit(answer.get("exit", Exit.OK))
        return not answer["failures"]


def status(fleet: Fleet, machines: Sequence[Machine], order: Order) -> None:
    """Look at every node."""
    answers = fleet.ask(_each(machines, order, "status"), N_("looking at"), LOOK_SECONDS)
    for machine in machines:
        machine.hear(answers[machine.id])
        if machine.lost:
            machine.fate = Fate.UNKNOWN


def revert(fleet: Fleet, machines: Sequence[Machine], order: Order) -> None:
    """Take the patches back on every node, each for itself: there is no reason to wait."""
    orders = _each(machines, order, "revert")
    answers = fleet.ask(orders, N_("reverting on"), LOOK_SECONDS, finish=True)
    for machine in machines:
        answer = answers[machine.id]
        machine.hear(answer)
        if isinstance(answer, Lost):
            machine.fate = Fate.UNKNOWN
        elif answer.get("changed"):
            machine.fate, machine.changed = Fate.CHANGED, tuple(answer["changed"])


def apply(fleet: Fleet, machines: Sequence[Machine], order: Order) -> bool:
    """Repair every node or none. Whether it got as far as to write anything."""
    if not _prepare(fleet, machines, order):
        return False
    if order["dry_run"]:
        for machine in machines:
            machine.fate = Fate.PLANNED if _planned(machine) else Fate.NOTHING
        return False
    # One that went away while the others were still proving: nothing has been written yet.
    alive = fleet.alive()
    gone = [machine for machine in machines if machine.id not in alive]
    if gone:
        for machine in gone:
            machine.lost = _("the node went away before anything was written")
            machine.fate = Fate.UNKNOWN
        return False
    done = _swap(fleet, machines, order)
    if not done:
        _take_back(fleet, machines, order)
    _look_again(fleet, machines, order)
    for machine in machines if done else ():
        _hold_against(machine)
    return True


def _prepare(fleet: Fleet, machines: Sequence[Machine], order: Order) -> bool:
    what, seconds = N_("planning on"), LOOK_SECONDS
    if order["verify"]:
        what, seconds = N_("proving on"), PROVE_SECONDS
    answers = fleet.ask(_each(machines, order, "prepare"), what, seconds)
    good = True
    for machine in machines:
        answer = answers[machine.id]
        good = machine.hear(answer) and good
        if isinstance(answer, Lost):
            machine.fate = Fate.UNKNOWN
            continue
        machine.changes = answer.get("changes", ())
        machine.verify = answer.get("verify")
        # What no apply mends, such as a release that no patch is for: it stops nothing.
        machine.failures += answer.get("left", ())
    return good


def _swap(fleet: Fleet, machines: Sequence[Machine], order: Order) -> bool:
    """Whether all that was planned is in place everywhere."""
    orders = {m.id: {**order, "do": "swap", "changes": m.changes} for m in machines}
    answers = fleet.ask(orders, N_("writing on"), LOOK_SECONDS, finish=True)
    good = not fleet.interrupted
    for machine in machines:
        answer = answers[machine.id]
        good = machine.hear(answer) and good
        if isinstance(answer, Lost):
            machine.fate = Fate.UNKNOWN
            continue
        machine.changed = tuple(answer.get("changed", ()))
        machine.fate = Fate.CHANGED if machine.changed else Fate.NOTHING
        if not answer["failures"]:
            planned = [each["patch"] for each in _planned(machine)]
            machine.shared = tuple(name for name in planned if name not in machine.changed)
    return good


def _take_back(fleet: Fleet, machines: Sequence[Machine], order: Order) -> None:
    """Undo on every node what this command has done, or may have done."""
    alive = fleet.alive()
    concerned = [
        machine
        for machine in machines
        if machine.id in alive and (machine.changed or (machine.lost and _planned(machine)))
    ]
    orders = {}
    for machine in concerned:
        # Of one whose worker died it is not known how far it got.
        names = {*machine.changed} or {each["patch"] for each in _planned(machine)}
        changes = [each for each in machine.changes if each["patch"] in names]
        orders[machine.id] = {**order, "do": "back", "changes": changes}
    what = N_("taking back on")
    answers = fleet.ask(orders, what, LOOK_SECONDS, finish=True) if orders else {}
    for machine in concerned:
        answer = answers[machine.id]
        if isinstance(answer, Lost):
            machine.lost, machine.fate = machine.lost or answer.why, Fate.UNKNOWN
            continue
        machine.failures += answer["failures"]
        machine.changed = tuple(n for n in machine.changed if n not in answer["changed"])
        machine.fate = Fate.LEFT if machine.changed or answer["failures"] else Fate.TAKEN_BACK


def _look_again(fleet: Fleet, machines: Sequence[Machine], order: Order) -> None:
    """The table shows what is there in the end, and not what was meant to be."""
    there = [machine for machine in machines if machine.fate is not Fate.UNKNOWN]
    orders = _each(there, {**order, "check": False}, "status")
    what = N_("looking at")
    answers = fleet.ask(orders, what, LOOK_SECONDS, finish=True) if orders else {}
    for machine in there:
        answer = answers[machine.id]
        if isinstance(answer, Lost):
            machine.lost, machine.fate = answer.why, Fate.UNKNOWN
        elif "vllm" in answer:
            before, machine.seen = _states(machine), answer
            _compare(machine, before)


def _compare(machine: Machine, before: Mapping[str, str]) -> None:
    """On a file system that nodes share, what one has done or left, another may have taken back."""
    now = _states(machine)
    machine.shared = tuple(name for name in machine.shared if now.get(name) in RIGHT)
    if machine.fate is Fate.LEFT:
        names = machine.changed or [each["patch"] for each in _planned(machine)]
        machine.changed = tuple(name for name in names if now.get(name) != before.get(name))
        machine.fate = Fate.LEFT if machine.changed else Fate.TAKEN_BACK


def _hold_against(machine: Machine) -> None:
    """What was written, and is not there in the end, was taken back by somebody else."""
    states = _states(machine)
    wanted = [each["patch"] for each in _planned(machine)]
    undone = [name for name in wanted if states.get(name) not in RIGHT]
    if undone and machine.fate is not Fate.UNKNOWN:
        machine.changed = tuple(name for name in machine.changed if name not in undone)
        machine.fate = Fate.TAKEN_BACK
        machine.failures.append(
            {
                "code": int(Exit.TARGET),
                "message": _(
                    "{patches}: taken back by somebody else right after it was repaired, such as "
                    "another glmpatch that failed elsewhere",
                    patches=", ".join(undone),
                ),
                "hint": _("run the same command again when no other glmpatch runs"),
            }
        )


def _each(machines: Iterable[Machine], order: Order, do: str) -> dict[str, Order]:
    return {machine.id: {**order, "do": do} for machine in machines}


def _states(machine: Machine) -> dict[str, str]:
    """What it last said of each patch."""
    return {patch["id"]: patch["state"] for patch in machine.seen.get("patches", ())}


def _planned(machine: Machine) -> list[Mapping[str, Any]]:
    """The changes of files; what is left is proofs that are kept."""
    return [each for each in machine.changes if each["before"] != each["after"]]
