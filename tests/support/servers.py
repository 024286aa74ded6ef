"""The server as users run it: a process of its own, reached over its pipes or its port."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

TOKEN = "test-token-of-the-admin-0123456789"


class Stdio:
    """`ssh-steward stdio`, driven by raw JSON-RPC lines of the handshake era."""

    def __init__(self, process: anyio.abc.Process) -> None:
        assert process.stdin
        assert process.stdout
        self.process = process
        self._lines = BufferedByteReceiveStream(process.stdout)
        self._number = 0
        self.received = 0
        self.early: dict[int, tuple[int, dict[str, Any]]] = {}

    async def send(self, method: str, params: Mapping[str, Any], *, notify: bool = False) -> int:
        self._number += not notify
        message = {"jsonrpc": "2.0", "method": method, "params": params} | ({} if notify else {"id": self._number})
        assert self.process.stdin
        await self.process.stdin.send(json.dumps(message).encode() + b"\n")
        return self._number

    async def answer(self, number: int) -> dict[str, Any]:
        with anyio.fail_after(120):
            while number not in self.early:
                line = await self._lines.receive_until(b"\n", 16 * 1024 * 1024)
                message = json.loads(line)
                if "result" in message:
                    self.early[message["id"]] = len(line), message["result"]
        self.received, result = self.early.pop(number)
        return result

    async def shake_hands(self) -> None:
        client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        await self.answer(await self.send("initialize", client))
        await self.send("notifications/initialized", {}, notify=True)

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        result = await self.answer(await self.send("tools/call", {"name": tool, "arguments": arguments}))
        assert not result.get("isError"), result
        return result["structuredContent"]

    async def resident_kib(self) -> int:
        status = await anyio.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1])  # pyright: ignore[reportOptionalSubscript]


@contextlib.asynccontextmanager
async def stdio(home: Path, *options: str, program: Sequence[str] = ("-m", "mcp_ssh")) -> AsyncGenerator[Stdio]:
    argv = [sys.executable, *program, "stdio", *options]
    async with await anyio.open_process(argv, env={**os.environ, "MCP_SSH_HOME": str(home)}, stderr=None) as process:
        try:
            server = Stdio(process)
            await server.shake_hands()
            yield server
        finally:
            with anyio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                await process.wait()


class Http:
    """`ssh-steward serve` on a free port."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        import httpx2

        self.process = process
        self.url = url
        self.client = httpx2.AsyncClient(base_url=url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=60)

    async def call(self, method: str, path: str, **more: Any) -> Any:
        answer = await self.client.request(method, path, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextlib.asynccontextmanager
async def serve(home: Path, *options: str) -> AsyncGenerator[Http]:
    process = await anyio.to_thread.run_sync(_started, home, options)
    try:
        url = await anyio.to_thread.run_sync(_url, process, home)
        server = Http(process, url)
        async with server.client:
            yield server
    finally:
        process.terminate()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(process.wait)


@contextlib.contextmanager
def blocking_serve(home: Path) -> Generator[str]:
    """The same for tests without a loop; gives the address."""
    process = _started(home, ())
    try:
        yield _url(process, home)
    finally:
        process.terminate()
        process.wait(30)


def _started(home: Path, options: tuple[str, ...]) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "mcp_ssh", "serve", "--port", "0", *options]
    environment = {**os.environ, "MCP_SSH_HOME": str(home), "MCP_SSH_TOKEN": TOKEN}
    with _log(home).open("w") as log:
        return subprocess.Popen(argv, env=environment, stderr=log, stdout=subprocess.DEVNULL)


def _log(home: Path) -> Path:
    return home.with_name(f"{home.name}.log")


def _url(process: subprocess.Popen[bytes], home: Path) -> str:
    """The address that the server says it listens on, in what it logs."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if found := re.search(r"http://[\d.]+:\d+", _log(home).read_text()):
            return found[0]
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise AssertionError(f"the server did not say where it listens: {_log(home).read_text()}")


def resident_kib(pid: int) -> int:
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])  # pyright: ignore
