"""From the start of the process to the first list of tools, against importing the SDK's server alone."""

import asyncio
import resource
import sys
import time
from collections.abc import Awaitable, Callable

import anyio

from benchmarks.measure import Seen
from benchmarks.report import Row, ratio_row
from benchmarks.scene import Scene
from tests.support.servers import stdio


async def run(scene: Scene) -> list[Row]:
    """CPU time is judged; wall time is printed beside it. Both have started before, so that their bytecode is there."""

    async def ours() -> None:
        async with stdio(scene.folder / "state") as server:
            await server.answer(await server.send("tools/list", {}))

    async def imported() -> None:
        process = await anyio.open_process([sys.executable, "-c", "import mcp.server.lowlevel"])
        await process.wait()

    wall, cpu = Seen(), Seen()
    await ours()
    await imported()
    for _ in range(scene.size(9, 3)):
        for name, step in {"import": imported, "ours": ours}.items():
            seconds, cpu_seconds = await _spent(step)
            wall.add(name, seconds)
            cpu.add(name, cpu_seconds)
            await asyncio.sleep(0.1)
    against = '`python -c "import mcp.server.lowlevel"`'
    because = "the state, the registry with its schemas and the list itself are made on top of the import"
    what = "Start of the process to the first tools/list"
    return [
        ratio_row("start_cpu", f"{what}, CPU time", against, cpu.beside("ours", "import"), 1.15, because=because,
                  unit="s", basis="cpu"),
        ratio_row("start", what, against, wall.beside("ours", "import"), 1.15, because=because, unit="s"),
    ]  # fmt: skip


async def _spent(step: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """Seconds, and CPU seconds of the children that ended meanwhile."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    await step()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
