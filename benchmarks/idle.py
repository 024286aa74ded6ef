"""Many sessions that nobody uses: memory and CPU each, in a process of its own."""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import cpu_s, resident_kib
from benchmarks.report import Row
from benchmarks.scene import CONFIG, Scene
from mcp_ssh.app import open_app
from mcp_ssh.dispatch import dispatch
from mcp_ssh.tool import Caller, Role
from mcp_ssh.tools import session
from tests.support.doors import DirectCall

AT_ONCE = 5


async def run(scene: Scene) -> list[Row]:
    """Both rows."""
    count, watched_s = scene.size(200, 20), scene.size(65, 5)
    words = [json.dumps(scene.login), str(count), str(watched_s)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.idle", *words, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    kib, percent = json.loads(said)
    return [
        Row("idle_memory", f"Memory of each of {count} idle sessions, each its own connection", kib, "KiB", kib, 60,
            "each holds a login of its own: keys of the ciphers, options, buffers", basis="memory"),
        Row("idle_cpu", f"CPU of {count} idle sessions, keepalive 30 s", percent, "% of a core", percent, 1.0,
            "each connection sends and hears keepalives", basis="cpu"),
    ]  # fmt: skip


async def _child(login: dict[str, str], count: int, watched_s: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_app(Path(folder), CONFIG) as app:
            callers = iter([Caller(f"caller{index}", Role.ADMIN, owner=True) for index in range(count + 5)])

            async def connect() -> None:
                await dispatch(app, session.connect, login, DirectCall(next(callers)))

            for _ in range(5):
                await connect()
            before = resident_kib(os.getpid())
            for _ in range(count // AT_ONCE):
                async with asyncio.TaskGroup() as group:
                    for _ in range(AT_ONCE):
                        group.create_task(connect())
            grown = resident_kib(os.getpid()) - before
            await asyncio.sleep(1)
            spent = cpu_s(os.getpid())
            await asyncio.sleep(watched_s)
            percent = (cpu_s(os.getpid()) - spent) / watched_s * 100
            print(json.dumps([grown / count, percent]))


if __name__ == "__main__":
    asyncio.run(_child(json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
