"""All nodes or none: what becomes of each, whatever fails at whatever time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from glmpatch import catalogue
from glmpatch.errors import Exit, Failure
from glmpatch.fleet import node, phases
from glmpatch.fleet.phases import Answer, Fate, Lost, Machine, Order
from glmpatch.site import install
from glmpatch.site.install import Change, Installed, Proof
from glmpatch.site.target import Target, find_target
from tests.fleet import toy
from tests.fleet.stand_in import APPLY, NAMES, REVERT, SECOND, STATUS, TABLE, StandIn, apply, make
from tests.support.site import Site

ALL = ("a", "b", "c")


@pytest.fixture(autouse=True)
def _known(_table: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "table", lambda patch: TABLE)


@pytest.fixture
def sites(tmp_path: Path) -> dict[str, Site]:
    return {name: make(tmp_path / name) for name in ALL}


@pytest.fixture
def fleet(sites: dict[str, Site]) -> StandIn:
    return StandIn({name: site.root for name, site in sites.items()})


def files(site: Site) -> tuple[bytes, bytes]:
    return site.model.read_bytes(), (site.root / SECOND).read_bytes()


def repaired(site: Site) -> bool:
    """Whether both files are; never one alone."""
    both = files(site)
    assert both in ((toy.BEFORE, toy.BEFORE), (toy.AFTER, toy.AFTER)), both
    return both == (toy.AFTER, toy.AFTER)


def fail(order: Order) -> Answer:
    return {
        "changed": [],
        "failures": [{"code": 3, "message": "the disk is full", "hint": "make room"}],
    }


def lose(order: Order) -> Lost:
    return Lost("its worker died")


# -- where all goes well ------------------------------------------------------------------------


def test_every_node_prepares_before_any_is_written_and_the_end_is_looked_at(
    fleet: StandIn, sites: dict[str, Site]
) -> None:
    found = apply(fleet)
    assert fleet.asked == [("prepare", ALL), ("swap", ALL), ("status", ALL)]
    for machine in found.values():
        assert (machine.fate, machine.changed, machine.exit) == (Fate.CHANGED, NAMES, Exit.OK)
        assert [patch["state"] for patch in machine.seen["patches"]] == ["applied", "applied"]
    assert all(map(repaired, sites.values()))


def test_a_second_time_there_is_nothing_to_do(fleet: StandIn, sites: dict[str, Site]) -> None:
    apply(fleet)
    before = {name: site.tree() for name, site in sites.items()}
    for machine in apply(fleet).values():
        assert (machine.fate, machine.changed, machine.exit) == (Fate.NOTHING, (), Exit.OK)
    assert before == {name: site.tree() for name, site in sites.items()}


def test_revert_leaves_no_trace(fleet: StandIn, sites: dict[str, Site]) -> None:
    before = {name: site.tree() for name, site in sites.items()}
    apply(fleet)
    machines = fleet.machines()
    phases.revert(fleet, machines, REVERT)
    assert {machine.fate for machine in machines} == {Fate.CHANGED}
    assert {machine.changed for machine in machines} == {NAMES[::-1]}
    assert before == {name: site.tree() for name, site in sites.items()}


def test_a_dry_run_writes_nothing(fleet: StandIn, sites: dict[str, Site]) -> None:
    before = {name: site.tree() for name, site in sites.items()}
    found = apply(fleet, dry_run=True)
    assert {machine.fate for machine in found.values()} == {Fate.PLANNED}
    assert fleet.did() == ["prepare"]
    assert before == {name: site.tree() for name, site in sites.items()}


def test_nodes_that_share_a_file_system_are_done_once(sites: dict[str, Site]) -> None:
    fleet = StandIn({"a": sites["a"].root, "b": sites["a"].root, "c": sites["c"].root})
    found = apply(fleet)
    assert {name: (m.fate, m.changed, m.shared) for name, m in found.items()} == {
        "a": (Fate.CHANGED, NAMES, ()),
        "b": (Fate.NOTHING, (), NAMES),
        "c": (Fate.CHANGED, NAMES, ()),
    }
    assert {machine.exit for machine in found.values()} == {Exit.OK}
    assert [p["state"] for p in found["b"].seen["patches"]] == ["applied", "applied"]


def test_another_release_has_nothing_to_do_and_stops_nobody(
    fleet: StandIn, sites: dict[str, Site], tmp_path: Path
) -> None:
    fleet.nodes["b"] = make(tmp_path / "other", "0.9.0").root
    (fleet.nodes["b"] / toy.FILE).write_bytes(toy.AFTER)
    (fleet.nodes["b"] / SECOND).write_bytes(toy.AFTER)
    found = apply(fleet)
    assert {name: m.fate for name, m in found.items()} == {
        "a": Fate.CHANGED,
        "b": Fate.NOTHING,
        "c": Fate.CHANGED,
    }
    assert {machine.exit for machine in found.values()} == {Exit.OK}


def test_a_defect_that_no_patch_is_for_is_an_exit_code_and_stops_nobody(
    fleet: StandIn, sites: dict[str, Site], tmp_path: Path
) -> None:
    fleet.nodes["b"] = make(tmp_path / "other", "0.9.0").root
    found = apply(fleet)
    assert [m.exit for m in found.values()] == [Exit.OK, Exit.VERSION, Exit.OK]
    assert repaired(sites["a"])
    assert repaired(sites["c"])


# -- before anything is written -----------------------------------------------------------------


@pytest.mark.parametrize("fault", [fail, lose])
def test_one_that_cannot_prepare_keeps_all_from_being_written(
    fleet: StandIn, sites: dict[str, Site], fault: Callable[[Order], Answer | Lost]
) -> None:
    before = {name: site.tree() for name, site in sites.items()}
    fleet.faults["prepare", "b"] = fault
    found = apply(fleet)
    assert fleet.did() == ["prepare"]
    assert found["b"].exit is Exit.TARGET
    assert found["b"].fate is (Fate.UNKNOWN if fault is lose else Fate.NOTHING)
    assert before == {name: site.tree() for name, site in sites.items()}


def test_a_node_without_vllm_keeps_all_from_being_written(
    fleet: StandIn, sites: dict[str, Site], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    fleet.nodes["b"] = tmp_path / "empty"
    found = apply(fleet)
    assert fleet.did() == ["prepare"]
    assert found["b"].exit is Exit.TARGET
    assert "no vllm/__init__.py" in found["b"].failures[0]["message"]
    assert not repaired(sites["a"])


def test_a_drifted_file_keeps_all_from_being_written(
    fleet: StandIn, sites: dict[str, Site]
) -> None:
    (sites["b"].root / SECOND).write_bytes(b"(")
    found = apply(fleet)
    assert fleet.did() == ["prepare"]
    assert found["b"].exit is Exit.DRIFT
    # What holds for one node need not hold for all; that is said in the end.
    assert "nothing was written" not in found["b"].failures[0]["message"]
    assert not repaired(sites["a"])


def test_a_proof_that_fails_on_one_keeps_all_from_being_written(
    fleet: StandIn, sites: dict[str, Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify(python: Path, root: Path, *_: object, **__: object) -> None:
        if root == sites["b"].root:
            raise Failure(Exit.PROOF_FAILED, "the proof failed", "compare it")
        raise Failure(Exit.PROOF_NOT_RUN, "the proof could not run", "install torch")

    monkeypatch.setattr("glmpatch.proof.driver.verify", verify)
    for site in sites.values():
        (site.root.parent / "python").touch()
    monkeypatch.setattr(
        "tests.fleet.stand_in.find_target",
        lambda path: _with_python(path),
    )
    found = apply(fleet, verify=True)
    assert fleet.did() == ["prepare"]
    assert [m.exit for m in found.values()] == [
        Exit.PROOF_NOT_RUN,
        Exit.PROOF_FAILED,
        Exit.PROOF_NOT_RUN,
    ]
    assert not any(map(repaired, sites.values()))


def _with_python(path: str) -> object:
    from dataclasses import replace

    from glmpatch.site.target import find_target

    return replace(find_target(path=path), python=Path("/usr/bin/python3"))


def test_a_node_that_went_away_while_others_prepared_keeps_all_from_being_written(
    fleet: StandIn, sites: dict[str, Site]
) -> None:
    fleet.dies_after["prepare"] = "b"
    found = apply(fleet)
    assert fleet.did() == ["prepare"]
    assert (found["b"].fate, found["b"].exit) == (Fate.UNKNOWN, Exit.TARGET)
    assert not any(map(repaired, sites.values()))
    again = apply(fleet)
    assert sorted(again) == ["a", "c"]
    assert {machine.exit for machine in again.values()} == {Exit.OK}
    assert [repaired(site) for site in sites.values()] == [True, False, True]


# -- while it is written ------------------------------------------------------------------------


def test_a_failure_while_writing_takes_all_others_back_without_a_trace(
    fleet: StandIn, sites: dict[str, Site]
) -> None:
    before = {name: site.tree() for name, site in sites.items()}
    fleet.faults["swap", "b"] = fail
    found = apply(fleet)
    assert fleet.asked[2] == ("back", ("a", "c"))
    assert {name: m.fate for name, m in found.items()} == {
        "a": Fate.TAKEN_BACK,
        "b": Fate.NOTHING,
        "c": Fate.TAKEN_BACK,
    }
    assert found["b"].exit is Exit.TARGET
    assert {p["state"] for m in found.values() for p in m.seen["patches"]} == {"needed"}
    assert before == {name: site.tree() for name, site in sites.items()}


def test_a_node_that_fails_at_its_second_file_takes_back_its_first(
    fleet: StandIn, sites: dict[str, Site]
) -> None:
    def edit(order: Order) -> Answer:
        (sites["b"].root / SECOND).write_bytes(b"WIDTH = 3\n")
        return fleet.obey("b", order)

    fleet.faults["swap", "b"] = edit
    found = apply(fleet)
    assert fleet.asked[2] == ("back", ALL)
    assert found["b"].fate is Fate.TAKEN_BACK
    assert "changed by somebody else" in found["b"].failures[0]["message"]
    assert files(sites["b"]) == (toy.BEFORE, b"WIDTH = 3\n")
    assert not repaired(sites["a"])


def test_a_worker_that_dies_having_written_is_asked_again_and_taken_back(
    fleet: StandIn, sites: dict[str, Site]
) -> None:
    before = sites["b"].tree()

    def die(order: Order) -> Lost:
        fleet.obey("b", order)
        return Lost("its worker died")

    fleet.faults["swap", "b"] = die
    found = apply(fleet)
    assert {machine.fate for machine in found.values()} == {Fate.TAKEN_BACK}
    assert found["b"].exit is Exit.TARGET
    assert sites["b"].tree() == before
    assert not any(map(repaired, sites.values()))


def test_a_node_that_is_lost_while_writing_is_unknown_and_the_same_command_finishes(
    fleet: StandIn, sites: dict[str, Site]
) -> None:
    def die(order: Order) -> Lost:
        fleet.obey("b", order)
        fleet.gone.add("b")
        return Lost("the node died")

    fleet.faults["swap", "b"] = die
    found = apply(fleet)
    assert fleet.asked[2] == ("back", ("a", "c"))
    assert (found["b"].fate, found["b"].exit) == (Fate.UNKNOWN, Exit.TARGET)
    assert [found[name].fate for name in "ac"] == [Fate.TAKEN_BACK] * 2
    assert [repaired(site) for site in sites.values()] == [False, True, False]
    fleet.faults.clear()
    fleet.gone.clear()  # it is back, as it was left
    again = apply(fleet)
    assert [m.fate for m in again.values()] == [Fate.CHANGED, Fate.NOTHING, Fate.CHANGED]
    assert all(map(repaired, sites.values()))


@pytest.mark.parametrize("fault", [fail, lose])
def test_what_cannot_be_taken_back_is_named(
    fleet: StandIn, sites: dict[str, Site], fault: Callable[[Order], Answer | Lost]
) -> None:
    fleet.faults["swap", "b"] = fail
    fleet.faults["back", "a"] = fault
    found = apply(fleet)
    assert found["a"].fate is (Fate.UNKNOWN if fault is lose else Fate.LEFT)
    assert found["a"].exit is Exit.TARGET
    assert found["c"].fate is Fate.TAKEN_BACK
    assert [repaired(site) for site in sites.values()] == [True, False, False]


def sharing(sites: dict[str, Site]) -> StandIn:
    """a and b have one file system; c cannot be written to."""
    fleet = StandIn({"a": sites["a"].root, "b": sites["a"].root, "c": sites["c"].root})
    fleet.faults["swap", "c"] = fail
    return fleet


def test_what_another_node_did_and_took_back_is_not_called_done(sites: dict[str, Site]) -> None:
    found = apply(sharing(sites))
    assert [m.fate for m in found.values()] == [Fate.TAKEN_BACK, Fate.NOTHING, Fate.NOTHING]
    assert found["b"].shared == ()
    assert {p["state"] for m in found.values() for p in m.seen["patches"]} == {"needed"}


def test_what_another_node_took_back_is_not_called_left(sites: dict[str, Site]) -> None:
    """Both may have seen the files undone, and call them changed; one of them takes back."""
    fleet = sharing(sites)
    fleet.faults["swap", "b"] = lambda order: {**fleet.obey("b", order), "changed": list(NAMES)}
    found = apply(fleet)
    assert [m.fate for m in found.values()] == [Fate.TAKEN_BACK, Fate.TAKEN_BACK, Fate.NOTHING]
    assert found["b"].changed == ()
    assert found["b"].exit is Exit.OK
    assert not repaired(sites["a"])


@pytest.mark.parametrize("swap", [None, lose])
def test_what_is_left_is_what_is_there(
    fleet: StandIn, sites: dict[str, Site], swap: Callable[[Order], Answer | Lost] | None
) -> None:
    """One of two files that somebody edits meanwhile is not taken back, and no other is named."""

    def edit(order: Order) -> Answer:
        (sites["a"].root / SECOND).write_bytes(b"WIDTH = 3\n")
        return fleet.obey("a", order)

    if swap:
        fleet.faults["swap", "a"] = lambda order: (fleet.obey("a", order), swap(order))[1]
    fleet.faults["swap", "b"] = fail
    fleet.faults["back", "a"] = edit
    found = apply(fleet)
    assert (found["a"].fate, found["a"].changed) == (Fate.LEFT, ("second",))
    assert found["a"].exit is not Exit.OK
    assert sites["a"].model.read_bytes() == toy.BEFORE


def test_an_interrupt_while_writing_takes_all_back(fleet: StandIn, sites: dict[str, Site]) -> None:
    before = {name: site.tree() for name, site in sites.items()}
    fleet.interrupt_in = "swap"
    found = apply(fleet)
    assert {machine.fate for machine in found.values()} == {Fate.TAKEN_BACK}
    assert before == {name: site.tree() for name, site in sites.items()}


# -- two at the same time -----------------------------------------------------------------------


def test_what_another_apply_has_done_is_right_and_is_not_taken_back(
    fleet: StandIn, sites: dict[str, Site]
) -> None:
    other = StandIn(fleet.nodes)

    def other_first(order: Order) -> Answer:
        apply(StandIn({"a": fleet.nodes["a"]}))
        return fleet.obey("a", order)

    fleet.faults["swap", "a"] = other_first
    fleet.faults["swap", "b"] = fail
    found = apply(fleet)
    assert other.asked == []
    assert (found["a"].fate, found["a"].shared) == (Fate.NOTHING, NAMES)
    assert found["c"].fate is Fate.TAKEN_BACK
    assert [repaired(site) for site in sites.values()] == [True, False, False]
    assert [p["state"] for p in found["a"].seen["patches"]] == ["applied", "applied"]


def test_what_another_apply_has_done_at_the_last_moment_is_not_called_ours(
    fleet: StandIn, sites: dict[str, Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only who has the lock knows who was first."""
    ours = install.install

    def late(target: Target, change: Change, proof: Proof | None) -> Installed:
        ours(target, change, proof)
        return ours(target, change, proof)

    monkeypatch.setattr(install, "install", late)
    for machine in apply(fleet).values():
        assert (machine.fate, machine.changed, machine.shared) == (Fate.NOTHING, (), NAMES)
    assert all(map(repaired, sites.values()))


def test_one_that_another_apply_took_back_is_shown_as_it_is(
    fleet: StandIn, sites: dict[str, Site]
) -> None:
    """The table is of the end, and not of what this command had done."""

    def taken_back(order: Order) -> Answer:
        phases.revert(fleet, [Machine("a", "a")], REVERT)
        return fleet.obey("a", order)

    fleet.faults["status", "a"] = taken_back
    found = apply(fleet)
    assert {p["state"] for p in found["a"].seen["patches"]} == {"needed"}
    assert (found["a"].fate, found["a"].exit) == (Fate.TAKEN_BACK, Exit.TARGET)
    assert "taken back by somebody else" in found["a"].failures[0]["message"]
    assert found["c"].exit is Exit.OK


# -- status -------------------------------------------------------------------------------------


def test_status_is_the_worst_of_all_nodes(fleet: StandIn, sites: dict[str, Site]) -> None:
    apply(StandIn({"a": fleet.nodes["a"]}))
    machines = fleet.machines()
    phases.status(fleet, machines, STATUS)
    assert [m.exit for m in machines] == [Exit.OK, Exit.NEEDED, Exit.NEEDED]
    fleet.faults["status", "c"] = lose
    machines = fleet.machines()
    phases.status(fleet, machines, STATUS)
    assert [m.exit for m in machines] == [Exit.OK, Exit.NEEDED, Exit.TARGET]
    assert machines[2].fate is Fate.UNKNOWN


def test_a_fault_of_glmpatch_on_a_node_comes_through_as_data(fleet: StandIn) -> None:
    answer = fleet.obey("a", {**APPLY, "do": "dance"})
    (failure,) = answer["failures"]
    assert failure["code"] == Exit.INTERNAL
    assert "dance" in failure["message"]


def test_what_was_mended_further_is_taken_back_to_what_was_ours_before(
    fleet: StandIn, sites: dict[str, Site]
) -> None:
    """By an older glmpatch, which knew one defect less."""
    site, half = sites["a"], b"# toy\nWIDTH = 1.5  # wrong\n"
    target = find_target(path=str(site.root))
    install.install(target, Change("toy", toy.FILE, toy.BEFORE, half, ("older",)))
    further = node._packed(Change("toy", toy.FILE, half, toy.AFTER, ("widen",)), None, ())
    order = {**APPLY, "changes": [further]}
    assert fleet.obey("a", {**order, "do": "swap"}) == {"changed": ["toy"], "failures": []}
    assert site.original.read_bytes() == toy.BEFORE
    assert fleet.obey("a", {**order, "do": "back"}) == {"changed": ["toy"], "failures": []}
    assert site.model.read_bytes() == half
    assert fleet.obey("a", {**REVERT, "do": "revert"})["changed"] == ["toy"]
    assert site.model.read_bytes() == toy.BEFORE
    assert not site.receipt.exists()
