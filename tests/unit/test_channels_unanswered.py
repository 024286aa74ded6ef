"""A machine that closes a channel before it said whether the command began: Dropbear, now and then."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

import anyio
import asyncssh
import pytest

from mcp_ssh.errors import ConnectFailed, Unsupported
from mcp_ssh.ssh.link import MOST_UNANSWERED, UNANSWERED_LIMIT, Link

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
async def linked(host: asyncssh.SSHServer) -> AsyncGenerator[Link]:
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.listen("127.0.0.1", 0, server_factory=lambda: host, server_host_keys=[key])
    async with server:
        at = {"port": server.get_port(), "known_hosts": None, "username": "dev", "client_keys": None, "config": None}

        async def dial() -> asyncssh.SSHClientConnection:
            return await asyncssh.connect("127.0.0.1", **at)

        async with await dial() as connection:
            yield Link(connection, dial)


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
