"""Running one command on a connection within a deadline, with its output bounded and its end certain."""

import contextlib
from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import anyio

from mcp_ssh.errors import NotFound
from mcp_ssh.ssh.connection.connection import Connection
from mcp_ssh.ssh.errors import connection_lost, unknown_whether_run
from mcp_ssh.ssh.exec.capture import Capture
from mcp_ssh.ssh.exec.stream import BLOCK, SentCommand, on_channel
from mcp_ssh.ssh.wire.command import CommandEnvelope
from mcp_ssh.ssh.wire.kill import StopResult

if TYPE_CHECKING:
    from mcp_ssh.ssh.connection.channel import Channel


@dataclass(frozen=True)
class CommandResult:
    """How a command ended.

    Attributes:
        status: `completed`, or `timed_out` where the deadline came first.
        exit_code: The shell's; 128 + n where signal n ended it; None where it timed out.
        signal: Name of the signal that ended it, without SIG.
        duration_s: From the request to the end.
        stopped: For a command that timed out, what became of its processes.
        sent: Whether the machine was sent the command; where it was not, it did not run.
    """

    status: Literal["completed", "timed_out"]
    exit_code: int | None
    signal: str | None
    duration_s: float
    stopped: StopResult | None
    sent: bool = True


Stdin = bytes | AsyncIterable[bytes] | None
"""What a command gets for standard input: all of it, or what comes while the command runs."""


class CommandRun:
    """One command on its channel."""

    def __init__(self, link: Connection, call: CommandEnvelope, stdout: Capture, stderr: Capture) -> None:
        self._link = link
        self._call = call
        self._stdout = stdout
        self._stderr = stderr
        self._started = SentCommand(call)

    async def run(self, stdin: Stdin, timeout_s: float) -> CommandResult:
        """Open, run, read, and where the deadline or a cancellation comes first, end what runs.

        Raises:
            ConnectFailed: The connection is gone; the command may still be running.
            NotFound: The working folder does not exist.
            PermissionDenied: The account it was to run as may not be acted as.
            TimedOut: The deadline came before that account's shell.
        """
        began = anyio.current_time()
        try:
            with anyio.CancelScope(deadline=began + timeout_s) as scope:
                async with self._link.place():
                    await self._send(stdin, began)
            duration_s = anyio.current_time() - began
            await self._settle()
            return self._timed_out(duration_s) if scope.cancelled_caught else self._result(duration_s)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._stdout.discard()
                await self._stderr.discard()
            raise
        finally:
            if self._call.line is not None:
                self._link.spares.refill_soon()

    async def _send(self, stdin: Stdin, began: float) -> None:
        """Hand the command to a warm shell; where there is none, or it ended first, open a channel for it."""
        self._link.expect_fits(self._call.text)  # a warm shell takes longer ones, but there is not always one
        if self._call.line is not None and (warm_shell := self._link.spares.take()) is not None:
            self._started = SentCommand(self._call, warm_shell)
            await self._on_channel(stdin, began)
            if not self._started.never_ran:
                return
            await self._stdout.restart()
            await self._stderr.restart()
            self._started = SentCommand(self._call)
        await self._on_channel(stdin, began)

    async def _on_channel(self, stdin: Stdin, began: float) -> None:
        async with on_channel(self._link, self._started, self._drain, began) as channel:
            await self._pump(channel, stdin)
            self._started.finished = True

    async def _pump(self, channel: "Channel", stdin: Stdin) -> None:
        try:
            async with anyio.create_task_group() as feeding:
                feeding.start_soon(self._write, channel, stdin)
                async with anyio.create_task_group() as group:
                    group.start_soon(self._read_errors, channel)
                    await self._read(channel)
                await channel.wait_closed()
                feeding.cancel_scope.cancel()
        except ExceptionGroup as errors:
            raise _first(errors) from errors

    async def _write(self, channel: "Channel", stdin: Stdin) -> None:
        # A command need not read what it is given; that it closed its side is not an error.
        with contextlib.suppress(OSError):
            if not await self._started.entry.wait_ready(channel):
                return
            given = stdin if isinstance(stdin, bytes) else b""
            await _write_blocks(channel, self._started.call.stdin + given)
            if stdin is not None and not isinstance(stdin, bytes):
                async for chunk in stdin:
                    await _write_blocks(channel, chunk)
            channel.write_eof()

    async def _read(self, channel: "Channel") -> None:
        while chunk := await channel.read():
            await self._stdout.feed(self._started.output(chunk))
        await self._stdout.feed(self._started.end_output())

    async def _read_errors(self, channel: "Channel") -> None:
        from mcp_ssh.ssh.connection.channel import STDERR

        while chunk := await channel.read(STDERR):
            await self._stderr.feed(self._started.errors(chunk))

    async def _drain(self, channel: "Channel") -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._read, channel)
            group.start_soon(self._read_errors, channel)

    async def _settle(self) -> None:
        await self._stderr.feed(self._started.entry.err(self._started.start_line.rest()))
        await self._stdout.finish()
        await self._stderr.finish()

    def _timed_out(self, duration_s: float) -> CommandResult:
        started = self._started
        if started.channel is not None and not started.entry.began:
            raise started.entry.too_late(duration_s, started.stopped.as_field())
        return CommandResult("timed_out", None, None, duration_s, started.stopped, started.sent)

    def _says_no_folder(self) -> bool:
        """Whether the working folder could not be entered: on standard output where an rc file sent errors there."""
        return any(self._started.call.no_folder in each.whole() for each in (self._stderr, self._stdout))

    def _result(self, duration_s: float) -> CommandResult:
        channel = self._started.channel
        assert channel is not None  # noqa: S101 a completed command had a channel
        if not channel.exited:
            raise connection_lost() if self._started.start_line.pid else unknown_whether_run()
        if not self._started.entry.began:
            raise self._started.entry.refusal()
        if channel.exit_status == 1 and self._says_no_folder():
            raise NotFound("the working folder does not exist or may not be entered", hint="check `cwd` with file_stat")
        if channel.exit_signal is not None:
            return CommandResult(
                "completed", 128 + _signal_number(channel.exit_signal), channel.exit_signal, duration_s, None
            )
        return CommandResult("completed", channel.exit_status, None, duration_s, None)


async def _write_blocks(channel: "Channel", data: bytes) -> None:
    for start in range(0, len(data), BLOCK):
        await channel.write(data[start : start + BLOCK])


def _first(errors: BaseException) -> BaseException:
    while isinstance(errors, BaseExceptionGroup):
        errors = cast("BaseExceptionGroup[BaseException]", errors).exceptions[0]
    return errors


def _signal_number(name: str) -> int:
    """The number of a signal that RFC 4254, 6.10 names; 0 for one that Linux has not."""
    import signal

    return int(getattr(signal, f"SIG{name}", 0))
