"""One command on all nodes of a cluster, from the order to what is said of it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from glmpatch.fleet import lines, phases
from glmpatch.fleet.lines import Said
from glmpatch.fleet.ray import Cluster
from glmpatch.language import _, spoken
from glmpatch.words import Words

COMMANDS = {"status": phases.status, "apply": phases.apply, "revert": phases.revert}


def run(
    command: str,
    address: str,
    names: Sequence[str],
    words: Words,
    progress: Callable[[str], None] | None,
    options: Mapping[str, Any],
) -> Said:
    """Run status, apply or revert on every node that is alive now.

    Args:
        command: its name.
        address: of the cluster, or "auto" for the one that runs on this machine.
        names: of patches; none for all.
        words: how the command was started, for hints.
        progress: called with a few words as it goes on.
        options: of that command.

    Raises:
        Failure: there is no cluster, or no way to it.
    """
    order = {
        "names": list(names),
        "start": words.start,
        "on": list(words.on),
        "language": spoken(),
        **options,
    }
    with Cluster(address, progress) as cluster:
        machines = cluster.machines
        COMMANDS[command](cluster, machines, order)
    return lines.say(
        command,
        machines,
        words,
        where=_(
            "the Ray cluster at {address} (Ray {version})",
            address=cluster.at,
            version=cluster.version,
        ),
        again=f"{words.start} {shlex.join(sys.argv[1:])}",
        interrupted=cluster.interrupted,
    )
