"""A real Ray cluster on this machine, each of its nodes with a vLLM of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from tests.support import environment, fake, releases
from tests.support.cluster import Cluster, Node, held
from tests.support.command import read_only
from tests.support.environment import MODEL_FILE, Environment
from tests.support.watched import Done

pytestmark = pytest.mark.real
SCHEMA = json.loads((Path(__file__).parents[2] / "command" / "schema.json").read_text())
ID = "glm4-residual"
BOTH = "glm4-residual, glm-rope"


def light(root: Path) -> Environment:
    """An environment with the files of vLLM 0.8.4 that glmpatch looks at."""
    return fake.environment(root, fake.source(MODEL_FILE), others=fake.released())


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Five nodes, the last of which has the file system of the first."""
    folder = tmp_path_factory.mktemp("fleet")
    environments = [light(folder / name) for name in ("a", "b", "c", "d")]
    with Cluster("2.43.0") as made:
        made.add(*environments, environments[0])
        yield made


@pytest.fixture
def nodes(fleet: Cluster) -> Iterator[list[Node]]:
    """All five are there, as they were before; a test may kill any but the first."""
    fleet.restore()
    before = {node.env.root: node.env.tree() for node in fleet.nodes}
    yield fleet.nodes
    fleet.stop_commands()
    for node in fleet.nodes:
        if node.env.tree() != before[node.env.root]:
            run = environment.glmpatch("revert", "--python", str(node.env.python))
            assert run.returncode == 0, run.stderr
        assert node.env.tree() == before[node.env.root]


def planned_by(nodes: int) -> str:
    """What the command says when so many of the five have planned."""
    return f"planning on 5 nodes ({nodes} done"


def written_by(nodes: int) -> str:
    return f"writing on 5 nodes ({nodes} done"


def checked(done: Done) -> Done:
    jsonschema.validate(done.data, SCHEMA)
    return done


def states(done: Done, patch: str = ID) -> list[str]:
    return [
        each["state"]
        for node in done.data["nodes"]
        for each in node["patches"]
        if each["id"] == patch
    ]


def is_repaired(node: Node) -> bool:
    return node.env.model.read_bytes() != fake.source(MODEL_FILE)


# -- where all is well --------------------------------------------------------------------------


def test_all_is_well(fleet: Cluster, nodes: list[Node]) -> None:
    before = [node.env.tree() for node in nodes]
    done = fleet.run("status", "--check")
    assert done.code == 1, done.err
    head, columns, *table = done.out.splitlines()
    assert head.startswith("5 nodes of the Ray cluster at ")
    assert columns.split() == ["node", "vLLM", "patches"]
    assert len(table) == 5
    assert all("0.8.4  needed: glm4-residual, glm-rope" in line for line in table)
    assert f"apply --verify --ray {fleet.address}" in done.err

    done = fleet.run("apply")
    assert done.code == 0, done.err
    outcomes = done.out.splitlines()[2:]
    # Two nodes have one file system: each file there is repaired by one of them.
    done_by = [line for line in outcomes if "repaired " in line]
    assert [sum(name in line for line in done_by) for name in BOTH.split(", ")] == [4, 4], done.out
    assert len(outcomes) == 5
    assert all("done already by another node" in line for line in {*outcomes} - {*done_by})
    assert "joins the cluster later" in done.err
    assert all(map(is_repaired, nodes))

    done = checked(fleet.run("apply", "--json"))
    assert (done.code, set(states(done))) == (0, {"applied"})
    assert {n["outcome"] for n in done.data["nodes"]} == {"nothing"}
    quiet = fleet.run("status", "--check", "-q")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")

    done = checked(fleet.run("revert", "--json"))
    assert (done.code, set(states(done))) == (0, {"needed"})
    assert [node.env.tree() for node in nodes] == before


# -- one that cannot ----------------------------------------------------------------------------


def nothing_was_written(done: Done, nodes: list[Node], *, code: int) -> None:
    assert done.code == code, done.err
    assert "nothing was written on any node" in done.err
    assert not any(map(is_repaired, nodes))


def test_one_node_without_vllm(fleet: Cluster, nodes: list[Node], tmp_path: Path) -> None:
    away = nodes[1].env.site / "vllm"
    away.rename(tmp_path / "vllm")
    try:
        done = fleet.run("apply")
    finally:
        (tmp_path / "vllm").rename(away)
    nothing_was_written(done, nodes, code=3)
    assert "no vLLM in the environment of" in done.err
    assert sum("nothing written; needed" in line for line in done.out.splitlines()) == 4


def test_one_node_of_another_release(fleet: Cluster, nodes: list[Node], tmp_path: Path) -> None:
    """0.8.5 has been mended upstream: nothing to do there, and no reason to stop."""
    env = nodes[1].env
    names = ("vllm", "vllm-0.8.4.dist-info")
    for name in names:
        (env.site / name).rename(tmp_path / name)
    try:
        info = fake.vllm(env.site, releases.read("0.8.5", MODEL_FILE), "0.8.5")
        done = checked(fleet.run("apply", ID, "--json"))
    finally:
        shutil.rmtree(env.site / "vllm")
        shutil.rmtree(info)
        for name in names:
            (tmp_path / name).rename(env.site / name)
    assert done.code == 0, done.err
    assert sorted(states(done)) == ["applied"] * 4 + ["not-applicable"]
    assert any("mixed versions: " in warning for warning in done.data["warnings"])
    assert [is_repaired(node) for node in nodes] == [True, False, True, True, True]


def test_one_node_that_is_read_only(fleet: Cluster, nodes: list[Node]) -> None:
    with read_only(nodes[2].env.site):
        done = fleet.run("apply")
    nothing_was_written(done, nodes, code=3)
    assert "read-only" in done.err


# -- killed -------------------------------------------------------------------------------------


def test_a_worker_killed_while_it_plans(fleet: Cluster, nodes: list[Node]) -> None:
    with held(nodes[1].env) as worker:
        command = fleet.start("apply")
        os.kill(worker(), signal.SIGKILL)
        done = command.end()
    nothing_was_written(done, nodes, code=3)
    assert done.err.count("unknown: ") == 1
    assert "unknown: its worker " in done.err


def test_a_worker_killed_while_it_writes(fleet: Cluster, nodes: list[Node]) -> None:
    """The node is there still: it is asked again, and all are as before."""
    with held(nodes[2].env):
        command = fleet.start("apply")
        command.until(planned_by(4))
        nodes[1].stop_workers()
    command.until(written_by(4))
    nodes[1].kill_workers()
    done = command.end()
    assert done.code == 3
    assert "unknown: its worker " in done.err
    assert "unknown: " not in done.out
    assert not any(map(is_repaired, nodes))


# -- two at the same time -----------------------------------------------------------------------


def test_two_at_the_same_time(fleet: Cluster, nodes: list[Node]) -> None:
    both = [fleet.start("apply", "--json") for _ in range(2)]
    for done in [command.end() for command in both]:
        assert checked(done).code == 0, done.out
        assert set(states(done)) == {"applied"}
        assert {node["outcome"] for node in done.data["nodes"]} <= {"changed", "nothing"}
    assert all(map(is_repaired, nodes))


# -- nodes that go ------------------------------------------------------------------------------


def the_same_command_finishes(fleet: Cluster, lost: Node) -> None:
    fleet.settle()
    again = checked(fleet.run("apply", "--json"))
    assert again.code == 0, again.out
    assert states(again) == ["applied"] * 4
    assert [is_repaired(node) for node in fleet.nodes] == [node is not lost for node in fleet.nodes]


def test_a_raylet_killed_between_the_phases(fleet: Cluster, nodes: list[Node]) -> None:
    lost = nodes[3]
    with held(nodes[1].env):
        command = fleet.start("apply")
        command.until(planned_by(4))
        lost.kill()
    done = command.end()
    assert done.code == 3
    assert done.err.count("unknown: ") == 1, done.err
    assert "the same command finishes: " in done.err
    assert not any(map(is_repaired, nodes))
    the_same_command_finishes(fleet, lost)


def test_a_raylet_killed_while_it_writes(fleet: Cluster, nodes: list[Node]) -> None:
    lost = nodes[2]
    with held(nodes[1].env):
        command = fleet.start("apply")
        command.until(planned_by(4))
        lost.stop_workers()
    command.until(written_by(4))
    lost.kill()
    done = command.end()
    assert done.code == 3
    assert done.err.count("unknown: ") == 1, done.err
    assert "repaired and taken back: " in done.err
    assert not any(map(is_repaired, nodes))
    the_same_command_finishes(fleet, lost)


def test_a_raylet_killed_on_the_machine_of_the_command(fleet: Cluster, nodes: list[Node]) -> None:
    """Ray then ends the work of the command on all nodes, at a time that is not in our hands.

    Whatever has been seen by then, no node is left repaired but one that is said to be unknown.
    """
    lost = nodes[3]
    with held(nodes[1].env):
        command = fleet.start("apply", on=lost)
        command.until(planned_by(4))
        lost.stop_workers()
    command.until(written_by(4))
    lost.kill()
    done = command.end()
    assert done.code == 3, done.err
    told = {line.split()[0]: line for line in done.out.splitlines()[2:]}
    assert set(told) == {node.address for node in nodes}
    assert "unknown: " in told[lost.address]
    for node in filter(is_repaired, nodes):
        assert "unknown: " in told[node.address], done.out
    the_same_command_finishes(fleet, lost)


# -- the newest Ray, and the real vLLM ----------------------------------------------------------


def test_the_newest_ray_and_a_proof_on_a_node(released: Path, tmp_path: Path) -> None:
    """The head has the real vLLM 0.8.4, which brings its Ray along; a second node comes later."""
    real = environment.copy(released, tmp_path / "real")
    (info,) = real.site.glob("ray-*.dist-info")
    if real.site.parent.name != fake.PYTHON:
        pytest.skip("Ray wants one Python everywhere, and the tests run on another one")
    with Cluster(info.name.removesuffix(".dist-info").partition("-")[2]) as made:
        made.add(real)
        before = real.tree()
        done = checked(made.run("apply", ID, "--verify", "--json", seconds=600))
        assert done.code == 0, done.out
        (node,) = done.data["nodes"]
        assert node["outcome"] == "changed"
        assert (node["verify"]["outcome"], node["verify"]["device"]) == ("passed", "CPU")
        assert json.loads(real.receipt.read_bytes())["full"] is True

        (late,) = made.add(light(tmp_path / "late"))
        done = made.run("status", ID, "--check")
        assert done.code == 1
        # Which of the nodes Ray names first is its own affair.
        (mixed,) = (line for line in done.err.splitlines() if "mixed states: glm4-residual" in line)
        assert "right on " in mixed
        assert "needed on " in mixed
        done = made.run("apply", ID)
        assert done.code == 0, done.err
        assert is_repaired(late)
        done = made.run("revert", ID)
        assert done.code == 0, done.err
        assert real.tree() == before
        assert not is_repaired(late)
