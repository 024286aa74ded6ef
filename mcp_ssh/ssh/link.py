"""One SSH connection: its channels in order and in number, what runs on them, and how that is ended."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

from mcp_ssh.commandline import Command
from mcp_ssh.errors import ConnectFailed, Unsupported
from mcp_ssh.ssh.become import Acting, Entry
from mcp_ssh.ssh.kill import Stopped, look, parse, sweep
from mcp_ssh.ssh.spare import Spares
from mcp_ssh.ssh.wire import Shell, Wire, wire

if TYPE_CHECKING:
    import asyncssh

    from mcp_ssh.ssh.channel import Channel

log = logging.getLogger(__name__)

CHANNELS = 8
"""Commands at once on one connection: sshd's MaxSessions is 10 (sshd_config(5)), and ending one takes a channel too."""

FULL = frozenset({2, 4})
"""Codes of a refused channel that mean "not now": SSH_OPEN_CONNECT_FAILED, which sshd sends at MaxSessions, and
SSH_OPEN_RESOURCE_SHORTAGE (RFC 4254, 5.1)."""

STOP_LIMIT_S = 6.0
"""The longest that ending a call's processes may take."""

CLOSE_LIMIT_S = 2.0
"""The longest a channel is waited for after it was told to close."""


class Link:
    """A connection and the channels on it.

    Commands take one of `CHANNELS` places, in the order they came. Ending a command takes one of two places of its own,
    so that it never waits behind what it is to end.
    """

    def __init__(
        self,
        connection: "asyncssh.SSHClientConnection",
        dial: Callable[[], Awaitable["asyncssh.SSHClientConnection"]],
        gone: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.connection = connection
        self._dial = dial
        self._gone = gone
        self.shell: Shell = "posix"
        self._places = anyio.Semaphore(CHANNELS)
        self._stop_places = anyio.Semaphore(2)
        self._cleanups: set[asyncio.Future[Channel]] = set()
        self.spares = Spares(self._spare_channel, self.may_spare)

    @property
    def alive(self) -> bool:
        """Whether the connection stands, as far as keepalives tell."""
        return not self.connection.is_closed()

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncGenerator[None]:
        """Wait for a place among the connection's channels, and hold it."""
        async with self._places:
            yield

    def may_spare(self) -> bool:
        """Whether one more channel, ahead of need, leaves enough for calls and for ending them."""
        return self.alive and len(self.spares) < self._places.value

    async def open(self, text: str | None, subsystem: str | None = None) -> "Channel":
        """Start a command, or a subsystem, on a channel of its own; the caller sets the deadline.

        sshd frees a place a moment after it closed a channel, so an open it refuses for want of one is repeated:
        nothing ran yet. An open that is cancelled half-way is closed as soon as it comes through.

        Raises:
            ConnectFailed: The connection is gone.
            Unsupported: The account may not run commands.
        """
        import asyncssh

        self.spares.leave(self._places.value)
        wait_s = 0.01
        while True:
            if not self.alive:
                raise lost()
            try:
                return await self._attempt(text, subsystem)
            except asyncssh.ChannelOpenError as error:
                self._try_later(error)
            except (asyncssh.Error, OSError) as error:
                raise lost() from error
            await anyio.sleep(wait_s)
            wait_s = min(wait_s * 2, 0.5)

    async def _attempt(self, text: str | None, subsystem: str | None = None) -> "Channel":
        opening = asyncio.ensure_future(self._opened(text, subsystem))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._close_when_open(opening)
            raise

    def _try_later(self, refusal: "asyncssh.ChannelOpenError") -> None:
        """Return where a channel was refused for now; raise where it always will be."""
        if refusal.code not in FULL:
            raise no_commands() from refusal
        if not self.alive:
            raise lost() from refusal
        if len(self.spares):
            self.spares.forbid()

    async def _spare_channel(self, text: str) -> "Channel | None":
        import asyncssh

        try:
            return await self._attempt(text)
        except (asyncssh.Error, OSError):
            return None

    async def _opened(self, text: str | None, subsystem: str | None) -> "Channel":
        from mcp_ssh.ssh.channel import Channel

        channel = Channel()
        await self.connection.create_session(lambda: channel, text, subsystem=subsystem, encoding=None)
        return channel

    def _close_when_open(self, opening: "asyncio.Future[Channel]") -> None:
        def close(done: "asyncio.Future[Channel]") -> None:
            self._cleanups.discard(done)
            if not done.cancelled() and done.exception() is None:
                done.result().close()

        self._cleanups.add(opening)
        opening.add_done_callback(close)

    async def stop(self, call: Wire, pid: int | None, elapsed_s: float, *, entered: bool = True) -> Stopped:
        """End every process of a call, wherever it stands; never raises, and never takes over `STOP_LIMIT_S`.

        Where this connection cannot give one more channel (MaxSessions 1), a connection of its own is made for it.

        Args:
            call: The call.
            pid: Its login shell, where it said which process that is.
            elapsed_s: Seconds since it began.
            entered: Whether it got into the account it acts as; that account is then the first to look.
        """
        command = sweep(call.cookie, pid, elapsed_s)
        acting = call.acting if entered else None
        stopped = Stopped(ended=None)
        with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_LIMIT_S):
            try:
                async with self._stop_places:
                    with anyio.move_on_after(STOP_LIMIT_S / 2):
                        return await self._stopped(self, command, acting)
                    return await self._stopped_aside(command, acting)
            except Exception as error:  # noqa: BLE001 whatever went wrong, the answer is that nobody knows
                log.warning("the processes of a call could not be ended: %s", type(error).__name__)
        return stopped

    async def _stopped(self, link: "Link", command: Command, acting: Acting | None) -> Stopped:
        if acting is None:
            return await self._swept(link, command, None)
        first = await self._swept(link, command, acting)
        if first.ended:
            return first
        # sudo and su themselves belong to neither account; with luck the login account may end them.
        second = await self._swept(link, command, None)
        if not second.ended:
            return second
        # What has left its parents is seen by its own account only: that the login account sees nothing proves nothing,
        # but for the processes that the other account named.
        return await self._swept(link, look(first.survivors), None) if first.survivors else first

    async def _swept(self, link: "Link", command: Command, acting: Acting | None) -> Stopped:
        prepared = wire(command.line(), shell=self.shell, acting=acting, ours=True)
        entry = Entry(acting, prepared.cookie)
        channel = await link.open(prepared.text)
        try:
            said = b""
            async with anyio.create_task_group() as group:
                group.start_soon(_let_in, channel, entry)
                group.start_soon(_hear, channel, entry)
                while chunk := await channel.read():
                    said = (said + entry.out(chunk))[-4096:]
                entry.end()
            return parse(said)
        finally:
            await close_channel(channel)

    async def _stopped_aside(self, command: Command, acting: Acting | None) -> Stopped:
        connection = await self._dial()
        try:
            aside = Link(connection, self._dial)
            return await self._stopped(aside, command, acting)
        finally:
            connection.abort()

    async def close(self) -> None:
        """End the connection and what it goes through, with a good-bye where the other side still listens."""
        with anyio.CancelScope(shield=True):
            await self.spares.close()
            self.connection.close()
            with anyio.move_on_after(CLOSE_LIMIT_S) as limit:
                await self.connection.wait_closed()
            if limit.cancelled_caught:
                self.connection.abort()
            if self._gone is not None:
                await self._gone()


async def _let_in(channel: "Channel", entry: Entry) -> None:
    # That the other side took no more is seen in what it did not say.
    with contextlib.suppress(OSError):
        if await entry.admitted(channel):
            channel.write_eof()


async def _hear(channel: "Channel", entry: Entry) -> None:
    from mcp_ssh.ssh.channel import STDERR

    while chunk := await channel.read(STDERR):
        entry.err(chunk)


async def close_channel(channel: "Channel") -> None:
    """Close a channel and wait, within bounds, until it is gone; cancellation does not leave it open."""
    with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_LIMIT_S):
        channel.close()
        await channel.wait_closed()


def lost() -> ConnectFailed:
    """The error of a connection that is gone."""
    return ConnectFailed(
        "the connection to the machine is lost",
        hint="open a new session with session_connect; a command that was running may still run: look before repeating",
    )


def unknown_whether_run() -> ConnectFailed:
    """The error of a connection that was gone before the machine said that it began with the command."""
    return ConnectFailed(
        "the connection to the machine was lost as the command was handed over; whether it ran is unknown",
        hint="open a new session with session_connect, and look at the machine before repeating",
        details={"ran": "unknown"},
    )


def no_commands() -> Unsupported:
    """The error of an account that may not run commands."""
    return Unsupported(
        "this account may not run commands: the machine refused the request",
        hint="log in with an account that has a shell",
    )
