"""A server that runs, as a client sees it, and as /proc does."""

import contextlib
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, types
from mcp.client.stdio import stdio_client

from tests.behaviour.adapter import Adapter, text_of
from tests.fleet.hosts import Host

HANG_S = 30.0
"""How long past a command's own time limit an answer is waited for."""


class Running:
    """One server, connected."""

    def __init__(self, adapter: Adapter, client: Client, machine: Host, pids: list[int]) -> None:
        self.adapter, self.client, self.machine, self.pids = adapter, client, machine, pids

    async def exec(self, command: str, timeout_s: float = 20.0, patience_s: float = HANG_S) -> "Answer":
        """Run a command, and wait for the answer within bounds."""
        began = time.monotonic()
        result: types.CallToolResult | None = None
        error = ""
        with anyio.move_on_after(timeout_s + patience_s):
            try:
                result = await self.client.call_tool(*self.adapter.exec(command, timeout_s))
            except Exception as fault:  # noqa: BLE001 whatever a server makes of it is what is to be seen
                error = type(fault).__name__
        return Answer(result, error, time.monotonic() - began)

    async def says(self, word: str) -> bool:
        """Whether a command still runs and its output comes back."""
        answer = await self.exec(f"echo {word}-$((40+2))", 10, 5)
        return f"{word}-42" in answer.text

    def resident_mb(self, kind: str = "VmRSS") -> float:
        """Memory of the server with its children; `VmHWM` is the most there has been."""
        return sum(_status(pid, kind) for pid in tree(self.pids)) / 1024


class Answer:
    """What came of a call."""

    def __init__(self, result: types.CallToolResult | None, error: str, seconds: float) -> None:
        self.result, self.error, self.seconds = result, error, seconds

    @property
    def came(self) -> bool:
        """Whether there was any answer, be it an error."""
        return self.result is not None or self.error != ""

    @property
    def failed(self) -> bool:
        return self.result is None or bool(self.result.is_error)

    @property
    def text(self) -> str:
        return "" if self.result is None else text_of(self.result)

    @property
    def kind(self) -> str:
        if not self.came:
            return "hangs"
        return "error" if self.failed else "answers"


@contextlib.asynccontextmanager
async def running(adapter: Adapter, machine: Host, *, connect: bool = True) -> AsyncGenerator[Running]:
    """A server of the adapter's, started where it is not a URL, with the official client."""
    before = set(children(os.getpid()))
    log = adapter.home / "stderr.log"
    with log.open("a") as errors:
        found = adapter.server()
        way = found if isinstance(found, str) else stdio_client(found, errlog=errors)
        async with Client(way) as client:
            started = [pid for pid in children(os.getpid()) if pid not in before]
            server = Running(adapter, client, machine, started)
            if connect:
                await adapter.connect(client)
            yield server


def children(parent: int) -> list[int]:
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields: list[Any] = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and fields[0] != "Z":
                found.append(int(folder.name))
    return found


def tree(roots: list[int]) -> list[int]:
    """The processes and all they have started."""
    return [pid for root in roots for pid in (root, *tree(children(root)))]


def _status(pid: int, kind: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{kind}:"):
                return int(line.split()[1])
    return 0
