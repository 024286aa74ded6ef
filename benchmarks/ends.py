"""Commands that are ended early: by their deadline and by a cancellation, in six shapes, as root and as a user."""

import asyncio
import itertools

import anyio

from benchmarks.measure import took_ms
from benchmarks.report import Row
from benchmarks.scene import Api, Scene
from mcp_ssh.tools import command
from tests.support.machine import number, processes, started

SHAPES = {
    "simple": "sleep {n}",
    "sequence": "sleep {n}; sleep {n}",
    "pipeline": "sleep {n} | sleep {n} | cat",
    "background": "sleep {n} & wait",
    "setsid": "setsid sleep {n} & wait",
    "deaf": "trap '' TERM; sleep {n}; sleep {n}",
}
LIMIT_S = 0.5


async def run(scene: Scene) -> list[Row]:
    """Survivors, and the longest end."""
    survivors, longest, count = 0, 0.0, 0
    async with scene.app() as app:
        for user in ("root", "dev"):
            api = Api(app)
            await api.connect({**scene.login, "username": user})
            cases = itertools.product(SHAPES.values(), (_timed_out, _cancelled), range(scene.size(5, 1)))
            for shape, end, _ in cases:
                mark = number()
                line = shape.format(n=mark)
                longest = max(longest, await end(scene, api, line, mark))
                survivors += len(await processes(scene.host, mark))
                count += 1
    return [
        Row("end_survivors", f"Processes left of {count} commands that were ended", survivors, "processes", survivors,
            0, "a process left its session, its parents and its environment at once", basis="count"),
        Row("end_longest", "The longest that ending one took", longest, "s", longest, LIMIT_S,
            "a process deaf to TERM gets 0.3 s before KILL, then two looks find nothing more"),
    ]  # fmt: skip


async def _timed_out(_scene: Scene, api: Api, line: str, _mark: int) -> float:
    """Seconds past its deadline."""
    limit_s = 0.3
    spent = await took_ms(lambda: api.call(command.run_command, command=line, timeout=limit_s))
    return spent / 1000 - limit_s


async def _cancelled(scene: Scene, api: Api, line: str, mark: int) -> float:
    """Seconds after its cancellation."""
    task = asyncio.ensure_future(api.call(command.run_command, command=line, timeout=60))
    await started(scene.host, mark)
    return await took_ms(lambda: _gone(task)) / 1000


async def _gone(task: "asyncio.Future[object]") -> None:
    task.cancel()
    with anyio.move_on_after(30):
        await asyncio.wait([task])
