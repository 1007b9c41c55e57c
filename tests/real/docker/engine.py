"""A Docker engine of the tests' own, beside any that the machine may have."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.cache import cache

SECONDS = 60
"""So long the engine may take to start, and to end."""
PATH = f"/usr/sbin:/usr/bin:{os.environ.get('PATH', '')}"
"""The client that came with Debian's engine first: a much newer one refuses to talk to it."""


class Unavailable(Exception):
    """No engine can be started here; the message says why."""


@dataclass(frozen=True)
class Engine:
    """A running engine, by its socket; ``folder`` holds nothing of the user's configuration."""

    folder: Path

    @property
    def host(self) -> str:
        return f"unix://{self.folder}/socket"

    def docker(
        self, *arguments: str, check: bool = True, buildkit: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run the client; stdout and stderr come back as one text, in their order."""
        done = subprocess.run(
            [which("docker"), *arguments],
            env=self.environment(buildkit),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert not check or done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout}"
        return done

    def environment(self, buildkit: bool = False) -> dict[str, str]:
        return {
            **os.environ,
            "DOCKER_HOST": self.host,
            "DOCKER_CONFIG": str(self.folder),
            "DOCKER_BUILDKIT": str(int(buildkit)),
        }

    def inspect(self, image: str, field: str) -> str:
        return self.docker("image", "inspect", "--format", f"{{{{{field}}}}}", image).stdout.strip()

    def has(self, image: str) -> bool:
        return self.docker("image", "inspect", image, check=False).returncode == 0

    def build(
        self,
        context: Path,
        tag: str,
        *options: str,
        check: bool = True,
        buildkit: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """``docker build`` with the network of the host; nothing is ever pulled.

        The classic builder needs nothing but the engine; BuildKit is today's default.
        """
        passed = [
            part
            for name in ("http_proxy", "https_proxy", "no_proxy")
            if name in os.environ
            for part in ("--build-arg", name)
        ]
        options = ("--force-rm", "--network", "host", *passed, "--tag", tag, *options)
        return self.docker("build", *options, str(context), check=check, buildkit=buildkit)

    def run(
        self, image: str, *command: str, user: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """The command in a container without a network, that is gone afterwards."""
        options = ["--rm", "--network", "none", "--entrypoint", command[0]]
        if user is not None:
            options += ["--user", user]
        return self.docker("run", *options, image, *command[1:], check=check)


def which(program: str) -> str:
    found = shutil.which(program, path=PATH)
    if found is None:
        raise Unavailable(f"{program} is not installed")
    return found


def install(*packages: str) -> None:
    """Debian's packages of these programs, where root may install them."""
    if os.geteuid() != 0:
        raise Unavailable("starting a Docker engine needs root")
    wanted = [package for package in packages if shutil.which(_program(package), path=PATH) is None]
    if not wanted:
        return
    if not Path("/etc/debian_version").exists():
        raise Unavailable(f"not installed: {', '.join(wanted)}")
    # RUNLEVEL keeps the package from starting an engine of the machine's own.
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *wanted]):
        done = subprocess.run(["apt-get", *command], env=quiet, capture_output=True, text=True)
    if done.returncode != 0:
        raise Unavailable(f"apt-get install {' '.join(wanted)}: {done.stderr.strip()}")


def _program(package: str) -> str:
    return {"docker.io": "dockerd"}.get(package, package)


@contextlib.contextmanager
def running() -> Iterator[Engine]:
    """Start an engine whose images stay in the cache for the next run.

    Raises:
        Unavailable: with what the engine said last.
    """
    if sys.platform != "linux":
        raise Unavailable("a Docker engine of one's own runs on Linux only")
    install("docker.io")
    # Two engines would destroy each other's images.
    with (cache() / "docker.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = Path(tempfile.mkdtemp(prefix="glmpatch-docker-"))
        try:
            yield from _run(Engine(folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _run(engine: Engine) -> Iterator[Engine]:
    folder = engine.folder
    log = folder / "log"
    settings = folder / "daemon.json"
    settings.write_text("{}")
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            [
                # The engine ends with the tests, even where these are killed.
                *(which("setpriv"), "--pdeathsig", "TERM", which("dockerd")),
                *("--host", engine.host, "--data-root", str(cache() / "docker")),
                *("--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid")),
                *("--config-file", str(settings), "--containerd-namespace", "glmpatch"),
                *("--iptables=false", "--ip6tables=false", "--ip-forward=false"),
                *("--bridge=none", "--storage-driver=overlay2"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": PATH},
        )
    try:
        until = time.monotonic() + SECONDS
        while engine.docker("version", check=False).returncode != 0:
            if daemon.poll() is not None or time.monotonic() > until:
                last = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise Unavailable(f"dockerd does not start: {''.join(last)}")
            time.sleep(0.1)
        yield engine
    finally:
        daemon.terminate()
        try:
            daemon.wait(SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        # The engine leaves the network of the host mounted here.
        for mounted in folder.glob("exec/netns/*"):
            subprocess.run(["umount", str(mounted)], check=False)
