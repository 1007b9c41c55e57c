"""Streams that run beside each other, as the requests of a server do.

What one stream keeps in a place that it shares with the others reaches them only while they run:
one after the other, each would still get its own.
"""

from __future__ import annotations

from typing import Any


async def in_turn(streams: list[Any]) -> list[list[Any]]:
    """What each stream gives, when each in its turn is asked for one thing."""
    given: list[list[Any]] = [[] for _ in streams]
    running = list(zip(streams, given))
    while running:
        for pair in list(running):
            stream, found = pair
            try:
                found.append(await stream.__anext__())
            except StopAsyncIteration:
                running.remove(pair)
    return given
