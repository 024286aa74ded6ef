"""Ending once more what could not be ended in time, because its connection was cut then.

sshd keeps a channel until its command has ended, so a connection on which commands go on runs out of channels.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import anyio

from mcp_ssh.ssh.exec.stop import close_channel
from mcp_ssh.ssh.wire.command import CommandEnvelope

if TYPE_CHECKING:
    from mcp_ssh.ssh.connection.channel import Channel
    from mcp_ssh.ssh.connection.connection import Connection

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
LIMIT_S = 900.0
"""How long a call is ended again for: some processes no sweep can end."""
LAST_TRY_S = 4.0
"""How long the last try may take, when the connection ends."""
MOST = 64
"""Calls of one connection that are ended again. The oldest gives way: its channel was closed longest ago."""


@dataclass(eq=False)
class UnfinishedCall:
    """A call whose end nobody saw.

    It is found by its cookie alone: the process id of its shell may be another process's by the time it is ended.

    Attributes:
        call: The call, without the command and its input: they may be large, and a sweep needs neither.
        entered: Whether it got into the account it acts as.
        channel: Its channel, or the one that is still to open.
        since: When it was first left, on anyio's clock.
        due: When it is ended again.
    """

    call: CommandEnvelope = field(repr=False)
    entered: bool
    channel: "Channel | asyncio.Future[Channel]"
    since: float = field(default_factory=anyio.current_time)
    due: float = 0.0
    pause_s: float = 0.0

    def __post_init__(self) -> None:
        self.call = replace(self.call, text="", stdin=b"", line=None)
        self.pause_s = FIRST_PAUSE_S
        self.due = self.since + self.pause_s

    @property
    def opening(self) -> bool:
        """Whether the machine has not answered yet, so that nothing runs that could be found."""
        return isinstance(self.channel, asyncio.Future) and not self.channel.done()

    def wait_longer(self) -> None:
        """Be ended again after a pause, each longer than the last."""
        self.pause_s = min(self.pause_s * 2, LONGEST_PAUSE_S)
        self.due = anyio.current_time() + self.pause_s

    def tell_password_no_more(self) -> None:
        """Send no password a second time: it may have changed, and refused ones lock accounts."""
        if self.call.acting is not None and self.call.acting.password is not None:
            self.entered = False


class LaterStops:
    """The calls of one connection whose end nobody saw. They are ended again until it is seen, while it is open.

    Args:
        link: The connection.
    """

    def __init__(self, link: "Connection") -> None:
        self._link = link
        self._unended: list[UnfinishedCall] = []
        self._added = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._unended)

    def add(self, unended: UnfinishedCall) -> None:
        """Have a call ended later, where its connection stands and it carries a cookie to find it by."""
        if self._closed or not self._link.alive or not unended.call.marked:
            return
        del self._unended[: max(0, len(self._unended) - MOST + 1)]
        self._unended.append(unended)
        self._added.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> int:
        """Try a last time, within bounds, and give up: the connection ends. A sweep under way is cut short.

        Returns:
            How many calls may go on.
        """
        self._closed = True
        left = list(self._unended)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._unended = left
        with anyio.move_on_after(LAST_TRY_S):
            for _ in range(2):  # the first closes channels that stand; what the second does not find cannot begin
                if self._unended and self._link.alive and await self._link.answers():
                    await self._end(list(self._unended))
        left, self._unended = self._unended, []
        return len(left)

    async def _run(self) -> None:
        try:
            while self._unended and self._link.alive:
                await self._until_due()
                now = anyio.current_time()
                self._unended = [each for each in self._unended if now - each.since < LIMIT_S]
                due = [each for each in self._unended if each.due <= now]
                # A silent machine would have every sweep last for its whole time.
                if due and await self._link.answers():
                    await self._end(due)
                for each in due:
                    each.wait_longer()
        finally:
            self._unended.clear()
            self._task = None

    async def _until_due(self) -> None:
        """Wait until the next call is to be ended; one that is added may be that."""
        self._added.clear()
        wait_s = min(each.due for each in self._unended) - anyio.current_time()
        with anyio.move_on_after(max(wait_s, 0)):
            await self._added.wait()

    async def _end(self, due: Sequence[UnfinishedCall]) -> None:
        """End calls at once, so that they share sweeps and the calls' own sweeps have room."""
        async with anyio.create_task_group() as group:
            for each in due:
                if not each.opening:
                    group.start_soon(self._end_one, each)

    async def _end_one(self, unended: UnfinishedCall) -> None:
        channel = unended.channel
        if isinstance(channel, asyncio.Future):
            if channel.cancelled() or channel.exception() is not None:  # refused: it never ran
                self._forget(unended)
                return
            channel = unended.channel = channel.result()
        gone = channel.gone
        stopped = await self._link.stop(unended.call, None, 0, entered=unended.entered)
        unended.tell_password_no_more()
        # Its shell may still begin on a channel that stands: that nothing was found then proves nothing.
        if gone and stopped.ended:
            self._forget(unended)
        elif not gone:
            await close_channel(channel)

    def _forget(self, unended: UnfinishedCall) -> None:
        with contextlib.suppress(ValueError):
            self._unended.remove(unended)
