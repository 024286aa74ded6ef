"""Tunnels lead where they say, both ways, carry every byte, and end when they should."""

import asyncio
import contextlib
import functools
import hashlib
import os
import subprocess

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import Refused
from mcp_ssh.tool import Role
from mcp_ssh.tools import session, tunnel
from tests.fleet.hosts import Host
from tests.support.doors import Direct, DirectCall, Fault, Way, caller
from tests.support.machine import SOAK, connected, opened, outside

SIZE = (256 if SOAK else 8) * 1024 * 1024


def through(host: Host, port: int, command: str) -> list[str]:
    """The system's ssh to the host, by a port of ours that leads there."""
    *options, _, _, account = host.ssh_argv("dev")
    return [*options, "-o", f"HostKeyAlias={host.ip}", "-p", str(port), account.replace(host.ip, "127.0.0.1"), command]


async def hears(address: str, port: int) -> bytes:
    with anyio.fail_after(10):
        async with await anyio.connect_tcp(address, port) as stream:
            return await stream.receive(4)


async def refuses(address: str, port: int) -> bool:
    try:
        async with await anyio.connect_tcp(address, port):
            return False
    except OSError:
        return True


@pytest.mark.requirement("tunnel.local", "tunnel.list", "tunnel.close")
async def test_a_local_port_leads_through_the_machine_by_every_door(way: Way, app: App, host: Host) -> None:
    on = await opened(way, app, host)
    made = await way.call(tunnel.local, {**on, "local_port": 0, "remote_host": "127.0.0.1", "remote_port": 22})
    assert (made["status"], made["type"], made["bind_address"]) == ("active", "local", "127.0.0.1")
    assert made["tunnel_id"].startswith("local_")
    assert await hears("127.0.0.1", made["port"]) == b"SSH-"
    listed = await way.call(tunnel.list_tunnels, on)
    assert listed["count"] == 1
    shown = listed["tunnels"][made["tunnel_id"]]
    assert (shown["local_port"], shown["remote_host"], shown["remote_port"]) == (made["port"], "127.0.0.1", 22)
    assert await way.call(tunnel.close, {**on, "tunnel_id": made["tunnel_id"]}) == {
        "status": "closed", "tunnel_id": made["tunnel_id"],
    }  # fmt: skip
    assert await refuses("127.0.0.1", made["port"])
    with pytest.raises(Fault) as gone:
        await way.call(tunnel.close, {**on, "tunnel_id": made["tunnel_id"]})
    assert gone.value.status in {None, 404}
    assert (await way.call(tunnel.close_all, on))["count"] == 0


@pytest.mark.requirement("tunnel.local")
async def test_every_byte_arrives_both_ways_at_once(app: App, deb: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, deb)
    made = await way.call(tunnel.local, {**on, "local_port": 0, "remote_host": deb.ip6, "remote_port": 22})
    data = os.urandom(SIZE)
    run = functools.partial(
        subprocess.run, through(deb, made["port"], "cat"), input=data, capture_output=True, timeout=300, check=True
    )
    came = (await anyio.to_thread.run_sync(run)).stdout
    assert hashlib.sha256(came).digest() == hashlib.sha256(data).digest()


@pytest.mark.requirement("tunnel.local")
async def test_ipv6_is_listened_on(app: App, deb: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, deb)
    made = await way.call(
        tunnel.local,
        {**on, "local_port": 0, "remote_host": "::1", "remote_port": 22, "bind_address": "::1"},
    )
    assert await hears("::1", made["port"]) == b"SSH-"
    assert await refuses("127.0.0.1", made["port"])


@pytest.mark.requirement("tunnel.remote")
async def test_a_port_of_the_machine_leads_back_here(way: Way, app: App, host: Host) -> None:
    on = await opened(way, app, host)

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello " + await reader.readline())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        made = await way.call(tunnel.remote, {**on, "remote_port": 0, "local_port": port})
        assert (made["type"], made["port"] > 0) == ("remote", True)
        asks = (
            f"echo host | nc 127.0.0.1 {made['port']}"
            if host.name == "alpine"
            else f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{made['port']}; echo host >&3; cat <&3'"
        )
        assert await outside(host, asks) == "hello host\n"
        assert (await way.call(tunnel.close_all, on))["count"] == 1
    script = f"grep -c ':{made['port']:04X} .* 0A ' /proc/net/tcp || true"
    assert (await outside(host, script)).strip() == "0"


@pytest.mark.requirement("tunnel.refused")
async def test_what_cannot_be_bound_is_refused_in_clear_words(way: Way, app: App, deb: Host) -> None:
    on = await opened(way, app, deb)
    there = {"remote_host": "127.0.0.1", "remote_port": 22}
    taken = await way.call(tunnel.local, {**on, **there, "local_port": 0})
    for wrong, status, word in (
        ({"local_port": taken["port"]}, 409, "taken"),
        ({"local_port": 0, "bind_address": "192.0.2.1"}, 400, "bind_address"),
        ({"local_port": 0, "bind_address": "2\u00f2\u0093"}, 400, "bind_address"),
        ({"local_port": 70000}, 400, "local_port"),
        ({"local_port": 0, "remote_port": 0}, 400, "remote_port"),
    ):
        with pytest.raises(Fault) as refused:
            await way.call(tunnel.local, {**on, **there, **wrong})
        assert refused.value.status in {None, status}
        assert word in str(refused.value)
    with pytest.raises(Fault) as refused:
        await way.call(tunnel.remote, {**on, "remote_port": 22, "local_port": 22})
    assert refused.value.status in {None, 409}
    assert (await way.call(tunnel.list_tunnels, on))["count"] == 1


@pytest.mark.requirement("tunnel.refused")
async def test_operators_listen_on_this_machine_alone_and_open_nothing_of_it(app: App, deb: Host) -> None:
    operator = DirectCall(caller("token", Role.OPERATOR, owner=False))
    on = {"session_id": await _session_of(app, deb, operator)}
    there = {**on, "local_port": 0, "remote_host": "127.0.0.1", "remote_port": 22}
    with pytest.raises(Refused):
        await dispatch(app, tunnel.local, {**there, "bind_address": "0.0.0.0"}, operator)
    with pytest.raises(Refused):
        await dispatch(app, tunnel.remote, {**on, "remote_port": 0, "local_port": 22}, operator)
    assert await dispatch(app, tunnel.local, {**there, "bind_address": "localhost"}, operator)


async def _session_of(app: App, host: Host, call: DirectCall) -> str:
    await connected(app, host, "dev", DirectCall(caller()))
    login = {"host": host.ip, "username": "dev", "password": host.password}
    return (await dispatch(app, session.connect, login, call)).session_id


@pytest.mark.requirement("tunnel.close")
async def test_tunnels_end_with_their_session(app: App, deb: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, deb)
    made = await way.call(tunnel.local, {**on, "local_port": 0, "remote_host": "127.0.0.1", "remote_port": 22})
    await way.call(session.disconnect, on)
    assert await refuses("127.0.0.1", made["port"])


@pytest.mark.requirement("tunnel.close")
@pytest.mark.parametrize("ends", ["tunnel", "session"])
async def test_connections_through_a_tunnel_end_with_it_and_with_its_session(app: App, deb: Host, ends: str) -> None:
    way = Direct(app)
    on, beside = await opened(way, app, deb), await opened(way, app, deb)
    # The connection to the machine stays, so it is not what ends them.
    assert len({app.sessions.find(caller(), each["session_id"]).link for each in (on, beside)}) == 1
    came, heard = anyio.Event(), list[str]()
    asks = "exec 3<>/dev/tcp/127.0.0.1/{}; head -c 5 <&3; echo here >&3; cat <&3"

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await reader.readline()
        came.set()
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        out = await way.call(tunnel.local, {**on, "local_port": 0, "remote_host": "127.0.0.1", "remote_port": 22})
        back = await way.call(tunnel.remote, {**on, "remote_port": 0, "local_port": port})

        async def ask() -> None:
            heard.append(await outside(deb, f"bash -c '{asks.format(back['port'])}'"))

        with anyio.fail_after(20):
            async with await anyio.connect_tcp("127.0.0.1", out["port"]) as stream, anyio.create_task_group() as group:
                assert await stream.receive(4) == b"SSH-"
                group.start_soon(ask)
                await came.wait()
                await way.call(*((tunnel.close_all, on) if ends == "tunnel" else (session.disconnect, on)))
                with pytest.raises(anyio.EndOfStream):
                    while True:
                        await stream.receive()
    assert heard == ["hello"]
    assert app.sessions.find(caller(), beside["session_id"]).connected


@pytest.mark.requirement("tunnel.list")
async def test_a_tunnel_whose_link_is_gone_says_so(app: App, deb: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, deb)
    made = await way.call(tunnel.local, {**on, "local_port": 0, "remote_host": "127.0.0.1", "remote_port": 22})
    ended = app.sessions.find(caller(), on["session_id"]).link.connection
    await outside(deb, "pkill -KILL -u dev sshd")
    with anyio.fail_after(10):
        await ended.wait_closed()
    shown = (await way.call(tunnel.list_tunnels, on))["tunnels"][made["tunnel_id"]]
    assert (shown["status"], "lost" in shown["reason"]) == ("failed", True)
    assert (await way.call(tunnel.close_all, on))["count"] == 1
