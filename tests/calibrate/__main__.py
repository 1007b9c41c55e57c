"""``python -m tests.calibrate``: see ``--help``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tests.calibrate import ask, engine, page

DOCS = Path(__file__).resolve().parents[2] / "docs"
WAYS = ("module", "engine")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.calibrate", description=__doc__)
    parser.add_argument(
        "ways", nargs="*", metavar="WAY", help=f"{' or '.join(WAYS)}; what is left out stays known"
    )
    parser.add_argument("--right", type=int, default=200, help="seeds for the right file")
    parser.add_argument("--wrong", type=int, default=24, help="seeds for each fault")
    parser.add_argument("--every", type=int, default=12, help="of these, in every rounding; module")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument(
        "--precision", choices=engine.PRECISIONS, help="this one alone; engine, which takes hours"
    )
    parser.add_argument("--redraw", action="store_true", help="page and plots anew, from the data")
    options = parser.parse_args()
    data = DOCS / "proof.json"
    found = json.loads(data.read_text("utf-8")) if data.exists() else {}
    ways = [] if options.redraw else options.ways or WAYS
    if "module" in ways:
        found |= ask.module(options.right, options.wrong, options.every, options.jobs)
    if "engine" in ways:
        precisions = (options.precision,) if options.precision else engine.PRECISIONS
        answered = engine.engine(options.right, options.wrong, options.jobs, precisions)
        found |= {"engine": answered}
    data.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    for name, text in page.drawn(found).items():
        (DOCS / name).write_text(text, "utf-8")


main()
