"""Runs commands, one a line of JSON on stdin, and answers with what each took.

A process of its own, started bare: Linux counts towards the peak of a child what the process that
started it held at that moment, and whoever plans a benchmark holds more than what it measures.
"""

import json
import os
import sys
import time


def main() -> None:
    for line in sys.stdin:
        command, environment, log = json.loads(line)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        started = time.perf_counter()
        child = os.posix_spawn(command[0], command, environment, file_actions=actions)
        _, status, usage = os.wait4(child, 0)
        seconds = time.perf_counter() - started
        code = os.waitstatus_to_exitcode(status)
        sys.stdout.write(json.dumps([seconds, usage.ru_maxrss, code]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
