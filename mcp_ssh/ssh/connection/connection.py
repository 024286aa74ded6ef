"""One SSH connection: its channels in order and in number, what runs on them, and how that is ended."""

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from mcp_ssh.errors import AuthFailed, ConnectFailed, TimedOut, ToolError
from mcp_ssh.ssh.connection.limits import FifoLimiter, Transport
from mcp_ssh.ssh.connection.warm_shells import WarmShells
from mcp_ssh.ssh.errors import connection_lost, no_commands, no_terminal
from mcp_ssh.ssh.exec.stop import CLOSE_LIMIT_S, NoRoom, Stopper, close_channel
from mcp_ssh.ssh.exec.stop_later import LaterStops
from mcp_ssh.ssh.wire.command import CommandEnvelope, ShellKind, expect_fits
from mcp_ssh.ssh.wire.kill import StopResult

if TYPE_CHECKING:
    import asyncssh

    from mcp_ssh.ssh.connection.channel import Channel

log = logging.getLogger(__name__)

WIDEN_AFTER_S = 1.0
"""How long a call waits for a place until another connection is made."""

LONG_WAIT_S = 0.5
"""The longest pause before a refused channel is asked for again; by then another connection is made, too."""

WIDEN_LIMIT_S = 20.0
"""How long making it may take."""

WIDEN_PAUSE_S = 10.0
"""After one that could not be made, how long it is until the next one."""

ANSWER_LIMIT_S = 3.0
"""How long a machine may take to say that it is there."""

FEW = 2
"""Channels of a connection that are too few to open one ahead of need."""

ENDLESS = 2**31
"""More than ever wait."""

MOST_STRANDS = 3
"""Most SSH transports of one connection."""

FULL = frozenset({2, 4})
"""Codes of a refused channel that mean "not now": SSH_OPEN_CONNECT_FAILED, which sshd sends at MaxSessions, and
SSH_OPEN_RESOURCE_SHORTAGE (RFC 4254, 5.1)."""

UNANSWERED_LIMIT = 3
"""How often a machine may close a channel without saying whether its command began."""

MOST_UNANSWERED = 256
"""Channels that a machine may be asked for without an answer; one that still sends keepalives is given up then."""

NO_TERMINAL = 0xFFFFFFFE
"""asyncssh's own code where the machine gave a channel, and refused it a terminal."""


@dataclass(frozen=True)
class Terminal:
    """A terminal for what runs on a channel (RFC 4254, 6.2). `linux` is what our screens draw."""

    columns: int
    rows: int
    kind: str = "linux"


class Connection:
    """The way to an account on a machine: a connection, more of them where many calls wait, and the channels on them.

    Calls take places, in the order they came, and no more at once than the machine gives channels. Ending a call takes
    one of two places of its own, so that it never waits behind what it is to end.

    Args:
        connection: The first SSH transport. The connection closes when this transport is lost.
        dial: Makes another one.
        gone: Called at the end, to see off what the connections went through.
        widens: Whether another one may be made for calls that wait: logging in once more must ask nobody anything.

    Attributes:
        users: Sessions that go over it.
        ended: Called when the last one has left.
        asks_nobody: Whether logging in once more takes no answer of a person.
        later: Ends calls once more whose end nobody saw.
    """

    def __init__(
        self,
        connection: "asyncssh.SSHClientConnection",
        dial: Callable[[], Awaitable["asyncssh.SSHClientConnection"]],
        gone: Callable[[], Awaitable[None]] | None = None,
        *,
        widens: bool = False,
    ) -> None:
        self.connection = connection
        self._dial = dial
        self._gone = gone
        self._widens = widens
        self.asks_nobody = widens
        self.users = 0
        self.ended: Callable[[], None] = lambda: None
        self.shell: ShellKind = "posix"
        self._strands = [Transport(connection)]
        self._turns = FifoLimiter(self._capacity)
        self._stopper = Stopper(self)
        self.later = LaterStops(self)
        self._channel_gone = anyio.Event()
        self._cleanups: set[asyncio.Future[Channel]] = set()
        self.spares = WarmShells(self._spare_channel, self.may_spare)
        self._asking: asyncio.Future[bool] | None = None
        self._widening: asyncio.Future[None] | None = None
        self._widens_after = -math.inf
        self._closed = False

    @property
    def alive(self) -> bool:
        """Whether the connection stands, as far as keepalives tell."""
        return not self.connection.is_closed()

    def _capacity(self) -> int:
        """How many calls may run at once. Where the connection is gone all may, so that those that wait are told."""
        return sum(each.for_calls for each in self._strands) if self.alive else ENDLESS

    def join(self) -> bool:
        """One session more goes over it, unless it is not there any more; each that did leaves."""
        if not self.alive or self._closed:
            return False
        self.users += 1
        return True

    async def dial_unshared(self) -> "Connection":
        """The same way once more, over a connection that nothing shares; the caller aborts it.

        Raises:
            ToolError: As connecting does.
        """
        link = Connection(await self._dial(), self._dial)
        link.shell = self.shell
        return link

    async def leave(self) -> int:
        """One session fewer; the last one ends the link. Returns how many calls may go on, as `close` does."""
        self.users -= 1
        return 0 if self.users else await self.close()

    async def answers(self) -> bool:
        """Whether the machine is there, which keepalives find out late. A channel that it refuses is a sign of it.

        A machine that does not answer is asked once, however often this is called.
        """
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._answers())
        asking = self._asking
        done, _ = await asyncio.wait([asking], timeout=ANSWER_LIMIT_S)
        return bool(done) and not asking.cancelled() and asking.result()

    async def _answers(self) -> bool:
        import asyncssh

        try:
            if self.shell == "forced":  # any channel would run that command
                # asyncssh has no public word for the request that its own keepalives send.
                connection: Any = self.connection
                await connection._make_global_request(b"keepalive@openssh.com")  # noqa: SLF001
            else:
                await close_channel(await self._on(self._strands[0], ":"))
        except asyncssh.ChannelOpenError:
            return self.alive
        except (asyncssh.Error, OSError):
            return False
        else:
            return self.alive
        finally:
            self._asking = None

    def may_spare(self) -> bool:
        """Whether a channel may be opened ahead of need: not the last one, and not where there are hardly any."""
        first = self._strands[0]
        return self.alive and first.limit > FEW and first.room > 1 and len(self.spares) < self._turns.free

    @property
    def may_keep(self) -> bool:
        """Whether a place may be held for long: one remains for calls, or another connection can be made for them."""
        return self._turns.free > 1 or (self._widens and len(self._strands) < MOST_STRANDS)

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncGenerator[None]:
        """Wait for a place among the channels, and hold it. A long wait opens another connection."""
        timer = asyncio.get_running_loop().call_later(WIDEN_AFTER_S, self._widen) if self._turns.full else None
        try:
            await self._turns.enter()
        finally:
            if timer is not None:
                timer.cancel()
        try:
            yield
        finally:
            self._turns.leave()
            self._narrow()

    def _widen(self) -> None:
        self._strands = [self._strands[0], *(each for each in self._strands[1:] if each.alive)]
        may = self._widens and not self._closed and self._widening is None and len(self._strands) < MOST_STRANDS
        if may and asyncio.get_running_loop().time() >= self._widens_after:
            self._widening = asyncio.ensure_future(self._add_transport())

    def _widen_again(self) -> None:
        if len(self._turns):
            self._widen()

    async def _add_transport(self) -> None:
        pause_s = WIDEN_AFTER_S
        try:
            with anyio.fail_after(WIDEN_LIMIT_S):
                connection = await self._dial()
            self._strands.append(Transport(connection))
        except (ToolError, TimeoutError, OSError) as error:
            # A machine that refuses one login more is not asked again; one that did not answer is, after a while.
            silent = isinstance(error, ConnectFailed | TimedOut | TimeoutError | OSError)
            self._widens = silent and not isinstance(error, AuthFailed)
            pause_s = WIDEN_PAUSE_S
            self._widens_after = asyncio.get_running_loop().time() + pause_s
            log.info("no other connection was made for calls that wait: %s", type(error).__name__)
        finally:
            self._widening = None
        self._turns.admit()
        asyncio.get_running_loop().call_later(pause_s, self._widen_again)  # of those that wait still

    def _narrow(self) -> None:
        """Close what was made for calls that waited, once nobody needs it."""
        if len(self._turns):
            return
        for each in [strand for strand in self._strands[1:] if not strand.held]:
            self._strands.remove(each)
            each.connection.close()

    async def open(
        self,
        text: str | None,
        subsystem: str | None = None,
        *,
        at_once: bool = False,
        terminal: Terminal | None = None,
        begun: Callable[["asyncio.Future[Channel]"], None] | None = None,
    ) -> "Channel":
        """Start a command, or a subsystem, on a channel of its own; the caller sets the deadline.

        sshd frees a place a moment after it closed a channel, so an open it refuses for want of one is repeated:
        nothing ran yet. An open that is cancelled half-way is closed as soon as it comes through.

        Args:
            text: The command; None where there is a subsystem, or for whatever the account's shell is.
            subsystem: Instead of a command.
            at_once: Do not wait for a channel to be closed where the machine is known to give no more.
            terminal: What it gets for standard input, output and error.
            begun: Is given each open that the machine was asked for. The caller then closes the channel of one that
                comes through after a cancellation.

        Raises:
            NoRoom: `at_once`, and there is none.
            ConnectFailed: The connection is gone.
            Unsupported: The account may not run commands, or gets no terminal.
            InvalidInput: The command is too long for the machine.
        """
        import asyncssh

        self.expect_fits(text or "")
        self.spares.leave(self._turns.free)
        wait_s, refused, closed = 0.01, None, 0
        while True:
            strand = self._roomiest()
            if at_once and strand.room < 1:
                raise NoRoom
            try:
                return await self._on(strand, text, subsystem, terminal, begun)
            except asyncssh.ChannelOpenError as error:
                self._try_later(strand, error)
            except (asyncssh.Error, OSError) as error:
                raise connection_lost() from error
            if refused is strand:
                strand.was_refused(closed)
            refused, closed = strand, strand.closed
            with anyio.move_on_after(wait_s):
                await self._channel_gone.wait()
            if wait_s >= LONG_WAIT_S:  # a shell may hold the only channel there is
                self._widen()
            wait_s = min(wait_s * 2, LONG_WAIT_S)

    def expect_fits(self, text: str) -> None:
        """Return where the machine can be sent the text.

        Raises:
            InvalidInput: It is too long.
        """
        expect_fits(text, self.connection.get_extra_info("server_version", ""))

    def _roomiest(self) -> Transport:
        if not self.alive:
            raise connection_lost()
        chosen = max((each for each in self._strands if each.alive), key=lambda each: each.room)
        if chosen.held - chosen.open >= MOST_UNANSWERED:
            chosen.connection.abort()
            raise connection_lost()
        return chosen

    async def _on(
        self,
        strand: Transport,
        text: str | None,
        subsystem: str | None = None,
        terminal: Terminal | None = None,
        begun: Callable[["asyncio.Future[Channel]"], None] | None = None,
    ) -> "Channel":
        opening: asyncio.Future[Channel] = asyncio.ensure_future(self._open_answered(strand, text, subsystem, terminal))
        if begun is not None:
            begun(opening)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if begun is None:
                self.close_when_open(opening)
            raise

    def _try_later(self, strand: Transport, refusal: "asyncssh.ChannelOpenError") -> None:
        """Return where a channel was refused for now; raise where it always will be."""
        if refusal.code not in FULL:
            raise (no_terminal() if refusal.code == NO_TERMINAL else no_commands()) from refusal
        if not self.alive:
            raise connection_lost() from refusal
        if len(self.spares) and strand.open <= FEW:
            self.spares.forbid()
        self.spares.leave(0)

    async def _spare_channel(self, text: str) -> "Channel | None":
        import asyncssh

        try:
            return await self._on(self._strands[0], text)
        except (asyncssh.Error, OSError):
            return None

    async def _open_answered(
        self, strand: Transport, text: str | None, subsystem: str | None, terminal: Terminal | None
    ) -> "Channel":
        from mcp_ssh.ssh.connection.channel import Unanswered

        for _ in range(UNANSWERED_LIMIT - 1):
            with contextlib.suppress(Unanswered):
                return await self._open_on(strand, text, subsystem, terminal)
        return await self._open_on(strand, text, subsystem, terminal)

    async def _open_on(
        self, strand: Transport, text: str | None, subsystem: str | None, terminal: Terminal | None
    ) -> "Channel":
        import asyncssh

        from mcp_ssh.ssh.connection.channel import Channel, Unanswered

        def made() -> Channel:
            strand.has_opened()
            return channel

        def gone() -> None:
            strand.has_closed()
            self._channel_gone.set()
            self._channel_gone = anyio.Event()

        channel = Channel(gone)
        strand.held += 1
        try:
            await strand.connection.create_session(
                made,
                text,
                subsystem=subsystem,
                encoding=None,
                term_type=terminal.kind if terminal else None,
                term_size=(terminal.columns, terminal.rows) if terminal else None,
            )
        except asyncssh.ChannelOpenError as error:
            if not channel.is_open:
                strand.held -= 1
                raise
            await asyncio.sleep(0)  # a close that has come is reported in asyncio's next turn
            if not channel.open:
                raise Unanswered(error.code, error.reason) from error
            raise
        except BaseException:
            if not channel.is_open:
                strand.held -= 1
            raise
        return channel

    def close_when_open(self, opening: "asyncio.Future[Channel]") -> None:
        """Close a channel as soon as it opens."""

        def close(done: "asyncio.Future[Channel]") -> None:
            self._cleanups.discard(done)
            if not done.cancelled() and done.exception() is None:
                done.result().close()

        self._cleanups.add(opening)
        opening.add_done_callback(close)

    async def stop(
        self, call: CommandEnvelope, pid: int | None, elapsed_s: float, *, entered: bool = True
    ) -> StopResult:
        """End every process of a call, wherever it stands; never raises, and ends within bounds.

        Args:
            call: The call.
            pid: Its login shell, where it said which process that is.
            elapsed_s: Seconds since it began.
            entered: Whether it got into the account it acts as; that account is then the first to look.
        """
        return await self._stopper.stop(call, pid, elapsed_s, entered=entered)

    async def close(self) -> int:
        """End the connection and what it goes through, with a good-bye where the other side still listens.

        Returns:
            How many calls may go on: nobody saw their end, and nobody will look for it any more.
        """
        self._closed = True
        self.ended()
        left = 0
        with anyio.CancelScope(shield=True):
            left = await self.later.close()
            await self.spares.close()
            for each in (self._asking, self._widening):
                if each is not None:
                    each.cancel()
                    await asyncio.wait([each])
            connections = [each.connection for each in self._strands]
            for each in connections:
                each.close()
            with anyio.move_on_after(CLOSE_LIMIT_S) as limit:
                for each in connections:
                    await each.wait_closed()
            if limit.cancelled_caught:
                for each in connections:
                    each.abort()
            if self._gone is not None:
                await self._gone()
        return left
