"""One command of glmpatch on many environments in one process: what is left over would add up.

    python -m tests.bench.many COMMAND... -- ROOT...

Each ROOT is a folder that holds the package ``vllm``.
"""

from __future__ import annotations

import sys

from glmpatch.command.cli import cli
from glmpatch.errors import Exit


def main() -> None:
    end = sys.argv.index("--")
    for root in sys.argv[end + 1 :]:
        try:
            cli.main([*sys.argv[1:end], "--path", root], standalone_mode=False)
        except SystemExit as stop:
            if stop.code != Exit.OK:
                raise


if __name__ == "__main__":
    main()
