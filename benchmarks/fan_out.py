"""Many commands at once on a machine that takes ten channels a connection."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from benchmarks.measure import Seen
from benchmarks.report import Row, ratio_row
from benchmarks.scene import Scene
from mcp_ssh.tools import command
from tests.support.doors import Fault

AT_ONCE, MUX_AT_ONCE = 50, 10
REFERENCE = "`ssh -S` processes, 10 at once"


async def run(scene: Scene) -> list[Row]:
    """Commands a second, and how many were refused."""
    count = scene.size(400, 100)
    seen, refused = Seen(), 0
    with scene.mux() as mux:
        async with scene.api() as api:

            async def ours() -> None:
                nonlocal refused
                try:
                    await api.call(command.run_command, command="true")
                except Fault:
                    refused += 1

            for _ in range(scene.size(5, 3)):
                seen.add("ssh", await _rate(lambda: mux.run("true"), count, MUX_AT_ONCE))
                seen.add("api", await _rate(ours, count, AT_ONCE))
    return [
        ratio_row(
            "fan_out",
            f"{count} times `true`, {AT_ONCE} waiting, MaxSessions 10",
            REFERENCE,
            seen.beside("api", "ssh"),
            1.8,
            because="both cores are busy with sshd's forks and shells",
            unit="/s",
            bound="≥",
        ),
        Row(
            "fan_out_refused",
            f"… of which were refused, in {scene.size(5, 3)} rounds",
            refused,
            "commands",
            refused,
            0,
            "an open was refused once a command had started",
            basis="count",
        ),
    ]


async def _rate(step: Callable[[], Awaitable[None]], count: int, at_once: int) -> float:
    """How many a second, so many at once."""
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await step()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    return count / (time.perf_counter() - began)
