"""Both servers on uvloop, which counts where it is installed; every other test is on asyncio's own loop."""

import functools
import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import open_app
from mcp_ssh.config.models import Config
from tests.fleet.hosts import Host
from tests.support.cli_kit import run
from tests.support.machine import login, number, outside, processes, started, trust
from tests.support.servers import serve, stdio

SIZE = 8 * 1024 * 1024


@pytest.fixture
async def home(mcp_home: Path, deb: Host) -> Path:
    async with open_app(mcp_home, Config()) as app:
        await trust(app, deb)
    return mcp_home


def on_uvloop(pid: int) -> bool:
    return "/uvloop/" in Path(f"/proc/{pid}/maps").read_text()


async def gone(host: Host, n: int) -> None:
    with anyio.fail_after(10):
        while await processes(host, n):
            await anyio.sleep(0.05)


async def transferred(home: Path, host: Host, call: Any) -> None:
    """Upload and download a file through a server, and look at both ends."""
    places = home / "transfers/env"
    places.mkdir(parents=True, exist_ok=True)
    content = os.urandom(SIZE)
    (places / "there").write_bytes(content)
    there = f"/tmp/uvloop-{number()}"
    await call("file_upload", {"remote_path": there, "local_path": str(places / "there")})
    assert (await outside(host, f"sha256sum <{there}")).split()[0] == hashlib.sha256(content).hexdigest()
    await call("file_download", {"remote_path": there, "local_path": str(places / "back")})
    assert (places / "back").read_bytes() == content


@pytest.mark.requirement("server.uvloop")
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_the_stdio_server_works_on_either_loop(
    home: Path, deb: Host, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_SSH_LOOP", loop)
    async with stdio(home, "--toolsets", "all") as server:
        assert on_uvloop(server.process.pid) is (loop == "uvloop")
        session_id = (await server.call("session_connect", login(deb, "dev")))["session_id"]
        on = {"session_id": session_id}
        assert (await server.call("command_exec", {**on, "command": "cat", "stdin": "words"}))["stdout"] == "words"
        n = number()
        call = await server.send("tools/call", {"name": "command_exec", "arguments": {**on, "command": f"sleep {n}"}})
        await started(deb, n)
        await server.send("notifications/cancelled", {"requestId": call}, notify=True)
        await gone(deb, n)
        timed_out = await server.call("command_exec", {**on, "command": f"sleep {n}", "timeout": 0.5})
        assert (timed_out["status"], timed_out["stopped"]) == ("timed_out", True)

        async def tool(name: str, arguments: dict[str, Any]) -> None:
            await server.call(name, {**on, **arguments})

        await transferred(home, deb, tool)
        assert server.process.stdin
        await server.process.stdin.aclose()
        with anyio.fail_after(15):
            assert await server.process.wait() == 0


@pytest.mark.requirement("server.uvloop")
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_the_http_server_works_on_either_loop(
    home: Path, deb: Host, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_SSH_LOOP", loop)
    async with serve(home) as server:
        assert on_uvloop(server.process.pid) is (loop == "uvloop")
        session_id = (await server.call("POST", "/session/connect", json=login(deb, "dev")))["session_id"]
        where = {"session_id": session_id}
        body = {"command": "cat", "stdin": "words"}
        assert (await server.call("POST", "/command/exec", params=where, json=body))["stdout"] == "words"
        n = number()
        async with anyio.create_task_group() as group:
            asked = {"params": where, "json": {"command": f"sleep {n}"}}
            group.start_soon(functools.partial(server.client.post, "/command/exec", **asked))
            await started(deb, n)
            group.cancel_scope.cancel()
        await gone(deb, n)

        async def tool(name: str, arguments: dict[str, Any]) -> None:
            await server.call("POST", "/" + name.replace("_", "/"), params=where, json=arguments)

        await transferred(home, deb, tool)
        server.process.send_signal(signal.SIGTERM)
        with anyio.fail_after(15):
            assert await anyio.to_thread.run_sync(server.process.wait) == 0


async def test_a_loop_that_is_none_is_named(tmp_path: Path) -> None:
    said = (await run("stdio", home=tmp_path, env={"MCP_SSH_LOOP": "trio"})).failure
    assert "MCP_SSH_LOOP is 'trio'" in said
