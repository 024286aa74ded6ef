"""A command on its channel until its end is certain, and commands of our own that are spoken with while they run."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import anyio

from mcp_ssh.errors import RemoteFailed
from mcp_ssh.shell_command import Command
from mcp_ssh.ssh.connection.connection import Connection
from mcp_ssh.ssh.connection.warm_shells import WarmShell
from mcp_ssh.ssh.errors import connection_lost
from mcp_ssh.ssh.exec.stop import close_channel
from mcp_ssh.ssh.exec.stop_later import UnfinishedCall
from mcp_ssh.ssh.running_calls import record
from mcp_ssh.ssh.wire.become import BecomeHandshake, BecomeTarget
from mcp_ssh.ssh.wire.command import CommandEnvelope, StartLine, build_envelope
from mcp_ssh.ssh.wire.kill import StopResult

if TYPE_CHECKING:
    from mcp_ssh.linux.framing import PathQuery, ScriptAnswer
    from mcp_ssh.ssh.connection.channel import Channel

log = logging.getLogger(__name__)

BLOCK = 256 * 1024
DRAIN_S = 1.0
"""After a call's processes ended, how long their last output is waited for."""
BEGIN_S = 2.0
"""After its deadline, how long a command that was sent is waited for to begin, so that its processes can be found."""
STDERR_LIMIT = 64 * 1024
ANSWER_LIMIT = 1024 * 1024


class SentCommand:
    """A command that was sent.

    `finished` is set by the code that saw its end; `stopped` says what became of one that had to be ended.

    Args:
        call: The command.
        warm_shell: The shell that waits for it, where there is one.
    """

    def __init__(self, call: CommandEnvelope, warm_shell: WarmShell | None = None) -> None:
        self.call = call if warm_shell is None else call.handed_to(warm_shell.cookie)
        self.start_line = StartLine(self.call.start_line, expected=self.call.marked)
        self.entry = BecomeHandshake(call.acting, self.call.cookie)
        self.warm_shell = warm_shell
        self.channel: Channel | None = warm_shell.channel if warm_shell else None
        self.finished = False
        self.stopped = StopResult(ended=True)
        self.begun = anyio.Event()
        """Set once the shell said which process it is, or nothing more can come."""
        self._opening: asyncio.Future[Channel] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of its shell, where that is known."""
        return self.warm_shell.pid if self.warm_shell else self.start_line.pid

    @property
    def sent(self) -> bool:
        """Whether the machine was sent the command, so that it may run."""
        return self.channel is not None or self._opening is not None

    async def open(self, link: Connection) -> "Channel":
        """Send the command on a channel of its own."""
        self.channel = await link.open(self.call.text, begun=self._has_begun)
        self._opening = None
        return self.channel

    def _has_begun(self, opening: "asyncio.Future[Channel]") -> None:
        self._opening = opening

    async def arrive(self) -> None:
        """Wait for the channel that was asked for before its caller gave up; a refusal leaves none."""
        if self._opening is None:
            return
        await asyncio.wait([self._opening])
        if not self._opening.cancelled() and self._opening.exception() is None:
            self.channel = self._opening.result()
        self._opening = None

    def leave(self, link: Connection) -> None:
        """Have its processes ended as soon as they can be, where nobody saw their end."""
        channel = self._opening or self.channel
        if self._opening is not None:
            link.close_when_open(self._opening)
        if channel is not None:
            link.later.add(UnfinishedCall(self.call, self.entry.began, channel))

    @property
    def never_ran(self) -> bool:
        """Whether its shell, of which there is no more to come, ended before it began with the command."""
        channel = self.channel
        return self.warm_shell is not None and channel is not None and channel.exited and self.start_line.pid is None

    def output(self, chunk: bytes) -> bytes:
        """What of these bytes of standard output is the command's."""
        return self.entry.out(self.start_line.feed_out(chunk))

    def end_output(self) -> bytes:
        """What of standard output was held back until its end."""
        held = self.entry.out(self.start_line.rest_out()) + self.entry.rest_out()
        self.entry.end()
        return held

    def errors(self, chunk: bytes) -> bytes:
        """What of these bytes of standard error is the command's."""
        passed = self.start_line.feed(chunk)
        if self.pid is not None:
            self.begun.set()
        return self.entry.err(passed)


@contextlib.asynccontextmanager
async def on_channel(
    link: Connection, started: SentCommand, drain: Callable[["Channel"], Awaitable[None]], began: float
) -> AsyncGenerator["Channel"]:
    """A command's channel: its warm shell's, or a new one. Unless its end was seen, leaving ends its processes.

    Args:
        link: The connection; the caller holds a place on it.
        started: The command; learns what becomes of it.
        drain: Takes in what the command still said when it was ended.
        began: When the call began, on anyio's clock.
    """
    try:
        if started.channel is None:
            await started.open(link)
        assert started.channel is not None  # noqa: S101 it is a warm shell's, or has just been opened
        yield started.channel
    finally:
        if not started.finished:
            started.stopped = await _end(link, started, drain, anyio.current_time() - began)
            record(started.stopped)
        if started.channel is not None:
            await close_channel(started.channel)
        if not started.stopped.ended:
            started.leave(link)


async def _end(
    link: Connection, started: SentCommand, drain: Callable[["Channel"], Awaitable[None]], elapsed_s: float
) -> StopResult:
    """End the command's processes, and take in the output they still had."""
    if not started.sent:
        return StopResult(ended=True)
    if not link.alive:
        return StopResult(ended=None)
    seen = False
    with anyio.CancelScope(shield=True):
        with anyio.move_on_after(BEGIN_S):
            await started.arrive()
        if started.channel is None:
            # Without a channel the command can still begin once the machine answers, unless it refused.
            return StopResult(ended=None) if started.sent else StopResult(ended=True)
        if not started.entry.began:
            # Neither the login account nor root can be sure to end a sudo that waits for a password: the end of input
            # does.
            with contextlib.suppress(OSError):
                started.channel.write_eof()
        seen = await _end_begun(link, started, drain, elapsed_s)
    if started.stopped.ended and not seen:
        # A shell that never showed itself can still begin: that the sweep saw nothing proves nothing.
        started.stopped = StopResult(ended=None)
    log.info("a command was ended before its time; its processes ended: %s", started.stopped.as_field())
    return started.stopped


async def _end_begun(
    link: Connection, started: SentCommand, drain: Callable[["Channel"], Awaitable[None]], elapsed_s: float
) -> bool:
    """End the processes of a command that has a channel.

    Returns:
        Whether its shell said which process it is before they were looked for, or its channel told of its end.
    """
    assert started.channel is not None  # noqa: S101 the caller saw it
    seen = False
    async with anyio.create_task_group() as group:
        group.start_soon(_drain, drain, started)
        if started.pid is None and link.shell != "forced":
            with anyio.move_on_after(BEGIN_S):
                await started.begun.wait()
        seen = started.pid is not None
        started.stopped = await link.stop(started.call, started.pid, elapsed_s, entered=started.entry.began)
        group.cancel_scope.deadline = anyio.current_time() + DRAIN_S
        if not seen:
            await started.channel.wait_closed()
    return seen or started.channel.exited


async def _drain(drain: Callable[["Channel"], Awaitable[None]], started: SentCommand) -> None:
    try:
        with contextlib.suppress(Exception):
            assert started.channel is not None  # noqa: S101 the caller saw it
            await drain(started.channel)
    finally:
        started.begun.set()


class RemoteProcess:
    """A command of our own, as the one who speaks with it sees it."""

    def __init__(self, channel: "Channel", started: SentCommand) -> None:
        self._channel = channel
        self._started = started
        self._ahead = bytearray()
        self._errors = bytearray()
        self._errors_ended = anyio.Event()

    async def read(self) -> bytes:
        """What came since; waits for some, and gives none at the end."""
        if self._ahead:
            taken = bytes(self._ahead)
            self._ahead.clear()
            return taken
        while chunk := await self._channel.read():
            if passed := self._started.output(chunk):
                return passed
        return self._started.end_output()

    async def enter(self) -> None:
        """Become the account the command runs as; nothing to do where that is the login account.

        Raises:
            ToolError: Why that could not be.
        """
        entry = self._started.entry
        admitted = False
        if entry.began:
            return
        async with anyio.create_task_group() as group:
            group.start_soon(self._read_ahead)
            with contextlib.suppress(OSError):
                admitted = await entry.wait_ready(self._channel)
            if admitted:
                group.cancel_scope.cancel()
        if not admitted:
            await self._errors_ended.wait()
            raise entry.refusal()

    async def _read_ahead(self) -> None:
        self._ahead += await self.read()

    async def write(self, data: bytes) -> bool:
        """Send to standard input, in blocks; waits while the other side takes no more. False where it never will."""
        try:
            for start in range(0, len(data), BLOCK):
                await self._channel.write(data[start : start + BLOCK])
        except OSError:
            return False
        return True

    def end_input(self) -> None:
        """Close standard input."""
        with contextlib.suppress(OSError):
            self._channel.write_eof()

    async def answer(self, asked: "PathQuery") -> "ScriptAnswer":
        """The script's next answer; what follows it is read later.

        Raises:
            ToolError: What the answer means where the machine could not do as asked.
            ConnectFailed: The connection was lost before there was one.
        """
        held = bytearray()
        while held.count(asked.mark) < 4 and (chunk := await self.read()):
            held += chunk
            if len(held) > ANSWER_LIMIT:
                raise RemoteFailed("the machine's shell answers with something else than was asked")
        if held.count(asked.mark) < 4 and self._is_lost:
            raise connection_lost()
        parts = bytes(held).split(asked.mark, 4)
        if len(parts) == 5:
            self._ahead += parts.pop()
            parts.append(b"")
        return asked.answer(asked.mark.join(parts), bytes(self._errors))

    @property
    def _is_lost(self) -> bool:
        return not self._channel.exited

    async def finish(self) -> tuple[int | None, bytes]:
        """Wait for the end: the exit code, None where a signal ended it, and what was said on standard error.

        Raises:
            ConnectFailed: The connection was lost first.
        """
        while await self._channel.read():
            pass
        await self._errors_ended.wait()
        await self._channel.wait_closed()
        if self._is_lost:
            raise connection_lost()
        self._started.finished = True
        return self._channel.exit_status, bytes(self._errors)

    async def take_errors(self) -> None:
        """Read standard error to its end, and keep its beginning."""
        from mcp_ssh.ssh.connection.channel import STDERR

        while chunk := await self._channel.read(STDERR):
            passed = self._started.errors(chunk)
            self._errors += passed[: STDERR_LIMIT - len(self._errors)]
        self._errors += self._started.entry.err(self._started.start_line.rest())
        self._errors_ended.set()


@contextlib.asynccontextmanager
async def streaming(
    link: Connection, command: Command, acting: BecomeTarget | None = None
) -> AsyncGenerator[RemoteProcess]:
    """Start a command of our own, to be spoken with while it runs.

    Left before `RemoteProcess.finish`, by an error, a cancellation or a deadline of the caller's, it is ended with all
    its processes.

    Args:
        link: The connection.
        command: What runs.
        acting: The account it runs as, where that is not the login account: the session's `acting`.

    Raises:
        PermissionDenied: The other account may not be acted as.
        ConnectFailed: The connection is gone.
        Unsupported: The account may not run commands.
    """
    if not link.alive:
        raise connection_lost()
    began = anyio.current_time()
    started = SentCommand(build_envelope(command.line(), shell=link.shell, acting=acting, ours=True))
    try:
        async with link.place(), on_channel(link, started, partial(_drop, started), began) as channel:
            stream = RemoteProcess(channel, started)
            async with anyio.create_task_group() as group:
                group.start_soon(stream.take_errors)
                await stream.enter()
                if command.stdin is not None:
                    await stream.write(command.stdin)
                yield stream
                group.cancel_scope.cancel()
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors


async def _drop(started: SentCommand, channel: "Channel") -> None:
    """Read what comes, for the start line alone."""
    async with anyio.create_task_group() as group:
        group.start_soon(_drop_errors, started, channel)
        while await channel.read():
            pass


async def _drop_errors(started: SentCommand, channel: "Channel") -> None:
    from mcp_ssh.ssh.connection.channel import STDERR

    while chunk := await channel.read(STDERR):
        started.errors(chunk)
