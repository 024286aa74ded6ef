"""Ending once more what could not be ended in time, because its link was cut then.

sshd keeps a channel until its command has ended, so a connection on which commands go on runs out of channels.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from mcp_ssh.ssh.exec.stop import close_channel
from mcp_ssh.ssh.wire.command import Wire

if TYPE_CHECKING:
    from mcp_ssh.ssh.connection.channel import Channel
    from mcp_ssh.ssh.connection.connection import Link

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
LIMIT_S = 900.0
"""How long a call is ended again for: some processes no sweep can end."""


@dataclass(eq=False)
class Unended:
    """A call whose end nobody saw.

    It is found by its cookie alone: the process id of its shell may be another process's by the time it is ended.

    Attributes:
        call: The call.
        entered: Whether it got into the account it acts as.
        channel: Its channel, or the one that is still to open.
        since: When it was first left, on anyio's clock.
    """

    call: Wire = field(repr=False)
    entered: bool
    channel: "Channel | asyncio.Future[Channel]"
    since: float = field(default_factory=anyio.current_time)

    @property
    def opening(self) -> bool:
        """Whether the machine has not answered yet, so that nothing runs that could be found."""
        return isinstance(self.channel, asyncio.Future) and not self.channel.done()


class LaterStops:
    """The calls of one link whose end nobody saw. They are ended again until it is seen, while the link stands.

    Args:
        link: The link.
    """

    def __init__(self, link: "Link") -> None:
        self._link = link
        self._unended: list[Unended] = []
        self._pause_s = FIRST_PAUSE_S
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._unended)

    def add(self, unended: Unended) -> None:
        """Have a call ended later, where its link stands and it carries a cookie to find it by."""
        if self._closed or not self._link.alive or not unended.call.marked:
            return
        self._unended.append(unended)
        self._pause_s = FIRST_PAUSE_S
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop trying: the link ends. A sweep under way is waited for; it ends within `SWEEP_LIMIT_S`."""
        self._closed = True
        self._unended.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._unended and self._link.alive:
                await anyio.sleep(self._pause_s)
                self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
                self._drop_old()
                # A silent machine would have every sweep last for its whole time.
                if self._unended and await self._link.answers():
                    await self._end_some()
        finally:
            self._unended.clear()
            self._task = None

    def _drop_old(self) -> None:
        oldest = anyio.current_time() - LIMIT_S
        self._unended = [each for each in self._unended if each.since > oldest]

    async def _end_some(self) -> None:
        """End one after the other, so that the calls' own sweeps have room, and as long as the machine can tell."""
        for each in [each for each in self._unended if not each.opening]:
            if not await self._can_tell(each):
                # The next round begins with another one.
                self._unended = [*(other for other in self._unended if other is not each), each]
                return

    async def _can_tell(self, unended: Unended) -> bool:
        """End a call's processes; whether the machine said what became of them."""
        channel = unended.channel
        if isinstance(channel, asyncio.Future):
            if channel.cancelled() or channel.exception() is not None:  # refused: it never ran
                self._forget(unended)
                return True
            channel = unended.channel = channel.result()
        gone = channel.gone
        stopped = await self._link.stop(unended.call, None, 0, entered=unended.entered)
        # Its shell may still begin on a channel that stands: that nothing was found then proves nothing.
        if gone and stopped.ended:
            self._forget(unended)
        elif not gone:
            await close_channel(channel)
        return stopped.ended is not None

    def _forget(self, unended: Unended) -> None:
        with contextlib.suppress(ValueError):
            self._unended.remove(unended)
