"""Measures groups of commands, prints their ratios, and writes the page and its plots.

Results of groups that are not run stay as they were measured before.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from tests.bench import data, footprint, growth, model, page, proof, start_up
from tests.bench.data import Group
from tests.bench.measure import Runner, runner

GROUPS: Mapping[str, Callable[[Runner, int], Group]] = {
    "start-up": start_up.warm,
    "cold-start": start_up.cold,
    "verify": proof.measure,
    "growth": growth.measure,
    "model": model.measure,
    "footprint": footprint.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--runs", type=int, default=7, help="runs of each command (default 7)")
    parser.add_argument("--redraw", action="store_true", help="write the page from the data alone")
    parser.add_argument(
        "--docs", type=Path, default=data.DOCS, metavar="DIR", help="where page and data are kept"
    )
    asked = parser.parse_args()
    unknown = set(asked.groups) - set(GROUPS)
    if unknown or asked.runs < 1:
        parser.error(f"no such group: {', '.join(sorted(unknown))}" if unknown else "--runs < 1")
    groups = data.load(asked.docs)
    for name in [] if asked.redraw else asked.groups or GROUPS:
        started, load = time.monotonic(), round(os.getloadavg()[0], 1)
        with runner() as commands:
            group = GROUPS[name](commands, asked.runs)
        # How busy the machine was before: a ratio bears some of that, and not much.
        groups[name] = replace(group, about={**group.about, "load": load})
        print(f"{name}: {time.monotonic() - started:.0f} s\n", flush=True)
        print(page.as_text(groups[name]), flush=True)
        # Kept at once: a later group may fail.
        data.save({name: groups[name] for name in GROUPS if name in groups}, asked.docs)
    page.write(groups, asked.docs)


if __name__ == "__main__":
    main()
