"""What makes connections quick, looked at where it can be seen: sockets, algorithms, imports, round trips."""

import asyncio
import base64
import functools
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.ssh.auth import private_keys
from mcp_ssh.ssh.dial.algorithms import KEX
from mcp_ssh.tools import command
from mcp_ssh.tools.file import content, transfer
from rest_bridge.server import listen
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall
from tests.support.machine import connected, number, outside

BUILT = """
from mcp_ssh.toolsets import ToolsetSelection
from mcp_ssh.tools import REGISTRY
listed = ToolsetSelection().tools(REGISTRY).values()
schemas = [(each.input_schema, each.output_schema) for each in listed]
ours = {model for each in listed for model in (each.params, each.result)}
rest = {model for each in REGISTRY.values() for model in (each.params, each.result)} - ours
print(len(rest) > 100, [model for model in rest if model.__pydantic_complete__])
"""
LOADED = "import sys; print([name for name in ('asyncssh', 'rest_bridge') if name in sys.modules])"


@pytest.mark.requirement("speed.kex", "speed.socket")
async def test_a_connection_is_made_with_the_algorithms_that_cost_least(
    app: App, owner: DirectCall, host: Host
) -> None:
    await connected(app, host, "dev", owner)
    connection = app.sessions.find(owner.caller, None).link.connection
    assert connection.get_extra_info("send_cipher") == connection.get_extra_info("recv_cipher")
    assert connection.get_extra_info("send_cipher") == "aes128-gcm@openssh.com"
    assert not any("group-exchange" in each for each in KEX)
    ours: socket.socket = connection.get_extra_info("socket")
    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.requirement("speed.socket")
async def test_http_connections_do_not_wait_to_fill_a_packet() -> None:
    come: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    (bound,) = await listen("127.0.0.1", 0, open_to_all=False)
    async with await asyncio.start_server(lambda _, writer: come.put_nowait(writer), sock=bound):
        _, near = await asyncio.open_connection(*bound.getsockname())
        accepted = await come.get()
        assert accepted.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        near.close()
        accepted.close()


@pytest.mark.requirement("speed.start")
async def test_what_a_server_needs_for_its_list_of_tools_does_not_import_the_ssh_library() -> None:
    imported = "import mcp_ssh.cli.commands.stdio, mcp_ssh.mcp_server, mcp_ssh.app, mcp_ssh.tools as t; "
    schemas = "[(each.input_schema, each.output_schema) for each in t.REGISTRY.values()]; "
    said = await anyio.run_process([sys.executable, "-c", imported + schemas + LOADED])
    assert said.stdout.strip() == b"[]"


@pytest.mark.requirement("speed.models")
async def test_a_list_of_tools_builds_the_models_of_these_tools_and_no_others() -> None:
    said = await anyio.run_process([sys.executable, "-c", BUILT])
    assert said.stdout.strip() == b"True []"


@pytest.mark.requirement("speed.keys")
async def test_a_key_file_is_parsed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key"
    made = functools.partial(anyio.run_process)
    await made(["ssh-keygen", "-q", "-t", "rsa", "-b", "3072", "-N", "", "-f", str(key)])
    parsed: list[int] = []
    parse = private_keys.parse
    monkeypatch.setattr(private_keys, "parse", lambda *given, **more: (parsed.append(1), parse(*given, **more))[1])
    first = await private_keys.from_path(str(key), None)
    assert await private_keys.from_path(str(key), None) is first
    assert len(parsed) == 1
    key.unlink()
    await made(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
    assert (await private_keys.from_path(str(key), None)).get_algorithm() == "ssh-ed25519"
    assert len(parsed) == 2


ONE_WAY_MS = 60.0


async def trips(step: Callable[[], Awaitable[Any]]) -> int:
    """Round trips of a call, on a link so slow that nothing else counts; the least of three."""
    spent: list[float] = []
    for _ in range(3):
        began = time.perf_counter()
        await step()
        spent.append(time.perf_counter() - began)
    return round(min(spent) * 1000 / (2 * ONE_WAY_MS))


@pytest.mark.requirement("speed.round_trips")
async def test_a_small_file_takes_no_more_round_trips_than_a_command(app: App, owner: DirectCall, deb: Host) -> None:
    mark = number()
    await connected(app, deb, "dev", owner)
    await outside(deb, f"echo {mark} > /home/dev/few", "dev")

    async def exec_() -> Any:
        return await dispatch(app, command.run_command, {"command": "true"}, owner)

    async def read() -> Any:
        return await dispatch(app, content.read, {"path": "~/few"}, owner)

    async def fetched() -> Any:
        return await dispatch(app, transfer.download, {"remote_path": "~/few", "return_content": True}, owner)

    try:
        await anyio.to_thread.run_sync(deb.delay, ONE_WAY_MS)
        least = await trips(exec_)
        assert least <= 2
        assert await trips(read) <= least
        assert await trips(fetched) <= 2
    finally:
        await anyio.to_thread.run_sync(deb.clear)
    assert base64.b64decode((await fetched()).content) == f"{mark}\n".encode()
