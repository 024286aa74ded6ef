"""When sessions end by themselves: idle ones after a while, and those opened by name where others need their place."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config, SshConfig
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import TooMany
from mcp_ssh.tool import AnyTool, Caller, Question, Role
from mcp_ssh.tools import REGISTRY, command, connection, session, shell, system, tunnel
from mcp_ssh.toolsets.meta_tools import TOOLS, MetaToolContext
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller
from tests.support.machine import connected, trust

IDLE_S = 1.0
CALL_MANY = TOOLS["tool_call_many"]


@dataclass
class Counting(DirectCall):
    """A call that notes how far it says it is."""

    heard: list[tuple[float, float | None]] = field(default_factory=list[tuple[float, float | None]])

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        self.heard.append((done, total))

    async def need(self, question: Question) -> Mapping[str, Any] | None:
        return None


def config(**ssh: Any) -> Config:
    return Config(ssh=SshConfig.model_validate(ssh))


async def saved(app: App, host: Host, who: DirectCall, *names: str) -> None:
    for name in names:
        given = {"name": name, "host": host.ip, "username": "ops", "password": host.password}
        await dispatch(app, connection.add, given, who)


async def outlives_others(app: App, host: Host, kept: str, who: DirectCall) -> None:
    """See that a session stands while three others, one opened after the other's end, are closed for being idle."""
    silent = DirectCall(Caller("local", Role.ADMIN))
    for _ in range(3):
        await connected(app, host, "dev", silent)
        await gone(app, silent)
        assert [each.id for each in app.sessions.own(who.caller)] == [kept]


@pytest.fixture
async def short(mcp_home: Path, deb: Host) -> Any:
    async with open_app(mcp_home, config(idle_minutes=IDLE_S / 60)) as app:
        await trust(app, deb)
        yield app


@pytest.fixture
async def remote(short: App) -> DirectCall:
    """A caller over HTTP."""
    token, _ = await short.store.tokens.create("remote", Role.ADMIN)
    return DirectCall(Caller(token.id, Role.ADMIN))


async def gone(app: App, who: DirectCall) -> None:
    with anyio.fail_after(30):
        while app.sessions.own(who.caller):
            await anyio.sleep(0.05)


@pytest.mark.requirement("fault.C7")
async def test_a_shell_whose_program_prints_keeps_its_session(short: App, deb: Host, remote: DirectCall) -> None:
    """The negative control: once the program has ended, the same session ends."""
    kept = await connected(short, deb, "dev", remote)
    on = {"session_id": kept}
    await dispatch(short, shell.open_shell, on, remote)
    # What it prints has no end of its own; a file ends it.
    prints = "rm -f /tmp/quiet; while [ ! -e /tmp/quiet ]; do echo x; sleep 0.2; done"
    await dispatch(short, shell.send, {**on, "command": prints}, remote)
    await outlives_others(short, deb, kept, remote)
    deb.console(["touch", "/tmp/quiet"])
    await gone(short, remote)


@pytest.mark.requirement("fault.C7")
@pytest.mark.parametrize("direction", ["local", "remote"])
async def test_a_tunnel_with_traffic_keeps_its_session(
    short: App, deb: Host, remote: DirectCall, direction: str
) -> None:
    """The negative control: the connection through it stays open, and once nothing goes through the session ends."""
    owner = DirectCall(caller())
    kept = await connected(short, deb, "dev", remote)
    other = await connected(short, deb, "ops", owner)  # the owner's does not end by itself
    watched, helping = ((kept, remote), (other, owner))
    stop = anyio.Event()

    async def echo(stream: Any) -> None:
        async with stream:
            async for data in stream:
                await stream.send(data)

    async def opened(tool: AnyTool, whose: tuple[str, DirectCall], **given: Any) -> int:
        return (await dispatch(short, tool, {"session_id": whose[0], **given}, whose[1])).port

    async def talk(port: int) -> None:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            while not stop.is_set():
                await stream.send(b"x")
                assert await stream.receive() == b"x"
                await anyio.sleep(0.2)
            await gone(short, remote)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as here, anyio.create_task_group() as group:
        group.start_soon(here.serve, echo)
        port = int(here.extra_attributes[anyio.abc.SocketAttribute.local_port]())
        # Through the machine and back to here: one of the two tunnels is on the session that is watched.
        back = await opened(
            tunnel.remote, watched if direction == "remote" else helping, remote_port=0, local_port=port
        )
        way = helping if direction == "remote" else watched
        through = await opened(tunnel.local, way, local_port=0, remote_host="127.0.0.1", remote_port=back)
        group.start_soon(talk, through)
        await outlives_others(short, deb, kept, remote)
        stop.set()
        await gone(short, remote)
        group.cancel_scope.cancel()


@pytest.mark.requirement("fault.N5")
async def test_a_session_opened_by_name_ends_when_idle_also_for_the_owner(short: App, deb: Host) -> None:
    """The negative control: one that the owner opened with session_connect stays."""
    owner = DirectCall(caller())
    await saved(short, deb, owner, "web1")
    kept = await connected(short, deb, "dev", owner)
    await dispatch(short, command.run_command, {"session_id": "web1", "command": "true"}, owner)
    assert len(short.sessions.own(owner.caller)) == 2
    with anyio.fail_after(30):
        while len(short.sessions.own(owner.caller)) > 1:
            await anyio.sleep(0.05)
    assert [each.id for each in short.sessions.own(owner.caller)] == [kept]
    again = await dispatch(short, command.run_command, {"session_id": "web1", "command": "echo again"}, owner)
    assert again.stdout == "again\n"


@pytest.mark.requirement("fault.N5")
async def test_one_call_reaches_more_machines_than_sessions_may_be_open(mcp_home: Path, deb: Host) -> None:
    names = [f"web{number}" for number in range(24)]
    who = Counting(caller())
    async with open_app(mcp_home, config(max_concurrent_connections=3)) as app:
        await trust(app, deb)
        await saved(app, deb, who, *names)
        call = {"name": "command_exec", "sessions": names, "arguments": {"command": "echo done"}, "at_once": 16}
        done = await CALL_MANY(MetaToolContext(app, REGISTRY), CALL_MANY.params.model_validate(call), who)
        assert (done.succeeded, done.failed) == (len(names), 0), done
        assert len(app.sessions.own(who.caller)) == 3
        assert who.heard == [(number, len(names)) for number in range(1, len(names) + 1)]


@pytest.mark.requirement("fault.N5")
async def test_at_the_limit_the_least_recently_used_name_gives_way_and_nothing_that_is_needed(
    mcp_home: Path, deb: Host
) -> None:
    who = DirectCall(caller())
    async with open_app(mcp_home, config(max_concurrent_connections=3)) as app:
        await trust(app, deb)
        await saved(app, deb, who, "a", "b", "c", "d", "e")

        async def use(name: str) -> None:
            await dispatch(app, command.run_command, {"session_id": name, "command": "true"}, who)

        def open_names() -> set[str | None]:
            return {each.alias for each in app.sessions.own(who.caller)}

        for name in ("a", "b", "c", "a", "d"):
            await use(name)
        assert open_names() == {"a", "c", "d"}
        # A shell, a tunnel and a variable are of use to somebody; a call that runs is, too.
        await dispatch(app, shell.open_shell, {"session_id": "a"}, who)
        leads = {"local_port": 0, "remote_host": "127.0.0.1", "remote_port": 22}
        await dispatch(app, tunnel.local, {"session_id": "c", **leads}, who)
        for name in ("d", "e", "b"):
            await use(name)
        assert open_names() == {"a", "c", "b"}
        await dispatch(app, system.env_set, {"session_id": "b", "name": "KEEP", "value": "it"}, who)
        with pytest.raises(TooMany, match="max_concurrent_connections"):
            await use("d")
        assert open_names() == {"a", "b", "c"}
        await dispatch(app, tunnel.close_all, {"session_id": "c"}, who)
        async with anyio.create_task_group() as group:
            run = {"session_id": "c", "command": "touch /tmp/begun; while [ ! -e /tmp/go ]; do sleep 0.05; done"}
            deb.console(["rm", "-f", "/tmp/go", "/tmp/begun"])
            group.start_soon(dispatch, app, command.run_command, run, who)
            with anyio.fail_after(20):
                while deb.console(["test", "-e", "/tmp/begun"]).returncode:
                    await anyio.sleep(0.05)
            with pytest.raises(TooMany):
                await use("d")
            deb.console(["touch", "/tmp/go"])
        await use("d")
        assert open_names() == {"a", "b", "d"}


@pytest.mark.requirement("fault.N5")
async def test_sessions_opened_with_session_connect_never_give_way(mcp_home: Path, deb: Host) -> None:
    who = DirectCall(caller())
    async with open_app(mcp_home, config(max_concurrent_connections=2)) as app:
        await saved(app, deb, who, "a")
        ids = [await connected(app, deb, "dev", who) for _ in range(2)]
        with pytest.raises(TooMany):
            await dispatch(app, command.run_command, {"session_id": "a", "command": "true"}, who)
        assert [each.id for each in app.sessions.own(who.caller)] == ids
        await dispatch(app, session.disconnect, {"session_id": ids[0]}, who)
        await dispatch(app, command.run_command, {"session_id": "a", "command": "true"}, who)


@pytest.mark.requirement("fault.N5")
async def test_a_thousand_names_are_taken_and_by_default_256_sessions(app: App) -> None:
    names = [f"web{number}" for number in range(1001)]
    assert Config().ssh.max_concurrent_connections == 256
    call = {"name": "system_uptime", "arguments": {}}
    reach, who = MetaToolContext(app, REGISTRY), Counting(caller())
    done = await CALL_MANY(reach, CALL_MANY.params.model_validate({**call, "sessions": names[:1000]}), who)
    assert (done.succeeded, done.failed) == (0, 1000)
    assert who.heard[-1] == (1000, 1000)
    assert all(one < other for one, other in itertools.pairwise(each for each, _ in who.heard))
    with pytest.raises(ValueError, match="1000"):
        CALL_MANY.params.model_validate({**call, "sessions": names})
