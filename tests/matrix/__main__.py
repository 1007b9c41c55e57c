"""``python -m tests.matrix``: reads every release, prints the table, exits 1 on a surprise."""

from __future__ import annotations

import sys
import time

from tests.matrix import judge, table
from tests.support import releases


def main() -> int:
    started = time.monotonic()
    releases.trees()
    fetched = time.monotonic()
    cells = judge.judge(table.load())
    print(judge.format_table(cells))
    new = dict.fromkeys(cell.release for cell in cells if not cell.known)
    for release in new:
        print(f"vLLM {release} is not in tests/matrix/table.json: read its sources and add it")
    wrong = [cell for cell in cells if cell.fault]
    for cell in wrong:
        print(f"UNEXPECTED: {cell.release} {cell.patch} {cell.state}: {cell.fault}")
    print(
        f"{len({cell.release for cell in cells})} releases, {len(cells)} cells, "
        f"{len(wrong)} unexpected, {len(new)} new; read in {fetched - started:.1f} s, "
        f"judged in {time.monotonic() - fetched:.1f} s"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
