"""Ending once more what could not be ended in time, because its link was cut then.

sshd keeps a channel until its command has ended, so a connection on which commands go on runs out of channels.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from mcp_ssh.ssh.stop import close_channel
from mcp_ssh.ssh.wire import Wire

if TYPE_CHECKING:
    from mcp_ssh.ssh.channel import Channel
    from mcp_ssh.ssh.link import Link

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
TRIES = 30
"""How often a call is ended again, over about a quarter of an hour: some processes no sweep can end."""


@dataclass(eq=False)
class Unended:
    """A call whose end nobody saw.

    Attributes:
        call: The call.
        pid: Its shell, where that is known.
        began: When it began, on anyio's clock.
        entered: Whether it got into the account it acts as.
        channel: Its channel, or the one that is still to open.
        tries: How often it was ended again.
    """

    call: Wire = field(repr=False)
    pid: int | None
    began: float
    entered: bool
    channel: "Channel | asyncio.Future[Channel]"
    tries: int = 0

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

    def __len__(self) -> int:
        return len(self._unended)

    def add(self, unended: Unended) -> None:
        """Have a call ended later."""
        self._unended.append(unended)
        self._pause_s = FIRST_PAUSE_S
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop trying: the link ends."""
        self._unended.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._unended and self._link.alive:
                await anyio.sleep(self._pause_s)
                self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
                # A silent machine would have every try last for its whole time, and the calls' own stops wait for that.
                if await self._link.answers():
                    await self._end_all()
        finally:
            self._task = None

    async def _end_all(self) -> None:
        async with anyio.create_task_group() as group:
            for each in [each for each in self._unended if not each.opening]:
                group.start_soon(self._end, each)

    async def _end(self, unended: Unended) -> None:
        channel = unended.channel
        if isinstance(channel, asyncio.Future):
            if channel.cancelled() or channel.exception() is not None:  # refused: it never ran
                self._forget(unended)
                return
            channel = unended.channel = channel.result()
        gone = channel.gone
        unended.tries += 1
        elapsed_s = anyio.current_time() - unended.began
        stopped = await self._link.stop(unended.call, unended.pid, elapsed_s, entered=unended.entered)
        # Its shell may still begin on a channel that stands: that nothing was found then proves nothing.
        if (gone and stopped.ended) or unended.tries == TRIES:
            self._forget(unended)
        elif not gone:
            await close_channel(channel)

    def _forget(self, unended: Unended) -> None:
        with contextlib.suppress(ValueError):
            self._unended.remove(unended)
