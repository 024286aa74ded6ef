"""A call that does next to nothing, against a bare server of the same kind."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import anyio

from benchmarks.measure import Seen, Step, Turns, cpu_s, in_turns
from benchmarks.report import Row, ratio_row
from benchmarks.scene import Scene, wire
from tests.support.servers import Http, Stdio

BARE = Path(__file__).with_name("bare.py")


async def run(scene: Scene) -> list[Row]:
    """Both doors. So close to a reference CPU time is judged; wall time is noise."""
    turns = Turns(rounds=scene.size(11, 5), batch=scene.size(200, 60))
    return [await _mcp(scene, turns), await _rest(scene, turns)]


async def _mcp(scene: Scene, turns: Turns) -> Row:
    async with scene.stdio() as ours, _bare_stdio() as bare:
        steps: dict[str, Step] = {
            "bare": lambda: bare.call("nothing", {}),
            "ours": lambda: ours.call("session_list", {}),
        }
        seen = await _cpu_ms(steps, {"bare": bare.process.pid, "ours": ours.process.pid}, turns)
    return ratio_row(
        "call_mcp",
        "A tools/call that does nothing, over stdio",
        "the SDK's low-level `Server`",
        seen.beside("ours", "bare"),
        1.15,
        because="every call is judged by limits and policy, validated, redacted and written to the sealed history, all"
        " of which costs a quarter of what the SDK does for it",
        basis="cpu",
    )


async def _rest(scene: Scene, turns: Turns) -> Row:
    with _bare_http() as (process, url):
        server = Http(process, url)
        async with server.client, wire(server) as bare, scene.served() as ours:
            steps: dict[str, Step] = {
                "bare": lambda: bare.post("/nothing"),
                "ours": lambda: ours.post("/session/list"),
            }
            pids = {"bare": process.pid, "ours": ours.server.process.pid}
            seen = await _cpu_ms(steps, pids, turns)
    return ratio_row(
        "call_rest",
        "A REST call that does nothing",
        "a bare Starlette route",
        seen.beside("ours", "bare"),
        1.3,
        because="a bare route does nothing of this, and each was left out in turn to see its share: a row of the"
        " sealed history (45 of 110 us), limits, policy, deadline and validation (35), token, Host, Origin, a strict"
        " reading of the request and five headers (30); three of the scopes that can end a call are among them",
        basis="cpu",
    )


async def _cpu_ms(steps: dict[str, Step], pids: dict[str, int], turns: Turns) -> Seen:
    """CPU milliseconds of the servers for one call, by way and round."""
    await in_turns(steps, Turns(rounds=1, batch=20))
    seen = Seen()
    for _ in range(turns.rounds):
        for name, step in steps.items():
            before = cpu_s(pids[name])
            for _ in range(turns.batch):
                await step()
            seen.add(name, (cpu_s(pids[name]) - before) * 1000 / turns.batch)
    return seen


@contextlib.asynccontextmanager
async def _bare_stdio() -> AsyncGenerator[Stdio]:
    async with await anyio.open_process([sys.executable, str(BARE), "stdio"], stderr=None) as process:
        try:
            server = Stdio(process)
            await server.shake_hands()
            yield server
        finally:
            process.kill()


@contextlib.contextmanager
def _bare_http() -> Generator[tuple["subprocess.Popen[bytes]", str]]:
    reading, writing = os.pipe()
    with subprocess.Popen([sys.executable, str(BARE), "http"], stderr=writing) as process:
        os.close(writing)
        try:
            yield process, _address(reading)
        finally:
            process.terminate()
            os.close(reading)


def _address(reading: int) -> str:
    """Where the server says it listens."""
    said, deadline = "", time.monotonic() + 30
    while time.monotonic() < deadline:
        said += os.read(reading, 4096).decode()
        if found := re.search(r"http://[\d.]+:\d+", said):
            return found[0]
    raise RuntimeError(said)
