"""Ending the processes of calls over a second channel: calls that end at the same time share one sweep."""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from mcp_ssh.shell_command import Command
from mcp_ssh.ssh.wire.become import BecomeHandshake, BecomeTarget
from mcp_ssh.ssh.wire.command import CommandEnvelope, build_envelope
from mcp_ssh.ssh.wire.kill import MOST_TOGETHER, KillTarget, StopResult, look, parse, sweep

if TYPE_CHECKING:
    from mcp_ssh.ssh.connection.channel import Channel
    from mcp_ssh.ssh.connection.connection import Connection

log = logging.getLogger(__name__)

SWEEP_LIMIT_S = 6.0
"""The longest that one sweep may take, from when it has its slot."""

STOP_LIMIT_S = 11.0
"""The longest that ending a call's processes may take, the wait for a sweep under way included."""

CLOSE_LIMIT_S = 2.0
"""The longest a channel is waited for after it was told to close."""

ANSWER_BYTES = 64 * 1024


class NoRoom(Exception):
    """The machine gives no channel more, as far as is known."""


@dataclass(eq=False)
class _Ending:
    """A call that is to end, and what became of it."""

    target: KillTarget
    acting: BecomeTarget | None
    stopped: StopResult = field(default_factory=lambda: StopResult(ended=None))
    done: anyio.Event = field(default_factory=anyio.Event)


class Stopper:
    """Ends calls of one link.

    Two sweeps run at a time, on slots of their own, so that ending a call never waits behind what it is to end. A sweep
    that begins takes all calls with it that wait for one as the same account.

    Args:
        link: The connection.
    """

    def __init__(self, link: "Connection") -> None:
        self._link = link
        self._slots = anyio.Semaphore(2)
        self._waiting: list[_Ending] = []

    async def stop(self, call: CommandEnvelope, pid: int | None, elapsed_s: float, *, entered: bool) -> StopResult:
        """End every process of a call: see `Connection.stop`."""
        if not call.marked or not self._link.alive:  # nothing would be found, which proves nothing
            return StopResult(ended=None)
        ending = _Ending(KillTarget(call.cookie, pid, elapsed_s), call.acting if entered else None)
        self._waiting.append(ending)
        with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_LIMIT_S):
            async with self._slots:
                if ending in self._waiting:
                    await self._sweep_together(self._take(ending.acting))
            await ending.done.wait()
        if ending in self._waiting:
            self._waiting.remove(ending)
        return ending.stopped

    def _take(self, acting: BecomeTarget | None) -> list[_Ending]:
        taken = [each for each in self._waiting if each.acting == acting][:MOST_TOGETHER]
        self._waiting = [each for each in self._waiting if each not in taken]
        return taken

    async def _sweep_together(self, endings: Sequence[_Ending]) -> None:
        try:
            with anyio.CancelScope(shield=True), anyio.move_on_after(SWEEP_LIMIT_S):
                told = await self._sweep(endings)
                for ending, stopped in zip(endings, told, strict=True):
                    ending.stopped = stopped
        except Exception as error:  # noqa: BLE001 whatever went wrong, the answer is that nobody knows
            log.warning("the processes of a call could not be ended: %s", type(error).__name__)
        finally:
            for ending in endings:
                ending.done.set()

    async def _sweep(self, endings: Sequence[_Ending]) -> list[StopResult]:
        """Sweep over this connection; where it has no channel for that (MaxSessions 1), over another one."""
        targets, acting = [each.target for each in endings], endings[0].acting
        with anyio.move_on_after(SWEEP_LIMIT_S / 2), contextlib.suppress(NoRoom):
            return await _sweep_as(self._link, targets, acting)
        if not self._link.alive:  # nobody is logged in again after a connection was closed
            return [StopResult(ended=None)] * len(endings)
        aside = await self._link.dial_unshared()
        try:
            return await _sweep_as(aside, targets, acting)
        finally:
            aside.connection.abort()


async def _sweep_as(link: "Connection", targets: Sequence[KillTarget], acting: BecomeTarget | None) -> list[StopResult]:
    first = await _run(link, sweep(*targets), acting, len(targets))
    left = [index for index, each in enumerate(first) if not each.ended]
    if acting is None or not left:
        return first
    # sudo and su themselves belong to neither account; with luck the login account may end them.
    second = await _run(link, sweep(*(targets[index] for index in left)), None, len(left))
    told = list(first)
    for index, stopped in zip(left, second, strict=True):
        if not stopped.ended:
            told[index] = stopped
        elif survivors := first[index].survivors:
            # What has left its parents is seen by its own account only: that the login account sees nothing proves
            # nothing, but for the processes that the other account named.
            told[index] = (await _run(link, look(survivors), None, 1))[0]
    return told


async def _run(link: "Connection", command: Command, acting: BecomeTarget | None, calls: int) -> list[StopResult]:
    prepared = build_envelope(command.line(), shell=link.shell, acting=acting, ours=True)
    entry = BecomeHandshake(acting, prepared.cookie)
    channel = await link.open(prepared.text, at_once=True)
    try:
        said = b""
        async with anyio.create_task_group() as group:
            group.start_soon(_let_in, channel, entry)
            group.start_soon(_hear, channel, entry)
            while chunk := await channel.read():
                said = (said + entry.out(chunk))[-ANSWER_BYTES:]
            entry.end()
        return parse(said, calls)
    finally:
        await close_channel(channel)


async def _let_in(channel: "Channel", entry: BecomeHandshake) -> None:
    # That the other side took no more is seen in what it did not say.
    with contextlib.suppress(OSError):
        if await entry.wait_ready(channel):
            channel.write_eof()


async def _hear(channel: "Channel", entry: BecomeHandshake) -> None:
    from mcp_ssh.ssh.connection.channel import STDERR

    while chunk := await channel.read(STDERR):
        entry.err(chunk)


async def close_channel(channel: "Channel") -> None:
    """Close a channel and wait, within bounds, until it is gone; cancellation does not leave it open."""
    if channel.gone:
        return
    with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_LIMIT_S):
        channel.close()
        await channel.wait_closed()
