"""A command that floods us: the memory it takes, and how long another one takes beside it."""

import statistics

from benchmarks.measure import forget_peak, resident_kib, took_ms
from benchmarks.report import Row
from benchmarks.scene import Scene
from tests.support.servers import Stdio


async def run(scene: Scene) -> list[Row]:
    """Both rows."""
    mib = scene.size(512, 64)
    async with scene.stdio() as server:
        session_id = (await server.call("session_connect", scene.login))["session_id"]
        arguments = {"command": "true", "session_id": session_id}
        for _ in range(20):
            await server.call("command_exec", arguments)
        before = resident_kib(server.process.pid)
        forget_peak(server.process.pid)
        beside = await _flooded(server, session_id, mib)
        grown = (resident_kib(server.process.pid, peak=True) - before) / 1024
    return [
        Row("flood_memory", f"Memory that {mib} MiB of output take", grown, "MiB", grown, 8,
            "a paused channel still holds what one window lets come", basis="memory"),
        Row("flood_beside", f"`true` beside {mib} MiB of output, 95th percentile", beside, "ms", beside, 50,
            "one thread decrypts for both"),
    ]  # fmt: skip


async def _flooded(server: Stdio, session_id: str, mib: int) -> float:
    """The 95th percentile of `true` for as long as the flood lasts, in ms."""
    flood = {"command": f"head -c {mib}M /dev/zero", "session_id": session_id, "timeout": 300}
    number = await server.send("tools/call", {"name": "command_exec", "arguments": flood})
    times: list[float] = []

    async def step() -> None:
        await server.call("command_exec", {"command": "true", "session_id": session_id})

    while number not in server.early:
        times.append(await took_ms(step))
    return statistics.quantiles(times, n=20)[-1] if len(times) > 1 else times[0]
