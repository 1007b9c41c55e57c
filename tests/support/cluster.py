"""Real Ray clusters on one machine: raylets of which each runs its workers with another Python.

Where time would decide what a test sees, it waits for what stays: a line that the command has
said, a file, a process that has been stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tests.support.cache import cache, once, uv
from tests.support.environment import Environment
from tests.support.watched import PATIENCE, Command, Done

START = "from ray.scripts.scripts import main; main()"
SETTINGS = {
    "RAY_raylet_start_wait_time_s": str(PATIENCE),
    "RAY_worker_register_timeout_seconds": "120",
    "RAY_agent_register_timeout_ms": str(PATIENCE * 1000),
    # What else runs on this machine may take its memory.
    "RAY_memory_monitor_refresh_ms": "0",
    # A raylet that waits for the processor is there; one that was killed refuses to be asked.
    "RAY_health_check_timeout_ms": str(PATIENCE * 1000),
    "RAY_health_check_period_ms": "1000",
}
"""Settings of Ray for a machine that is busy with other things."""
COUNTED = """\
import sys, time, ray
from ray._raylet import GcsClient

head, there = GcsClient(sys.argv[1]), int(sys.argv[2])
while (alive := [n.state for n in head.get_all_node_info().values()].count(0)) != there:
    print(f"the head counts {alive} nodes, and {there} run", flush=True)
    time.sleep(0.3)
"""
"""Waits for a number of nodes; 0 is Ray's word for one that is alive."""
HOLD = """\
import os, sys, time

here = os.path.dirname(__file__)

class Hold:
    def find_spec(self, name, path=None, target=None):
        hold = os.path.join(here, "hold.pth")
        if name == "glmpatch.fleet.node" and os.path.exists(hold):
            with open(os.path.join(here, "held"), "w") as file:
                file.write(str(os.getpid()))
            while os.path.exists(hold):
                time.sleep(0.05)

sys.meta_path.insert(0, Hold())
"""
"""A worker that is to import what obeys waits as long as it is held."""


def packages(version: str) -> Path:
    """A folder with that Ray and all that it needs, for the Python of the tests; made once."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache() / f"ray-{version}-python-{python}"
    with once(folder) as missing:
        if missing:
            into = ("--python", sys.executable, "--target", str(folder))
            uv("pip", "install", *into, f"ray=={version}")
    return folder


@dataclass(eq=False)
class Node:
    """One raylet, and the environment that its workers have."""

    env: Environment
    address: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self) -> None:
        """Until it is part of the cluster."""
        until = time.monotonic() + PATIENCE
        while b"runtime started" not in (said := self.log.read_bytes()):
            there = self.process.poll() is None and time.monotonic() < until
            assert there, said.decode(errors="replace")
            time.sleep(0.2)

    def workers(self) -> list[int]:
        """The process ids of the workers that answer glmpatch there."""
        return [pid for pid in self.processes() if _command(pid).startswith("ray::Worker")]

    def stop_workers(self) -> None:
        """They hear of nothing any more; what they are asked has no answer."""
        self._send(signal.SIGSTOP)

    def kill_workers(self) -> None:
        """The node lives on."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        workers = self.workers()
        assert workers, f"no worker on {self.env.root}"
        for pid in workers:
            # One of an earlier command may be about to end.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def processes(self) -> list[int]:
        """All that its start has started, itself first."""
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
        every = [self.process.pid]
        for pid in every:
            every += parents.get(pid, [])
        return every

    def kill(self) -> None:
        """As when the machine loses its power."""
        if self.process.poll() is not None:
            return
        for pid in reversed(self.processes()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@dataclass(eq=False)
class Cluster:
    """Nodes come with ``add``; all are gone after the ``with``."""

    version: str
    nodes: list[Node] = field(default_factory=list)
    started: int = 0
    """Nodes ever."""
    settled: list[Node] = field(default_factory=list)
    """Those that the head has counted last."""
    commands: list[Command] = field(default_factory=list)

    def __enter__(self) -> Cluster:
        self.ray = packages(self.version)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        # Sockets have short names, which pytest's own folders are too long for.
        self.folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        self.address = f"{_own_address()}:{self.port}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop_commands()
        for node in self.nodes:
            node.kill()
        self.folder.cleanup()

    # -- the nodes --------------------------------------------------------------------------

    def add(self, *environments: Environment) -> list[Node]:
        """Nodes whose workers have these environments; the first of all is the head."""
        added = []
        for env in environments:
            added.append(self._start(env))
            self.nodes.append(added[-1])
            if len(self.nodes) == 1 or not self._together:
                added[-1].wait()
        for node in added:
            node.wait()
        return added

    def restore(self) -> None:
        """Each node that has ended starts again; the cluster knows of these nodes and no others."""
        assert self.nodes[0].process.poll() is None, self.nodes[0].log.read_text()
        for number, node in enumerate(self.nodes):
            if node.process.poll() is not None:
                self.nodes[number] = self._start(node.env)
        for node in self.nodes:
            node.wait()
        self.settle()

    def settle(self) -> None:
        """Until the head counts those nodes that run: of one just killed it hears some time later.

        Ray ends a command, with no word of ours, that it connects to a raylet that is dead.
        """
        there = [node for node in self.nodes if node.process.poll() is None]
        if there != self.settled:
            subprocess.run(
                [sys.executable, "-c", COUNTED, self.address, str(len(there))],
                check=True,
                env={**os.environ, "PYTHONPATH": str(self.ray)},
                timeout=PATIENCE,
            )
            self.settled = there

    def _start(self, env: Environment) -> Node:
        if not list(env.site.glob("ray*")):
            (env.site / "ray.pth").write_text(f"{self.ray}\n")
        number, self.started = self.started, self.started + 1
        if number:
            role = [f"--address={self.address}"]
        else:
            role = ["--head", f"--port={self.port}", "--include-dashboard=false"]
            role += [f"--temp-dir={self.folder.name}"]
        address = f"127.0.0.{number + 1}" if number and self._together else _own_address()
        if self._together:
            role += [
                f"--node-ip-address={address}",
                f"--raylet-socket-name={self.folder.name}/raylet-{number}",
                f"--plasma-store-socket-name={self.folder.name}/store-{number}",
            ]
        with Path(self.folder.name, f"node-{number}.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *(str(env.python), "-c", START, "start", *role, "--block"),
                    *("--num-cpus=0", "--num-gpus=0", "--object-store-memory=80000000"),
                    # Raylets of one machine would give the same port to their workers, and one of
                    # these would end as it starts; 0 leaves the choice to the system.
                    *("--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **SETTINGS},
            )
        return Node(env, address, process, Path(log.name))

    @property
    def _together(self) -> bool:
        """Whether nodes can start together, each with names and an address of its own.

        Newer releases of Ray have no option for the names, and raylets that start together would
        take each other's; they start one after the other.
        """
        return self.version.startswith("2.43.")

    # -- the command ------------------------------------------------------------------------

    def start(self, *arguments: str, on: Node | None = None) -> Command:
        """The command, as somebody in an environment with this Ray would run it.

        It runs on the head, or ``on`` another node: Ray takes the address of the machine from a
        file, and connects to the raylet that has it.
        """
        import glmpatch

        if self._together:
            file = Path(self.folder.name, "session_latest", "node_ip_address.json")
            new = file.with_suffix(".new")
            new.write_text(json.dumps({"node_ip_address": (on or self.nodes[0]).address}))
            new.replace(file)
        paths = [str(Path(glmpatch.__path__[0]).parent), str(self.ray)]
        command = Command(
            [sys.executable, "-m", "glmpatch", *arguments, "--ray", self.address],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            folder=Path(tempfile.mkdtemp(prefix="command-", dir=self.folder.name)),
        )
        self.commands.append(command)
        return command

    def stop_commands(self) -> None:
        """A test that failed may have left some; they must not go on beside the next."""
        while self.commands:
            self.commands.pop().kill()

    def run(self, *arguments: str, seconds: float = PATIENCE) -> Done:
        """The same, to its end."""
        return self.start(*arguments).end(seconds)


@contextlib.contextmanager
def held(env: Environment) -> Iterator[Callable[[], int]]:
    """The first order is not begun there, for as long as the ``with`` lasts.

    Gives a function that waits until it is there, and returns the process id of its worker.
    """
    mark, code, path = (env.site / name for name in ("held", "hold.py", "hold.pth"))
    mark.unlink(missing_ok=True)

    def worker() -> int:
        until = time.monotonic() + PATIENCE
        while not (mark.exists() and mark.read_text()):
            assert time.monotonic() < until, f"no order came to {env.root}"
            time.sleep(0.05)
        return int(mark.read_text())

    code.write_text(HOLD)
    path.write_text("import hold\n")
    try:
        yield worker
    finally:
        for file in (path, code, mark):
            file.unlink(missing_ok=True)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _own_address() -> str:
    """The address under which Ray finds this machine; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 80))
        except OSError:
            return "127.0.0.1"
        address: str = probe.getsockname()[0]
        return address
