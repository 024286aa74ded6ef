"""The server as users run it: a process of its own, reached over its pipes or its port."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

TOKEN = "test-token-of-the-admin-0123456789"


class Stdio:
    """`mcp-ssh stdio`, driven by raw JSON-RPC lines of the handshake era."""

    def __init__(self, process: anyio.abc.Process) -> None:
        assert process.stdin
        assert process.stdout
        self.process = process
        self._lines = BufferedByteReceiveStream(process.stdout)
        self._number = 0
        self.received = 0

    async def send(self, method: str, params: Mapping[str, Any], *, notify: bool = False) -> int:
        self._number += not notify
        message = {"jsonrpc": "2.0", "method": method, "params": params} | ({} if notify else {"id": self._number})
        assert self.process.stdin
        await self.process.stdin.send(json.dumps(message).encode() + b"\n")
        return self._number

    async def answer(self, number: int) -> dict[str, Any]:
        with anyio.fail_after(120):
            while True:
                line = await self._lines.receive_until(b"\n", 16 * 1024 * 1024)
                message = json.loads(line)
                if message.get("id") == number:
                    self.received = len(line)
                    return message["result"]

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
async def stdio(home: Path, *options: str) -> AsyncGenerator[Stdio]:
    argv = [sys.executable, "-m", "mcp_ssh", "stdio", *options]
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
    """`mcp-ssh serve` on a free port."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
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
    argv = [sys.executable, "-m", "mcp_ssh", "serve", "--port", "0", *options]
    environment = {**os.environ, "MCP_SSH_HOME": str(home), "MCP_SSH_TOKEN": TOKEN}
    process = await anyio.to_thread.run_sync(
        lambda: subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    )
    try:
        url = await anyio.to_thread.run_sync(_url, process)
        server = Http(process, url)
        async with server.client:
            yield server
    finally:
        process.terminate()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(process.communicate)


def _url(process: subprocess.Popen[str]) -> str:
    """The address that the server says it listens on."""
    assert process.stderr
    for line in process.stderr:
        if found := re.search(r"http://[\d.]+:\d+", line):
            return found[0]
    raise AssertionError("the server ended without saying where it listens")
