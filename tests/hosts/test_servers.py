"""The server as a process: what it stops, what it costs, and how it ends."""

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import open_app
from mcp_ssh.config.models import Config
from tests.fleet.hosts import Host
from tests.support.machine import SOAK, login, number, processes, started, trust
from tests.support.servers import Http, Stdio, resident_kib, serve, stdio

MEBIBYTES = 200 if SOAK else 64


@pytest.fixture
async def home(mcp_home: Path, host: Host) -> Path:
    """A folder that knows the host's keys."""
    async with open_app(mcp_home, Config()) as app:
        await trust(app, host)
    return mcp_home


async def over_stdio(server: Stdio, host: Host, user: str = "root") -> str:
    return (await server.call("session_connect", login(host, user)))["session_id"]


async def over_http(server: Http, host: Host, user: str = "root") -> str:
    return (await server.call("POST", "/session/connect", json=login(host, user)))["session_id"]


@pytest.mark.requirement("exec.cancel.mcp")
async def test_mcp_cancellation_ends_the_command(home: Path, host: Host) -> None:
    async with stdio(home) as server:
        session_id = await over_stdio(server, host)
        n = number()
        arguments = {"session_id": session_id, "command": f"setsid sleep {n} & sleep {n}"}
        call = await server.send("tools/call", {"name": "command_exec", "arguments": arguments})
        await started(host, n)
        await server.send("notifications/cancelled", {"requestId": call}, notify=True)
        await gone(host, n)
        assert (await server.call("command_exec", {"session_id": session_id, "command": "echo ok"}))["stdout"] == "ok\n"


async def gone(host: Host, n: int) -> None:
    with anyio.fail_after(10):
        while await processes(host, n):
            await anyio.sleep(0.02)


@pytest.mark.requirement("exec.cancel.http")
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_closing_the_http_request_ends_the_command(home: Path, host: Host, method: str) -> None:
    async with serve(home) as server:
        session_id = await over_http(server, host)
        n = number()
        request: dict[str, Any] = {"params": {"session_id": session_id}}
        if method == "POST":
            path, request["json"] = "/command/exec", {"command": f"sleep {n}; sleep {n}"}
        else:
            path, request["params"]["cmd"] = "/command/run", f"sleep {n}; sleep {n}"
        async with anyio.create_task_group() as group:
            group.start_soon(functools.partial(server.client.request, method, path, **request))
            await started(host, n)
            group.cancel_scope.cancel()
        await gone(host, n)


@pytest.mark.requirement("exec.output.memory")
@pytest.mark.parametrize("door", ["stdio", "http"])
async def test_huge_output_costs_little_memory_and_few_bytes(home: Path, host: Host, door: str) -> None:
    flood = f"yes | head -c {MEBIBYTES * 1024 * 1024}"
    if door == "stdio":
        async with stdio(home) as server:
            session_id = await over_stdio(server, host)
            await server.call("command_exec", {"session_id": session_id, "command": "yes | head -c 1000000"})
            before = await server.resident_kib()
            arguments = {"session_id": session_id, "command": flood, "timeout": 110}
            answer = await server.call("command_exec", arguments)
            assert server.received < 70_000
            assert (await server.resident_kib() - before) / 1024 < 50
            after = await server.call("command_exec", {"session_id": session_id, "command": "echo next"})
    else:
        async with serve(home) as http:
            session_id = await over_http(http, host)
            where = {"session_id": session_id}
            await http.call("POST", "/command/exec", params=where, json={"command": "yes | head -c 3000000"})
            before = resident_kib(http.process.pid)
            body = {"command": flood, "timeout": 110}
            answer = await http.call("POST", "/command/exec", params=where, json=body)
            assert (resident_kib(http.process.pid) - before) / 1024 < 50
            after = await http.call("POST", "/command/exec", params=where, json={"command": "echo next"})
    assert (answer["truncated"], answer["stdout_bytes"]) == (True, MEBIBYTES * 1024 * 1024)
    assert after["stdout"] == "next\n"


@pytest.mark.requirement("server.exits", "server.stop")
@pytest.mark.parametrize("how", ["stdin closes", "SIGTERM", "SIGINT"])
async def test_the_stdio_server_ends_the_command_and_itself(home: Path, host: Host, how: str) -> None:
    async with stdio(home) as server:
        session_id = await over_stdio(server, host)
        n = number()
        arguments = {"session_id": session_id, "command": f"sleep {n}"}
        await server.send("tools/call", {"name": "command_exec", "arguments": arguments})
        await started(host, n)
        if how == "stdin closes":
            assert server.process.stdin
            await server.process.stdin.aclose()
        else:
            server.process.send_signal(signal.Signals[how])
        with anyio.fail_after(15):
            await server.process.wait()
        assert await processes(host, n) == []


PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "mcp_ssh", "stdio"], stdin=0, stdout=1)
print(child.pid, file=sys.stderr, flush=True)
child.wait()
"""


@pytest.mark.requirement("server.exits")
async def test_the_stdio_server_ends_when_its_parent_is_killed_although_its_stdin_stays_open(
    home: Path, host: Host
) -> None:
    environment = {**os.environ, "MCP_SSH_HOME": str(home)}
    argv = [sys.executable, "-c", PARENT]
    async with await anyio.open_process(argv, env=environment, stderr=subprocess.PIPE) as parent:
        assert parent.stderr
        child = int((await parent.stderr.receive()).split()[0])
        server = Stdio(parent)
        await server.shake_hands()
        session_id = await over_stdio(server, host)
        n = number()
        arguments = {"session_id": session_id, "command": f"sleep {n}"}
        await server.send("tools/call", {"name": "command_exec", "arguments": arguments})
        await started(host, n)
        parent.kill()
        with anyio.fail_after(15):
            while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
                await anyio.sleep(0.05)
        assert await processes(host, n) == []


@pytest.mark.requirement("server.stop")
async def test_the_http_server_ends_the_command_on_sigterm(home: Path, host: Host) -> None:
    async with serve(home) as server:
        session_id = await over_http(server, host)
        n = number()
        where = {"session_id": session_id}

        async def run() -> None:
            answer = await server.client.post("/command/exec", params=where, json={"command": f"sleep {n}"})
            assert answer.status_code == 503

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await started(host, n)
            server.process.send_signal(signal.SIGTERM)
        with anyio.fail_after(15):
            await anyio.to_thread.run_sync(server.process.wait)
        assert await processes(host, n) == []


@pytest.mark.requirement("http.open_bind")
async def test_a_bind_beyond_this_machine_is_refused(mcp_home: Path) -> None:
    argv = [sys.executable, "-m", "mcp_ssh", "serve", "--host", "0.0.0.0", "--port", "0"]
    environment = {**os.environ, "MCP_SSH_HOME": str(mcp_home)}
    done = await anyio.run_process(argv, env=environment, check=False)
    assert done.returncode != 0
    said = done.stderr.decode().splitlines()
    assert len([line for line in said if line.strip()]) == 1, said
    assert "behind" in said[0]
    assert "TLS" in said[0] or "tls" in said[0]
