"""`ssh-steward stdio` with a command running on a machine: however the server ends, the command ends first."""

import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.to_thread import run_sync

from mcp_ssh.ssh.demo.host import DemoHost, demo_host
from tests.support.json_lines import Lines, call, ended, parented

END_S = 12.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
async def host() -> AsyncIterator[DemoHost]:
    async with demo_host() as running:
        yield running


def answer(client: Lines, number: int, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    client.write(call(number, tool, arguments))
    found = client.read()
    assert found["id"] == number
    return json.loads(found["result"]["content"][0]["text"])


def run_for_ever(client: Lines, host: DemoHost) -> list[int]:
    """Log in and start a command that ignores TERM, with a child in a session of its own; returns the pids of both.

    The host ends a command with its channel, but not such a child: only who looks for it does.
    """
    login = {"host": host.host, "port": host.port, "username": host.username, "password": host.password}
    key = answer(client, 2, "session_connect", login)["details"]["host_key"]
    wanted = ("host", "port", "key_type", "public_key", "fingerprint_sha256")
    answer(client, 3, "hostkey_accept", {name: key[name] for name in wanted} | {"confirm": True})
    session = answer(client, 4, "session_connect", login)["session_id"]
    pids = host.home / "pids"
    command = (
        "trap '' TERM; setsid sh -c 'echo $$ > child; exec sleep 1000' & "
        "until [ -s child ]; do sleep 0.02; done; echo $$ $(cat child) > pids.new; mv pids.new pids; wait; sleep 1000"
    )
    client.write(call(5, "command_exec", {"session_id": session, "command": command, "timeout": 600}))
    client.until(pids.exists)
    return [int(each) for each in pids.read_text().split()]


@pytest.mark.parametrize("how", ["end of input", "SIGTERM", "SIGINT"])
async def test_the_remote_command_is_ended_before_the_server(tmp_path: Path, host: DemoHost, how: str) -> None:
    def scenario() -> list[int]:
        env = {"MCP_SSH_HOME": str(tmp_path / "state"), "HOME": str(tmp_path)}
        client = Lines(tmp_path, [sys.executable, "-m", "mcp_ssh", "stdio"], env)
        try:
            client.hello()
            pids = run_for_ever(client, host)
            if how == "end of input":
                assert client.process.stdin
                client.process.stdin.close()
            else:
                client.process.send_signal(getattr(signal, how))
            assert client.ended(END_S) == 0
        finally:
            client.close()
        return pids

    with anyio.fail_after(60):
        pids = await run_sync(scenario)
    assert len(pids) == 2
    assert [pid for pid in pids if not ended(pid, 0.1)] == []


async def test_the_remote_command_is_ended_when_the_servers_parent_is_killed(tmp_path: Path, host: DemoHost) -> None:
    def scenario() -> list[int]:
        env = {"MCP_SSH_HOME": str(tmp_path / "state"), "HOME": str(tmp_path)}
        client, server = parented(tmp_path, "main", ["-m", "mcp_ssh", "stdio"], env)
        try:
            pids = run_for_ever(client, host)
            client.process.kill()
            assert ended(server, END_S)
        finally:
            client.close()
        return pids

    with anyio.fail_after(60):
        pids = await run_sync(scenario)
    assert len(pids) == 2
    assert [pid for pid in pids if not ended(pid, 0.1)] == []
