"""A machine that closes a channel before it said whether the command began: Dropbear, now and then."""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Callable

import anyio
import asyncssh
import pytest
from pydantic import SecretStr

from mcp_ssh.errors import ConnectFailed, Unsupported
from mcp_ssh.ssh.connection import connection as link_module
from mcp_ssh.ssh.connection.connection import MOST_UNANSWERED, UNANSWERED_LIMIT, Connection
from mcp_ssh.ssh.exec import stop_later
from mcp_ssh.ssh.exec.stop import close_channel
from mcp_ssh.ssh.exec.stop_later import UnfinishedCall
from mcp_ssh.ssh.wire.become import BecomeTarget
from mcp_ssh.ssh.wire.command import build_envelope

pytestmark = pytest.mark.anyio


class _Host(asyncssh.SSHServer):
    """Hangs up on the first channels in the way it is told; notes the commands that began."""

    def __init__(self, hang_up: "Callable[[asyncssh.SSHServerChannel[bytes]], object]", times: int) -> None:
        self.hang_up, self.times = hang_up, times
        self.opened = 0
        self.began: list[str] = []

    def begin_auth(self, username: str) -> bool:
        return False

    def session_requested(self) -> "asyncssh.SSHServerSession[bytes]":
        return _Channel(self)


class _Channel(asyncssh.SSHServerSession[bytes]):
    def __init__(self, host: _Host) -> None:
        self.host = host

    def connection_made(self, chan: "asyncssh.SSHServerChannel[bytes]") -> None:
        self.chan = chan
        self.host.opened += 1
        if self.host.opened <= self.host.times:
            self.host.hang_up(chan)

    def exec_requested(self, command: str) -> bool:
        self.host.began.append(command)
        return True

    def session_started(self) -> None:
        self.chan.exit(0)


@contextlib.asynccontextmanager
async def linked(host: asyncssh.SSHServer) -> AsyncGenerator[Connection]:
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.listen("127.0.0.1", 0, server_factory=lambda: host, server_host_keys=[key])
    async with server:
        at = {"port": server.get_port(), "known_hosts": None, "username": "dev", "client_keys": None, "config": None}

        async def dial() -> asyncssh.SSHClientConnection:
            return await asyncssh.connect("127.0.0.1", **at)

        async with await dial() as connection:
            yield Connection(connection, dial)


async def test_a_command_whose_channel_is_closed_unanswered_is_sent_again_and_runs_once() -> None:
    host = _Host(lambda chan: chan.close(), UNANSWERED_LIMIT - 1)
    async with linked(host) as link:
        channel = await link.open("one")
        assert (host.opened, host.began) == (UNANSWERED_LIMIT, ["one"])
        await channel.wait_closed()
        assert channel.exit_status == 0


async def test_a_machine_that_never_answers_is_not_asked_without_end() -> None:
    host = _Host(lambda chan: chan.close(), 1000)
    async with linked(host) as link:
        with pytest.raises(Unsupported):
            await link.open("one")
        assert (host.opened, host.began) == (UNANSWERED_LIMIT, [])


async def test_a_command_whose_connection_ended_unanswered_is_not_sent_again() -> None:
    host = _Host(lambda chan: chan.get_connection().abort(), 1)
    async with linked(host) as link:
        with pytest.raises(ConnectFailed):
            await link.open("one")
        assert host.opened == 1


class _SilentHost(asyncssh.SSHServer):
    """Lets everybody in, and answers no request for a channel."""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.connection = conn

    def begin_auth(self, username: str) -> bool:
        return False

    def session_requested(self) -> object:
        async def session() -> None:
            await asyncio.get_running_loop().create_future()

        return self.connection.create_server_channel(), session()


async def test_a_machine_that_answers_no_request_for_a_channel_is_given_up() -> None:
    async with linked(_SilentHost()) as link:
        for _ in range(MOST_UNANSWERED):
            with anyio.move_on_after(0.001):
                await link.open("true")
        with pytest.raises(ConnectFailed):
            await link.open("true")
        with anyio.fail_after(5):
            await link.connection.wait_closed()
        assert not link.alive


async def test_a_machine_that_is_silent_is_asked_once_whether_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "ANSWER_LIMIT_S", 0.05)
    async with linked(_SilentHost()) as link:
        for _ in range(3):
            assert not await link.answers()
        assert link._strands[0].held == 1
        await link.close()
        assert link._asking is None


@pytest.mark.requirement("fault.C5")
async def test_what_is_ended_later_is_found_by_its_cookie_and_not_by_a_process_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By then the id of its shell may be another process's."""
    monkeypatch.setattr(stop_later, "FIRST_PAUSE_S", 0.01)
    async with linked(host := _Host(repr, 0)) as link:
        call = build_envelope("sleep 1", shell=link.shell)
        channel = await link.open("true")
        await close_channel(channel)
        link.later.add(UnfinishedCall(call, entered=True, channel=channel))
        half = len(call.cookie) // 2
        with anyio.fail_after(10):
            while not (swept := [each for each in host.began if call.cookie[:half] in each]):
                await anyio.sleep(0.01)
        assert re.search(rf"{call.cookie[half:]}'? '?0'? '?0'?$", swept[0])
        assert len(link.later) == 1  # this host says nothing, so it is tried again
        await link.close()
        assert len(link.later) == 0
        assert link.later._task is None
        link.later.add(UnfinishedCall(call, entered=True, channel=channel))
        assert len(link.later) == 0


@pytest.mark.requirement("fault.C5")
async def test_what_cannot_be_ended_is_given_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_later, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(stop_later, "LIMIT_S", 0.2)
    async with linked(_Host(repr, 0)) as link:
        channel = await link.open("true")
        link.later.add(UnfinishedCall(build_envelope("sleep 1", shell=link.shell), entered=True, channel=channel))
        with anyio.fail_after(20):
            while len(link.later):
                await anyio.sleep(0.01)
        await link.close()


@pytest.mark.requirement("fault.C5")
async def test_what_is_ended_later_is_bounded_and_keeps_no_command() -> None:
    async with linked(_Host(repr, 0)) as link:
        channel = await link.open("true")
        for number in range(stop_later.MOST + 3):
            call = build_envelope(f"echo {number} {'x' * 1000}", shell=link.shell, env={"A": "b" * 1000})
            link.later.add(UnfinishedCall(call, entered=True, channel=channel))
        kept = link.later._unended
        assert len(kept) == stop_later.MOST
        assert call.cookie == kept[-1].call.cookie  # the oldest gave way
        assert [each for each in kept if each.call.text or each.call.stdin or each.call.line] == []
        await link.close()


@pytest.mark.requirement("fault.C5")
async def test_what_is_left_now_does_not_wait_for_what_cannot_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_later, "FIRST_PAUSE_S", 0.01)
    async with linked(host := _Host(repr, 0)) as link:
        channel = await link.open("true")
        await close_channel(channel)
        old = UnfinishedCall(build_envelope("sleep 1", shell=link.shell), entered=True, channel=channel)
        link.later.add(old)
        with anyio.fail_after(10):
            while old.pause_s <= 0.01:
                await anyio.sleep(0.01)
        old.due = anyio.current_time() + 600
        fresh = build_envelope("sleep 2", shell=link.shell)
        link.later.add(UnfinishedCall(fresh, entered=True, channel=channel))
        half = len(fresh.cookie) // 2
        with anyio.fail_after(10):
            while not [each for each in host.began if fresh.cookie[:half] in each]:
                await anyio.sleep(0.01)
        assert await link.close() == 2


@pytest.mark.requirement("fault.C5")
async def test_a_password_is_sent_once_to_end_a_call_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_later, "FIRST_PAUSE_S", 0.01)
    async with linked(host := _Host(repr, 0)) as link:
        channel = await link.open("true")
        await close_channel(channel)
        acting = BecomeTarget("root", "sudo", SecretStr("s3cret"))
        unended = UnfinishedCall(
            build_envelope("sleep 1", shell=link.shell, acting=acting), entered=True, channel=channel
        )
        link.later.add(unended)
        with anyio.fail_after(20):
            while unended.pause_s < 0.1:
                await anyio.sleep(0.01)
        asking = [each for each in host.began if "sudo -k -S" in each]
        assert len(asking) == 1
        assert len(host.began) > 3
        await link.close()
