"""Measure how long hostile input keeps other callers waiting."""

import contextlib
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import anyio

LIMIT_S = 0.5
"""How long another caller may wait, in seconds."""

_PAUSE_S = 0.01


@dataclass
class Bystander:
    """Another caller of the same event loop."""

    longest_s: float = 0.0
    """The most processor time that this process used between two turns of the bystander, in seconds."""
    turns: int = 0


@contextlib.asynccontextmanager
async def bystander(limit_s: float = LIMIT_S) -> AsyncGenerator[Bystander]:
    """Fail if other callers wait longer than `limit_s` in one go while the block runs.

    The wait is counted in processor time of this process, threads included, so that a busy machine does not fail the
    test. A block that waits inside the loop without using the processor (a FIFO that is opened) needs a deadline of its
    own.
    """
    seen = Bystander()
    async with anyio.create_task_group() as group:
        group.start_soon(_watch, seen)
        await anyio.sleep(0)
        try:
            yield seen
            await anyio.sleep(2 * _PAUSE_S)  # the turn after the last of the work belongs to it
        finally:
            group.cancel_scope.cancel()
    assert seen.turns > 0
    assert seen.longest_s < limit_s, f"another caller waited {seen.longest_s:.2f} s"


async def _watch(seen: Bystander) -> None:
    before = time.process_time()
    while True:
        await anyio.sleep(_PAUSE_S)
        now = time.process_time()
        seen.longest_s = max(seen.longest_s, now - before)
        seen.turns += 1
        before = now
