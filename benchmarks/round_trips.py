"""How often a call crosses the link, counted on one so slow that nothing else matters."""

import asyncio
import functools
from typing import Any

import anyio.to_thread

from benchmarks.measure import Step, took_ms
from benchmarks.report import Row
from benchmarks.scene import Scene
from mcp_ssh.tools import command, system
from mcp_ssh.tools.file import content

ONE_WAY_MS = 150.0
"""A round trip takes longer than any of the scripts, so that only trips are counted."""
SETTLE_S = 0.5
"""What was got ready ahead of need is ready by then."""


async def run(scene: Scene) -> list[Row]:
    """A row for each of some calls, and the same with OpenSSH's kept connection."""
    with scene.mux() as mux:
        async with scene.api() as api:
            steps: dict[str, Step] = {
                "exec": lambda: api.call(command.run_command, command="true"),
                "stat": lambda: api.call(content.stat, path="/etc/hostname"),
                "read": lambda: api.call(content.read, path="/etc/hostname"),
                "write": lambda: api.call(content.write, path="~/mcp-ssh-bench", content="some text\n"),
                "disk": lambda: api.call(system.disk),
                "memory": lambda: api.call(system.memory),
                "service": lambda: api.call(system.service, service="ssh", action="status"),
                "tail": lambda: api.call(system.tail, path="/etc/hostname"),
                "mux": lambda: mux.run("true"),
            }
            for step in steps.values():
                await step()
            entered = scene.delayed(ONE_WAY_MS)
            await anyio.to_thread.run_sync(entered.__enter__)
            try:
                counted = {name: await _count(step) for name, step in steps.items()}
            finally:
                await anyio.to_thread.run_sync(functools.partial(entered.__exit__, None, None, None))
    reference = counted.pop("mux")
    named = {
        "exec": "`true`",
        "stat": "a tool that reads (file_stat)",
        "read": "a small file read",
        "write": "a small file written, renamed and on disk",
        "disk": "system_disk",
        "memory": "system_memory",
        "service": "the status of a service",
        "tail": "system_tail",
    }
    return [_row(f"round_trips_{name}", named[name], counted[name], reference) for name in named]


async def _count(step: Step) -> int:
    """Round trips of one time; the least of some, since a lost packet is no round trip."""
    trips: list[float] = []
    for _ in range(4):
        await asyncio.sleep(SETTLE_S)
        trips.append(await took_ms(step) / (2 * ONE_WAY_MS))
    return max(1, round(min(trips)))


def _row(name: str, what: str, trips: int, reference: int) -> Row:
    because = "no waiting shell was ready, so a channel was opened first"
    more: dict[str, Any] = {"against": "`ssh -S`, `true`", "reference": float(reference), "basis": "count"}
    return Row(name, f"Round trips of {what}", trips, "round trips", trips, 1, because, round_trips=trips, **more)
