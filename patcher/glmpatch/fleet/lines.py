"""What is said of many machines: a line for each, and in words where they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glmpatch.errors import Exit, Failure, worst
from glmpatch.fleet.phases import Fate, Machine
from glmpatch.language import N_, _
from glmpatch.width import columns, padded
from glmpatch.words import COMPILED, RESTART, Words

NAMED = 3
"""Patches that are named in a line, where there is nothing to be done about them."""
STATES = {
    "needed": N_("needed"),
    "unproven": N_("unproven"),
    "drifted": N_("drifted"),
    "known defect": N_("known defect"),
    "applied": N_("applied"),
    "fixed": N_("fixed"),
    "not advised": N_("not advised"),
}
"""Of a patch on a node, in the order of a line; and as they are printed."""
URGENT = ("needed", "unproven", "drifted", "not advised", "known defect")
RIGHT = N_("right")
JOIN = N_(
    "a node that joins the cluster later is not repaired: give it the repaired wheel (glmpatch "
    "wheel), or an image that was made from it"
)


@dataclass(frozen=True)
class Said:
    """All that a command on many machines has to say."""

    title: str
    table: tuple[str, ...]
    details: Mapping[str, tuple[str, ...]]
    """Name of a node -> what ``-v`` adds."""
    warnings: tuple[tuple[str, str], ...]
    messages: tuple[str, ...]
    hints: tuple[str, ...]
    exit: Exit
    failure: Failure | None
    nodes: tuple[Mapping[str, Any], ...]
    """The same as plain data."""


def say(
    command: str,
    machines: Sequence[Machine],
    words: Words,
    *,
    where: str,
    again: str,
    interrupted: bool = False,
) -> Said:
    """What to print of a command that has run on these machines; ``again`` is how it was typed."""
    if len(machines) == 1:
        title = _("1 node of {where}", where=where)
    else:
        title = _("{count} nodes of {where}", count=len(machines), where=where)
    return Said(
        title=title,
        table=_table(command, machines),
        details={machine.name: _details(machine) for machine in machines},
        warnings=(*_mixed(machines, words), *_warnings(machines)),
        messages=_messages(command, machines),
        hints=_grouped_hints(machines) if command == "status" else (),
        exit=worst(machine.exit for machine in machines),
        failure=_failure(command, machines, again, interrupted),
        nodes=tuple(_data(machine) for machine in machines),
    )


# -- the table ----------------------------------------------------------------------------------


def _table(command: str, machines: Sequence[Machine]) -> tuple[str, ...]:
    what = _("patches") if command == "status" else _("outcome")
    plugins = _("plugins") if any(map(_plugins, machines)) else ""
    rows = [(_("node"), "vLLM", what, plugins)]
    for machine in machines:
        vllm = machine.seen.get("vllm")
        version = (vllm["version"] or _("unknown")) if vllm else "-"
        rows.append((machine.name, version, in_words(command, machine), _plugins(machine)))
    widths = [max(columns(row[column]) for row in rows) for column in range(3)]
    return tuple("  ".join([*map(padded, row[:3], widths), row[3]]).rstrip() for row in rows)


def in_words(command: str, machine: Machine) -> str:
    """What became of a node, or what its patches are, in few words."""
    if machine.fate is Fate.UNKNOWN:
        return _("unknown: {why}", why=machine.lost)
    if not machine.seen:
        return _("no vLLM that can be looked at")
    now = states(machine)
    if command == "status":
        return now
    changed = ", ".join(machine.changed)
    if machine.fate is Fate.CHANGED:
        if command == "revert":
            return _("reverted {patches}", patches=changed)
        return _("repaired {patches}", patches=changed)
    if machine.fate is Fate.PLANNED:
        planned = ", ".join(each["patch"] for each in machine.changes)
        return _("would repair {patches}", patches=planned)
    if machine.fate is Fate.TAKEN_BACK:
        return _("taken back; {now}", now=now)
    if machine.fate is Fate.LEFT:
        return _("not taken back: {patches}; {now}", patches=changed, now=now)
    if machine.shared and not machine.failures:
        shared = ", ".join(machine.shared)
        return _("done already by another node or glmpatch: {patches}", patches=shared)
    if machine.failures or machine.changes:
        return _("nothing written; {now}", now=now)
    if command == "revert":
        return _("nothing to take back; {now}", now=now)
    return _("nothing to do; {now}", now=now)


def states(machine: Machine) -> str:
    """The patches of a node by their states; what is right is counted where it is much."""
    by_state: dict[str, list[str]] = {}
    for patch in machine.seen["patches"]:
        by_state.setdefault(_state(patch), []).append(patch["id"])
    parts = []
    for state, shown in STATES.items():
        names = by_state.get(state, [])
        if names:
            those = ", ".join(names) if state in URGENT or len(names) <= NAMED else len(names)
            parts.append(_("{state}: {patches}", state=_(shown), patches=those))
    return _("; ").join(parts) or _("no patch is for this release")


def _state(patch: Mapping[str, Any]) -> str:
    if patch["known_defect"]:
        return "known defect"
    if patch["state"] == "needed" and not patch["advised"]:
        return "not advised"
    return str(patch["state"])


def _plugins(machine: Machine) -> str:
    found = machine.seen.get("plugins", ())
    return ", ".join(dict.fromkeys(f"{p['distribution']} {p['version']}" for p in found))


def _details(machine: Machine) -> tuple[str, ...]:
    if not machine.seen:
        return ()
    vllm = machine.seen["vllm"]
    return (
        _("host {host}, node {node}", host=machine.seen["host"], node=machine.id),
        _(
            "{path} ({kind}), of {python}",
            path=vllm["path"],
            kind=vllm["kind"],
            python=vllm["python"],
        ),
        *(
            f"{patch['id']}: {patch['state']}, sha256 {patch['sha256']}"
            for patch in machine.seen["patches"]
            if patch["sha256"]
        ),
    )


# -- where they differ --------------------------------------------------------------------------


def _mixed(machines: Sequence[Machine], words: Words) -> list[tuple[str, str]]:
    """Versions and states that are not the same on all nodes."""
    found = []
    versions: dict[str, list[str]] = {}
    by_patch: dict[str, dict[str, list[str]]] = {}
    for machine in machines:
        if not machine.seen:
            continue
        version = machine.seen["vllm"]["version"] or ""
        versions.setdefault(version, []).append(machine.name)
        for patch in machine.seen["patches"]:
            if patch["state"] != "not-applicable":
                states_of = by_patch.setdefault(patch["id"], {})
                states_of.setdefault(_sort_of(patch), []).append(machine.name)
    if len(versions) > 1:
        told = _("; ").join(
            _("vLLM {version} on {nodes}", version=version, nodes=_those(on))
            if version
            else _("vLLM of unknown version on {nodes}", nodes=_those(on))
            for version, on in versions.items()
        )
        hint = _("a model that spans nodes wants the same vLLM on all of them")
        found.append((_("mixed versions: {told}", told=told), hint))
    for name, states_of in by_patch.items():
        if len(states_of) > 1:
            told = _("; ").join(
                _("{state} on {nodes}", state=_(STATES.get(state, state)), nodes=_those(on))
                for state, on in states_of.items()
            )
            message = _("mixed states: {patch} is {told}", patch=name, told=told)
            found.append((message, words.next("apply --verify")))
    return found


def _sort_of(patch: Mapping[str, Any]) -> str:
    """Applied, fixed upstream, fixed by hand or proven: to whom it serves it is all one."""
    return RIGHT if patch["state"] in ("applied", "fixed") else str(patch["state"])


def _those(names: Sequence[str]) -> str:
    if len(names) <= NAMED:
        return ", ".join(names)
    return _("{count} nodes ({first}, ...)", count=len(names), first=names[0])


# -- what each said -----------------------------------------------------------------------------


def _warnings(machines: Sequence[Machine]) -> list[tuple[str, str]]:
    said: dict[tuple[str, str], list[str]] = {}
    for machine in machines:
        for text, hint in machine.warnings:
            said.setdefault((text, hint), []).append(machine.name)
    return [
        (_("{nodes}: {text}", nodes=_those(on), text=text), hint)
        for (text, hint), on in said.items()
    ]


def _grouped_hints(machines: Sequence[Machine]) -> tuple[str, ...]:
    said: dict[str, list[str]] = {}
    for machine in machines:
        for hint in machine.hints:
            said.setdefault(hint, []).append(machine.name)
    return tuple(_on_those(hint, on) for hint, on in said.items())


def _on_those(hint: str, on: Sequence[str]) -> str:
    """A command that is not for all nodes at once says where to type it."""
    # The names of options are the same in every language.
    return hint if "--ray" in hint else _("on {nodes}: {hint}", nodes=_those(on), hint=hint)


def _messages(command: str, machines: Sequence[Machine]) -> tuple[str, ...]:
    messages: dict[str, None] = {}
    if command == "status":
        messages.update(dict.fromkeys(text for m in machines for text in m.messages))
    elif any(machine.fate is Fate.CHANGED for machine in machines):
        messages[_(RESTART)] = None
        for machine in machines:
            for change in machine.changes:
                if change["patch"] in machine.changed:
                    messages.update(dict.fromkeys(map(_, change["afterwards"])))
        messages[_(COMPILED)] = None
    if command == "apply":
        messages[_(JOIN)] = None
    return tuple(messages)


def _failure(
    command: str, machines: Sequence[Machine], again: str, interrupted: bool
) -> Failure | None:
    """All that stopped the command, in one; the same thing said by many nodes is said once."""
    said: dict[tuple[str, str], list[str]] = {}
    codes = []
    for machine in machines:
        for each in machine.failures:
            said.setdefault((each["message"], each["hint"]), []).append(machine.name)
            codes.append(Exit(each["code"]))
    lines, hints = [], []
    for (message, hint), on in said.items():
        lines.append(_("{nodes}: {text}", nodes=_those(on), text=message))
        hints += [_on_those(line, on) for line in hint.split("\n") if line]
    lost = [machine for machine in machines if machine.lost]
    for machine in lost:
        why = _("unknown: {why}", why=machine.lost)
        lines.append(_("{nodes}: {text}", nodes=machine.name, text=why))
        codes.append(Exit.TARGET)
    if lost:
        hints.append(
            _(
                "when they are back, or gone for good, the same command finishes: {command}",
                command=again,
            )
        )
    if command == "apply" and lines:
        lines.append(_what_is_left(machines))
    if interrupted:
        lines.append(_("interrupted"))
        return Failure(Exit.INTERRUPTED, "\n".join(lines), "\n".join(dict.fromkeys(hints)))
    if not lines:
        return None
    return Failure(worst(codes), "\n".join(lines), "\n".join(dict.fromkeys(hints)))


def _what_is_left(machines: Iterable[Machine]) -> str:
    """What the nodes are left with after a failure."""
    by_fate: dict[Fate, list[str]] = {}
    for machine in machines:
        by_fate.setdefault(machine.fate, []).append(machine.name)
    parts = []
    for fate, text in (
        (Fate.CHANGED, N_("repaired: {nodes}")),
        (Fate.TAKEN_BACK, N_("repaired and taken back: {nodes}")),
        (Fate.LEFT, N_("could not be taken back: {nodes}")),
    ):
        if by_fate.get(fate):
            parts.append(_(text, nodes=", ".join(by_fate[fate])))
    return _("; ").join(parts) or _("nothing was written on any node that answered")


def _data(machine: Machine) -> dict[str, Any]:
    seen = machine.seen
    failures = machine.failures
    return {
        "id": machine.id,
        "name": machine.name,
        "host": seen.get("host"),
        "outcome": machine.fate.value,
        "exit_code": int(machine.exit),
        "vllm": seen.get("vllm"),
        "patches": [
            {**patch, "changed": patch["id"] in machine.changed}
            for patch in seen.get("patches", ())
        ],
        "plugins": list(seen.get("plugins", ())),
        "verify": machine.verify,
        "errors": [dict(each) for each in failures]
        + (
            [{"code": int(Exit.TARGET), "message": machine.lost, "hint": ""}]
            if machine.lost
            else []
        ),
    }
