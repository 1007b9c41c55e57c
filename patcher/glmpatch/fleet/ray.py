"""The nodes of a Ray cluster: found, asked, and told apart from those that went away.

``ray`` is imported here and nowhere else. On each node one actor answers, pinned to it: what a
node's worker costs is its start (half a minute on a busy machine), and one start serves all phases.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from glmpatch.errors import Exit, Failure
from glmpatch.fleet import ship
from glmpatch.fleet.phases import Answer, Lost, Machine, Order
from glmpatch.language import N_, _

NEEDS = "ray>=2.43,!=2.44.*"
"""As vLLM 0.8.4 says (its requirements/cuda.txt)."""
CONNECT_SECONDS = 10.0
GREET_SECONDS = 60.0
"""A head that is busy answers late."""
LOOK_EVERY = 2.0
"""Seconds between two looks at which nodes are there."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Whoever sends one of these wants an end."""
HERE_SECONDS = 60.0
"""For an answer that has come; a large one is fetched from the node that has it."""


def load() -> Any:
    """The package ``ray``.

    Raises:
        Failure: it is not there.
    """
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        from glmpatch.site import surroundings

        raise Failure(
            Exit.TARGET,
            _(
                "--ray needs the package ray, and this glmpatch has none it can import: {error}",
                error=error,
            ),
            _(
                "run the glmpatch of the environment that has vLLM and Ray, or {command}",
                command=surroundings.install_here(NEEDS),
            ),
        ) from error
    return ray


def check_address(address: str) -> None:
    """An optional value takes the word behind it, which may have been meant as a patch.

    Raises:
        Failure: this is no address.
    """
    if address != "auto" and ":" not in address:
        raise Failure(
            Exit.USAGE,
            _(
                "--ray {address}: no address of a Ray cluster, such as 10.0.0.1:6379",
                address=address,
            ),
            _("if it is the name of a patch, write --ray behind it"),
        )


class Cluster:
    """A connection to a cluster, for as long as the ``with`` lasts."""

    def __init__(self, address: str, progress: Callable[[str], None] | None = None) -> None:
        self.address = address
        self.progress = progress or (lambda text: None)
        self.interrupted = False
        self._heeding = False
        self._actors: dict[str, Any] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Cluster:
        check_address(self.address)
        self.ray = load()
        with self._stack:
            folder = self._stack.enter_context(
                tempfile.TemporaryDirectory(prefix="glmpatch-", ignore_cleanup_errors=True)
            )
            # Ray tells of workers that died by print(), whatever it is asked to log; stdout is for
            # what the command was asked.
            nowhere = self._stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            self._stack.enter_context(contextlib.redirect_stdout(nowhere))
            self.progress(_("connecting to the Ray cluster at {address}", address=self.address))
            self._connect(ship.pack(Path(folder)))
            self._stack.callback(self.ray.shutdown)
            self._stack = self._stack.pop_all()
        self._actor = self.ray.remote(_worker_class())
        self.machines = self._machines()
        self.version: str = self.ray.__version__
        context = self.ray.get_runtime_context()
        self.at: str = context.gcs_address
        self._here: str = context.get_node_id()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress("")
        self._stack.close()

    # -- the nodes --------------------------------------------------------------------------

    def _connect(self, shipped: Path) -> None:
        self._reach()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.ray.init(
                address=self.address,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"py_modules": [str(shipped)]},
            )
        except Exception as error:
            raise self._unconnected(error) from error
        finally:
            # Ray would end with 15 where the command ends with 130.
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _reach(self) -> None:
        """Where nobody listens, Ray itself would try for minutes, or end the whole process; and
        without end where somebody else does."""
        address = os.environ.get("RAY_ADDRESS", "") if self.address == "auto" else self.address
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        if not colon or not port.isdigit():
            return
        try:
            where = (host.strip("[]"), int(port))
            with socket.create_connection(where, CONNECT_SECONDS) as connection:
                if os.environ.get("RAY_USE_TLS", "0") in ("", "0"):
                    _greet(connection)
        except OSError as error:
            raise Failure(
                Exit.TARGET,
                _(
                    "no Ray cluster answers at {address}: {error}",
                    address=address,
                    error=error.strerror or error,
                ),
                _("ray status, on a node of the cluster, tells its address"),
            ) from error

    def _unconnected(self, error: Exception) -> Failure:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        if "ersion mismatch" in str(error):
            return Failure(
                Exit.TARGET,
                " ".join(lines),
                _(
                    "run the glmpatch of an environment with the Ray and the Python of the "
                    "cluster, such as the one that has vLLM, on any of its nodes"
                ),
            )
        if isinstance(error, ConnectionError):
            why = lines[0] if lines else type(error).__name__
            if self.address == "auto":
                message = _("no Ray cluster is found on this machine: {error}", error=why)
            else:
                message = _(
                    "no Ray cluster is found at {address}: {error}",
                    address=self.address,
                    error=why,
                )
            return Failure(
                Exit.TARGET,
                message,
                _("name its head: --ray HOST:PORT, as ray status or the log of ray start tells it"),
            )
        return Failure(
            Exit.TARGET,
            _(
                "cannot connect to the Ray cluster at {address}: {kind}: {error}",
                address=self.address,
                kind=type(error).__name__,
                error=lines[-1] if lines else "",
            ),
            _("ray status, on a node of the cluster, tells its address and whether it is well"),
        )

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _machines(self) -> tuple[Machine, ...]:
        nodes = self._nodes()
        hosts = Counter(node["NodeManagerAddress"] for node in nodes)
        machines = []
        for node in nodes:
            host, port = node["NodeManagerAddress"], node["NodeManagerPort"]
            # More than one on a host: the port tells them apart.
            machines.append(Machine(node["NodeID"], f"{host}:{port}" if hosts[host] > 1 else host))
        return tuple(sorted(machines, key=lambda machine: machine.name))

    def alive(self) -> set[str]:
        """The ids of the nodes that are there now."""
        return {node["NodeID"] for node in self._nodes()}

    # -- asking -----------------------------------------------------------------------------

    def ask(
        self, orders: Mapping[str, Order], what: str, seconds: float, finish: bool = False
    ) -> Mapping[str, Answer | Lost]:
        """Give each node its order; see ``phases.Fleet``."""
        if finish:
            self._heed_later()
        answers: dict[str, Answer | Lost] = {}
        waiting: dict[Any, str] = {}
        begun = looked = time.monotonic()
        try:
            for node, order in orders.items():
                try:
                    waiting[self._worker(node).obey.remote(dict(order))] = node
                except Exception as error:
                    # One that cannot even be asked is lost; the others have their order by now.
                    self._drop(node)
                    answers[node] = Lost(_reason(error))
            while waiting:
                try:
                    done, _left = self.ray.wait(list(waiting), timeout=0.25)
                    for reference in done:
                        node = waiting.pop(reference)
                        answers[node] = self._answer(node, reference)
                except KeyboardInterrupt:
                    if not finish or self.interrupted:
                        raise
                    self.interrupted = True
                now = time.monotonic()
                if now - looked > LOOK_EVERY:
                    looked = now
                    alive = self.alive()
                    if self._here not in alive:
                        # Ray ends all work of a command whose machine it has lost.
                        self._give_up(waiting, answers, orders, _("Ray died on this machine"))
                    gone = set(waiting.values()) - alive
                    self._give_up(waiting, answers, gone, _("the node died"))
                if now - begun > seconds:
                    late = _("no answer within {seconds:.0f} s", seconds=seconds)
                    self._give_up(waiting, answers, orders, late)
                self._show(what, len(answers), len(orders), now - begun)
        finally:
            self._give_up(waiting, answers, orders, _("stopped"))
        return answers

    def _heed_later(self) -> None:
        """From the first order that must be finished to the end, an interrupt is kept in mind
        whatever it hits: what is written somewhere is finished or taken back. A second one ends.
        """
        if self._heeding:
            return
        self._heeding = True

        def heed(number: int, frame: object) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True

        for number in SIGNALS:
            before = signal.getsignal(number)
            if before not in (signal.SIG_IGN, None):  # such as under nohup
                signal.signal(number, heed)
                self._stack.callback(signal.signal, number, before)

    def _show(self, what: str, answered: int, every: int, seconds: float) -> None:
        if every == 1:
            text = _(
                "{what} 1 node ({done} done, {seconds:.0f} s)",
                what=_(what),
                done=answered,
                seconds=seconds,
            )
        else:
            text = _(
                "{what} {count} nodes ({done} done, {seconds:.0f} s)",
                what=_(what),
                count=every,
                done=answered,
                seconds=seconds,
            )
        self.progress(text)

    def _answer(self, node: str, reference: Any) -> Answer | Lost:
        try:
            # ray.get asks the raylet of this machine even where the answer lies here already: if
            # that one has died, the answers of all nodes would be lost with it.
            answer: Answer = reference.future().result(HERE_SECONDS)
            return answer
        except Exception as error:
            self._drop(node)
            return Lost(_reason(error))

    def _give_up(
        self,
        waiting: dict[Any, str],
        answers: dict[str, Answer | Lost],
        nodes: Collection[str],
        why: str,
    ) -> None:
        """Whoever has not answered must not go on to write when nobody expects it any more."""
        for reference, node in list(waiting.items()):
            if node in nodes:
                del waiting[reference]
                self._drop(node)
                answers[node] = Lost(why)

    def _drop(self, node: str) -> None:
        with contextlib.suppress(Exception):
            self.ray.kill(self._actors.pop(node), no_restart=True)

    def _worker(self, node: str) -> Any:
        """The actor on a node; a new one where the last has died."""
        if node not in self._actors:
            pinned = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
                node, soft=False
            )
            self._actors[node] = self._actor.options(
                num_cpus=0, max_restarts=0, max_task_retries=0, scheduling_strategy=pinned
            ).remote()
        return self._actors[node]


def _greet(connection: socket.socket) -> None:
    """Ray speaks gRPC, whose servers begin with their settings of HTTP/2 (RFC 9113, 3.4).

    Raises:
        OSError: this one does not, or says nothing.
    """
    connection.settimeout(GREET_SECONDS)
    settings, head = b"\0\0\0\4\0\0\0\0\0", b""
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
    while len(head) < len(settings) and (more := connection.recv(len(settings) - len(head))):
        head += more
    if head[3:4] != settings[3:4]:
        raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))


def _worker_class() -> type:
    """Made inside a function, the class travels whole and not by its name: no glmpatch need be
    importable on a node before what was shipped is on its path."""
    name, packages = ship.NAME, ship.PACKAGES

    class Worker:
        def obey(self, order: dict[str, Any]) -> Any:
            import importlib
            import os

            (top,) = importlib.import_module(name).__path__
            folder = os.path.join(top, packages)
            if folder not in sys.path:
                sys.path.insert(0, folder)
            return importlib.import_module("glmpatch.fleet.node").obey(order)

    return Worker


def _reason(error: Exception) -> str:
    """Why no answer came, in one line: Ray's errors bring a page of advice."""
    known = {
        "ActorDiedError": N_("its worker died"),
        "WorkerCrashedError": N_("its worker died"),
        "NodeDiedError": N_("the node died"),
        "ActorUnavailableError": N_("its worker cannot be reached"),
        "ActorUnschedulableError": N_("the node is gone"),
        "TaskUnschedulableError": N_("the node is gone"),
        "RuntimeEnvSetupError": N_("Ray cannot set up there what glmpatch ships"),
    }
    name = type(error).__name__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if name in known and name != "RuntimeEnvSetupError":
        return _(known[name])
    last = lines[-1][:300] if lines else ""
    return f"{_(known.get(name, name))}: {last}"
