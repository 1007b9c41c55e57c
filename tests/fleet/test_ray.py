"""The way to a cluster and back, with a stand-in for the package ray; and what the command says."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from glmpatch.command.cli import main
from glmpatch.errors import Exit, Failure
from glmpatch.fleet import lines, many, ship
from glmpatch.fleet.lines import Said
from glmpatch.fleet.phases import Fate, Lost, Machine
from glmpatch.fleet.ray import Cluster, check_address
from glmpatch.words import Words

SCHEMA = json.loads((Path(__file__).parents[1] / "command" / "schema.json").read_text())


# -- a package ray that is none -----------------------------------------------------------------


class ActorDiedError(Exception):
    """As Ray names it."""


class Actor:
    """One worker of the stand-in: what it answers is up to its node."""

    def __init__(self, ray: FakeRay, node: str) -> None:
        self.ray, self.node = ray, node
        self.obey = types.SimpleNamespace(remote=self._obey)

    def _obey(self, order: dict[str, Any]) -> Reference:
        self.ray.remote_called()
        if self.node in self.ray.deaf:
            raise OSError("Broken pipe")
        return Reference(self, order)


class Reference:
    """A promise of an answer."""

    def __init__(self, actor: Actor, order: dict[str, Any]) -> None:
        self.actor, self.order = actor, order

    def future(self) -> Any:
        return types.SimpleNamespace(result=self._result)

    def _result(self, seconds: float) -> Any:
        answer = self.actor.ray.answers.get(self.actor.node)
        return answer(self.order) if answer else {"failures": []}


class FakeRay(types.ModuleType):
    """Nodes by id; ``answers`` says what a node does with an order."""

    __version__ = "2.43.0"

    def __init__(self, *ids: str) -> None:
        super().__init__("ray")
        self.there = dict.fromkeys(ids, "10.0.0.{}")
        self.answers: dict[str, Callable[[dict[str, Any]], Any]] = {}
        self.silent: set[str] = set()
        self.deaf: set[str] = set()
        self.killed: list[str] = []
        self.options: list[dict[str, Any]] = []
        self.on_init: Callable[..., None] = lambda **_: None
        self.on_wait: Callable[[], None] = lambda: None
        self.remote_called: Callable[[], None] = lambda: None
        self.alive = set(ids)
        self.same_host = False
        self.util = types.SimpleNamespace(
            scheduling_strategies=types.SimpleNamespace(
                NodeAffinitySchedulingStrategy=lambda node, soft: (node, soft)
            )
        )

    def init(self, **how: Any) -> None:
        self.how = how
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))  # as Ray does
        self.on_init(**how)

    def shutdown(self) -> None:
        self.killed.append("all")

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "NodeID": name,
                "Alive": name in self.alive,
                "NodeManagerAddress": "10.0.0.9" if self.same_host else f"10.0.0.{number}",
                "NodeManagerPort": 40000 + number,
            }
            for number, name in enumerate(self.there)
        ]

    def get_runtime_context(self) -> Any:
        return types.SimpleNamespace(
            gcs_address="10.0.0.0:6379", get_node_id=lambda: next(iter(self.there))
        )

    def remote(self, cls: type) -> Any:
        def options(**how: Any) -> Any:
            self.options.append(how)
            node, soft = how["scheduling_strategy"]
            assert soft is False
            return types.SimpleNamespace(remote=lambda: Actor(self, node))

        return types.SimpleNamespace(options=options)

    def wait(
        self, waiting: list[Reference], timeout: float
    ) -> tuple[list[Reference], list[Reference]]:
        self.on_wait()
        done = [each for each in waiting if each.actor.node not in self.silent]
        return done[:1], done[1:]

    def get(self, reference: Reference) -> Any:
        raise OSError("Broken pipe")  # as where the raylet of the machine has died

    def kill(self, actor: Actor, no_restart: bool) -> None:
        assert no_restart
        self.killed.append(actor.node)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    made = FakeRay("a", "b")
    monkeypatch.setitem(sys.modules, "ray", made)
    monkeypatch.setitem(sys.modules, "ray.util", made.util)
    monkeypatch.setitem(
        sys.modules, "ray.util.scheduling_strategies", made.util.scheduling_strategies
    )
    monkeypatch.setattr("glmpatch.fleet.ray.LOOK_EVERY", 0.0)
    monkeypatch.setattr(ship, "pack", lambda folder: folder)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return made


def ask(cluster: Cluster, seconds: float = 60, finish: bool = False) -> Mapping[str, Any]:
    orders = {machine.id: {"do": "swap"} for machine in cluster.machines}
    return cluster.ask(orders, "writing on", seconds, finish)


def test_only_nodes_that_are_alive_are_asked_each_by_a_worker_of_its_own(ray: FakeRay) -> None:
    ray.there["c"] = ""
    with Cluster("auto") as cluster:
        assert [machine.name for machine in cluster.machines] == ["10.0.0.0", "10.0.0.1"]
        assert ask(cluster) == {"a": {"failures": []}, "b": {"failures": []}}
        assert len(ask(cluster)) == 2
    assert [how["scheduling_strategy"] for how in ray.options] == [("a", False), ("b", False)]
    assert all(
        how["num_cpus"] == how["max_restarts"] == how["max_task_retries"] == 0
        for how in ray.options
    )
    assert ray.killed == ["all"]
    assert (ray.how["address"], ray.how["log_to_driver"]) == ("auto", False)


def test_nodes_of_one_host_are_told_apart_by_their_port(ray: FakeRay) -> None:
    ray.same_host = True
    with Cluster("auto") as cluster:
        assert [m.name for m in cluster.machines] == ["10.0.0.9:40000", "10.0.0.9:40001"]


def test_a_worker_that_dies_is_lost_and_the_next_order_goes_to_another(ray: FakeRay) -> None:
    def die(order: dict[str, Any]) -> Any:
        raise ActorDiedError("The actor died.\n\nadvice\nof a page")

    ray.answers["b"] = die
    with Cluster("auto") as cluster:
        assert ask(cluster)["b"] == Lost("its worker died")
        ray.answers.clear()
        assert ask(cluster)["b"] == {"failures": []}
    assert [how["scheduling_strategy"][0] for how in ray.options] == ["a", "b", "b"]


def test_a_node_that_goes_away_is_lost_at_once(ray: FakeRay) -> None:
    ray.silent = {"b"}
    ray.on_wait = lambda: ray.alive.discard("b")
    with Cluster("auto") as cluster:
        assert ask(cluster) == {"a": {"failures": []}, "b": Lost("the node died")}


def test_one_that_cannot_be_asked_is_lost_and_the_others_are_heard(ray: FakeRay) -> None:
    """Some have their order by then: an error in the middle would leave nobody to take it back."""
    ray.deaf = {"a"}
    with Cluster("auto") as cluster:
        assert ask(cluster) == {"a": Lost("OSError: Broken pipe"), "b": {"failures": []}}
        assert ray.killed == ["a"]


def test_no_answer_is_awaited_where_ray_has_died_on_this_machine(ray: FakeRay) -> None:
    ray.silent = {"a", "b"}
    ray.on_wait = lambda: ray.alive.discard("a")
    with Cluster("auto") as cluster:
        assert set(ask(cluster).values()) == {Lost("Ray died on this machine")}
        assert sorted(ray.killed) == ["a", "b"]


def test_one_that_never_answers_is_stopped_before_it_is_given_up(ray: FakeRay) -> None:
    """It must not write when the others have been taken back."""
    ray.silent = {"b"}
    with Cluster("auto") as cluster:
        assert ask(cluster, seconds=0.01)["b"] == Lost("no answer within 0 s")
        assert ray.killed == ["b"]


def test_an_interrupt_ends_what_may_be_left_and_waits_for_what_must_be_finished(
    ray: FakeRay,
) -> None:
    def interrupt() -> None:
        ray.on_wait = lambda: None
        raise KeyboardInterrupt

    ray.on_wait = interrupt
    with Cluster("auto") as cluster:
        assert len(ask(cluster, finish=True)) == 2
        assert cluster.interrupted
        assert ray.killed == []
    ray.on_wait = interrupt
    with Cluster("auto") as cluster, pytest.raises(KeyboardInterrupt):
        ask(cluster)
    assert ray.killed[1:] == ["a", "b", "all"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["asked", "waited", "answered", "looked", "between"])
def test_an_interrupt_at_any_moment_lets_what_is_written_be_finished(
    ray: FakeRay, moment: str, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(number, signal.default_int_handler)

    def once(result: Any = None) -> Any:
        if not sent:
            sent.append(number)
            signal.raise_signal(number)
        return result

    sent: list[int] = []
    try:
        with Cluster("auto") as cluster:
            if moment == "asked":
                ray.remote_called = once
            elif moment == "waited":
                ray.on_wait = once
            elif moment == "answered":
                ray.answers["a"] = lambda order: once({"failures": []})
            elif moment == "looked":
                monkeypatch.setattr(cluster, "alive", lambda: once({"a", "b"}))
            assert ask(cluster, finish=True) == {"a": {"failures": []}, "b": {"failures": []}}
            if moment == "between":
                once()
            assert sent
            assert cluster.interrupted
            assert len(ask(cluster, finish=True)) == 2
            assert ray.killed == []
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_signals_end_the_command_as_ever(ray: FakeRay) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Cluster("auto"):
        assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (
            ConnectionError("Could not find any running Ray instance."),
            "no Ray cluster is found on this machine: Could not find",
            "--ray HOST:PORT",
        ),
        (
            RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.43.0\n"),
            "Version mismatch: The cluster was started with: Ray: 2.43.0",
            "the Ray and the Python of the cluster",
        ),
        (ValueError("what\never"), "ValueError: ever", "ray status"),
    ],
)
def test_no_way_to_a_cluster(ray: FakeRay, error: Exception, message: str, hint: str) -> None:
    def fail(**_: object) -> None:
        raise error

    ray.on_init = fail
    with pytest.raises(Failure) as failed, Cluster("auto"):
        pass
    assert failed.value.code is Exit.TARGET
    assert message in failed.value.message
    assert hint in failed.value.hint


def test_where_nobody_listens_ray_is_not_even_started(ray: FakeRay) -> None:
    with (
        pytest.raises(Failure, match=r"no Ray cluster answers at 127\.0\.0\.1:1"),
        Cluster("127.0.0.1:1"),
    ):
        pass
    assert not hasattr(ray, "how")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "Protocol error"),
        (b"", "Protocol error"),
        (None, "timed out"),
    ],
)
def test_where_somebody_else_listens_ray_is_not_even_started(
    ray: FakeRay, said: bytes | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glmpatch.fleet.ray.GREET_SECONDS", 0.2)
    address = _answering(said)
    with pytest.raises(Failure, match=f"no Ray cluster answers at {address}: {why}") as failed:
        Cluster(address).__enter__()
    assert failed.value.code is Exit.TARGET
    assert not hasattr(ray, "how")


def test_a_server_of_grpc_is_asked(ray: FakeRay) -> None:
    with Cluster(_answering(b"\0\0\x06\4\0\0\0\0\0\0\4\0\x40\0\0")):
        assert ray.how["address"].startswith("127.0.0.1:")


def _answering(said: bytes | None) -> str:
    """The address of somebody who says that, and hangs up; or holds the line and says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(100)
            if said is None:
                connection.recv(100)  # until the other side hangs up
            else:
                connection.sendall(said)

    threading.Thread(target=answer, daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("address", ["glm4-residual", "", "localhost"])
def test_a_word_that_is_no_address_is_wrong_usage(address: str) -> None:
    with pytest.raises(Failure) as failed:
        check_address(address)
    assert failed.value.code is Exit.USAGE


# -- what is shipped ----------------------------------------------------------------------------


def test_what_is_shipped_runs_where_nothing_is_installed(tmp_path: Path) -> None:
    packages = ship.pack(tmp_path) / ship.PACKAGES
    assert (packages / "glmpatch/patches/glm4_residual/known.json").is_file()
    assert not (packages / "glmpatch/patches").is_symlink()
    assert not list(packages.rglob("__pycache__"))
    code = (
        f"import sys; sys.path.insert(0, {str(packages)!r})\n"
        "from glmpatch.fleet import node\n"
        "import glmpatch, libcst, glmpatch.proof.driver, glmpatch.source.plan\n"
        "from glmpatch.catalogue import load_patches\n"
        "for patch in load_patches():\n"
        "    [patch.find(rewrite) for rewrite in patch.rewrites]\n"
        "print(glmpatch.__file__, 'click' in sys.modules)\n"
        "print(node.obey({'do': 'dance'})['failures'][0]['code'])\n"
        "(told,) = node.obey({'do': 'dance', 'language': 'zh-CN'})['failures']\n"
        "print('glmpatch 自身的错误' in told['message'])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(packages / "glmpatch/__init__.py"), "False", "70", "True"]


# -- what is said -------------------------------------------------------------------------------


def patch(name: str, state: str, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "state": state,
        "file": f"/site/{name}.py",
        "sha256": "",
        "rewrites": [],
        "advised": True,
        "proven": False,
        "wheel": None,
        "known_defect": False,
        "problem": "",
        "differs": [],
        "unasked": [],
        **more,
    }


def seen(version: str, *patches: dict[str, Any], plugins: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "host": "h",
        "vllm": {
            "version": version,
            "path": "/site/vllm",
            "python": "/bin/python",
            "kind": "wheel",
            "torch": None,
            "transformers": None,
        },
        "patches": list(patches),
        "plugins": [
            {"distribution": name, "version": "1", "group": "vllm.general_plugins", "name": "x"}
            for name in plugins
        ],
    }


def said(command: str, *machines: Machine, interrupted: bool = False) -> Said:
    words = Words("glmpatch", ["--ray"])
    return lines.say(
        command,
        machines,
        words,
        where="the Ray cluster at h:1 (Ray 2.43.0)",
        again=f"glmpatch {command} --ray",
        interrupted=interrupted,
    )


NEEDED = patch("p", "needed")
APPLIED = patch("p", "applied")


def test_a_line_a_node() -> None:
    many_right = [patch(f"r{number}", "fixed") for number in range(9)]
    guard = patch("guard", "needed", advised=False)
    found = said(
        "status",
        Machine("1", "10.0.0.1", seen("0.8.4", NEEDED, guard, *many_right, plugins=("plug",))),
        Machine("2", "10.0.0.2:40001", seen("0.8.4", APPLIED, patch("q", "drifted"))),
        Machine("3", "10.0.0.3", fate=Fate.UNKNOWN, lost="the node died"),
        Machine("4", "10.0.0.4", failures=[{"code": 3, "message": "no vLLM", "hint": ""}]),
        Machine("5", "10.0.0.5", seen("0.9.0", patch("p", "not-applicable", known_defect=True))),
        Machine("6", "10.0.0.6", seen("0.9.1", patch("p", "not-applicable"))),
    )
    assert found.title == "6 nodes of the Ray cluster at h:1 (Ray 2.43.0)"
    assert list(found.table) == [
        "node            vLLM   patches                                  plugins",
        "10.0.0.1        0.8.4  needed: p; fixed: 9; not advised: guard  plug 1",
        "10.0.0.2:40001  0.8.4  drifted: q; applied: p",
        "10.0.0.3        -      unknown: the node died",
        "10.0.0.4        -      no vLLM that can be looked at",
        "10.0.0.5        0.9.0  known defect: p",
        "10.0.0.6        0.9.1  no patch is for this release",
    ]


def test_where_nodes_differ_it_is_said_in_words() -> None:
    found = said(
        "status",
        Machine("1", "a", seen("0.8.4", APPLIED)),
        Machine("2", "b", seen("0.8.4", NEEDED)),
        Machine("3", "c", seen("0.9.0", patch("p", "not-applicable"))),
    )
    assert [text for text, _ in found.warnings] == [
        "mixed versions: vLLM 0.8.4 on a, b; vLLM 0.9.0 on c",
        "mixed states: p is right on a; needed on b",
    ]
    assert found.warnings[1][1] == "glmpatch apply --verify --ray"
    alike = [
        Machine(n, n, seen("0.8.4", patch("p", s))) for n, s in [("a", "applied"), ("b", "fixed")]
    ]
    assert said("status", *alike).warnings == ()


@pytest.mark.parametrize(
    ("command", "machine", "words"),
    [
        (
            "apply",
            Machine("", "", seen("0.8.4", APPLIED), Fate.CHANGED, changed=("p",)),
            "repaired p",
        ),
        (
            "revert",
            Machine("", "", seen("0.8.4", NEEDED), Fate.CHANGED, changed=("p",)),
            "reverted p",
        ),
        ("apply", Machine("", "", seen("0.8.4", APPLIED)), "nothing to do; applied: p"),
        ("revert", Machine("", "", seen("0.8.4", NEEDED)), "nothing to take back; needed: p"),
        (
            "apply",
            Machine("", "", seen("0.8.4", NEEDED), changes=[{"patch": "p"}]),
            "nothing written; needed: p",
        ),
        (
            "apply",
            Machine("", "", seen("0.8.4", NEEDED), Fate.PLANNED, changes=[{"patch": "p"}]),
            "would repair p",
        ),
        (
            "apply",
            Machine("", "", seen("0.8.4", APPLIED), changes=[{"patch": "p"}], shared=("p",)),
            "done already by another node or glmpatch: p",
        ),
        ("apply", Machine("", "", seen("0.8.4", NEEDED), Fate.TAKEN_BACK), "taken back; needed: p"),
        (
            "apply",
            Machine("", "", seen("0.8.4", APPLIED), Fate.LEFT, changed=("p",)),
            "not taken back: p; applied: p",
        ),
        (
            "apply",
            Machine("", "", seen("0.8.4", APPLIED), Fate.UNKNOWN, lost="gone"),
            "unknown: gone",
        ),
    ],
)
def test_what_became_of_a_node_in_few_words(command: str, machine: Machine, words: str) -> None:
    assert lines.in_words(command, machine) == words


def test_one_failure_says_all_each_thing_once_and_where() -> None:
    full = {"code": 3, "message": "the disk is full", "hint": "make room"}
    drift = {"code": 5, "message": "p: drifted", "hint": "glmpatch apply p --verify --ray"}
    failure = said(
        "apply",
        Machine("1", "a", seen("0.8.4", NEEDED), failures=[full]),
        Machine("2", "b", seen("0.8.4", NEEDED), failures=[full, drift]),
        Machine("3", "c", fate=Fate.UNKNOWN, lost="the node died"),
        Machine("4", "d", seen("0.8.4", NEEDED), Fate.TAKEN_BACK),
    ).failure
    assert failure is not None
    assert failure.code is Exit.TARGET
    assert failure.message.split("\n") == [
        "a, b: the disk is full",
        "b: p: drifted",
        "c: unknown: the node died",
        "repaired and taken back: d",
    ]
    assert failure.hint.split("\n") == [
        "on a, b: make room",
        "glmpatch apply p --verify --ray",
        "when they are back, or gone for good, the same command finishes: glmpatch apply --ray",
    ]


def test_an_interrupt_is_130() -> None:
    machine = Machine("1", "a", seen("0.8.4", NEEDED), Fate.TAKEN_BACK)
    failure = said("apply", machine, interrupted=True).failure
    assert failure is not None
    assert failure.code is Exit.INTERRUPTED


def test_nodes_that_join_later_are_not_forgotten() -> None:
    machine = Machine("1", "a", seen("0.8.4", APPLIED))
    assert lines.JOIN in said("apply", machine).messages
    assert lines.JOIN not in said("revert", machine).messages


# -- the command --------------------------------------------------------------------------------


def here(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with (
            pytest.MonkeyPatch.context() as context,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            context.setattr(sys, "argv", ["glmpatch", *arguments])
            main()
    except SystemExit as end:
        return int(end.code or 0), out.getvalue(), err.getvalue()
    finally:
        signal.signal(signal.SIGTERM, handler)
    raise AssertionError("it did not end")


@pytest.fixture
def answers(ray: FakeRay) -> FakeRay:
    """Two nodes, of which one is needed."""
    told = {"failures": [], "warnings": [], "messages": [], "hints": ["glmpatch apply --ray"]}
    ray.answers["a"] = lambda order: {**told, **seen("0.8.4", NEEDED), "exit": 1}
    ray.answers["b"] = lambda order: {**told, **seen("0.8.4", APPLIED), "exit": 0}
    return ray


def test_the_table_goes_to_stdout_and_all_else_to_stderr(answers: FakeRay) -> None:
    code, out, err = here("status", "--check", "--ray")
    assert code == 1
    assert out.splitlines()[2:] == ["10.0.0.0  0.8.4  needed: p", "10.0.0.1  0.8.4  applied: p"]
    assert "looking at 2 nodes" in err
    assert "hint: glmpatch apply --ray" in err
    assert here("status", "--check", "--ray", "-q") == (1, "", "")


def test_json_has_a_part_for_each_node(answers: FakeRay) -> None:
    answers.on_wait = lambda: print("(raylet) A worker died")  # as Ray does
    code, out, err = here("status", "--check", "--json", "--ray")
    assert (code, err) == (1, "")
    found = json.loads(out)
    jsonschema.validate(found, SCHEMA)
    assert [(n["name"], n["exit_code"], n["outcome"]) for n in found["nodes"]] == [
        ("10.0.0.0", 1, "nothing"),
        ("10.0.0.1", 0, "nothing"),
    ]
    assert (found["vllm"], found["patches"]) == (None, [])


def test_json_of_a_failure(answers: FakeRay) -> None:
    def die(order: dict[str, Any]) -> Any:
        raise ActorDiedError("it died")

    answers.answers["b"] = die
    code, out, _ = here("status", "--json", "--ray")
    found = json.loads(out)
    jsonschema.validate(found, SCHEMA)
    assert code == found["error"]["code"] == 3
    assert found["nodes"][1]["outcome"] == "unknown"
    assert found["nodes"][1]["errors"][0]["message"] == "its worker died"


@pytest.mark.parametrize("command", ["status", "apply", "revert"])
def test_without_ray_the_error_says_how_to_get_it(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = here(command, "--ray")
    assert code == 3
    assert "--ray needs the package ray" in err
    assert "pip install" in err
    assert "ray>=2.43" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ray", "--python", "/opt/venv"], "the interpreter that runs Ray's workers"),
        (["--ray", "--path", "/opt/site"], "the interpreter that runs Ray's workers"),
        (["--ray", "glm4-residual"], "no address of a Ray cluster"),
        (["no-such-patch", "--ray"], "there is no patch named"),
    ],
)
def test_wrong_usage(ray: FakeRay, arguments: list[str], words: str) -> None:
    code, _, err = here("apply", *arguments)
    assert code == 2
    assert words in err
    assert not hasattr(ray, "how")


def test_ray_is_imported_in_one_place() -> None:
    top = Path(many.__file__).parents[1]
    importing = [
        str(path.relative_to(top))
        for path in top.rglob("*.py")
        if any(
            line.strip().startswith(("import ray", "from ray"))
            for line in path.read_text(encoding="utf-8").splitlines()
        )
    ]
    assert importing == ["fleet/ray.py"]
