"""One command's channel: its streams with memory bounds, its exit status, its end.

asyncssh's own stream reader grants the other side a full window again whenever it takes a little from a buffer that is
held back, so a reader slower than the network collects without bound. Here reading is paused at `HIGH`, and continues
only when all that was held has been taken: what can pile up is `HIGH` and one window.

This module imports asyncssh, which takes a quarter of a second; it is itself imported on first use.
"""

import asyncio
from collections import deque
from collections.abc import Callable

import asyncssh

HIGH = 1024 * 1024
TAKEN = 512 * 1024
"""The most that is handed out at once: joining what is held takes as much memory again."""
STDERR = 1
"""Kind of data that is standard error: SSH_EXTENDED_DATA_STDERR (RFC 4254, 5.2)."""


class Unanswered(asyncssh.ChannelOpenError):
    """The machine closed a channel without a word on whether the command began, so it did not (RFC 4254, 6.5).

    Dropbear does so now and then to a channel that is opened while another one ends.
    """


class Channel(asyncssh.SSHClientSession[bytes]):
    """A session channel (RFC 4254, 6) that runs one command or subsystem.

    Args:
        gone: Called when it is no more, if it ever was.
    """

    def __init__(self, gone: Callable[[], None]) -> None:
        self._tell_gone = gone
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._held: dict[int | None, deque[bytes]] = {None: deque(), STDERR: deque()}
        self._size = 0
        self._paused = False
        self._resuming = False
        self._ended = False
        self._arrived = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self.gone = False
        self.exit_status: int | None = None
        self.exit_signal: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether the machine gave it."""
        return self._channel is not None

    @property
    def _wire(self) -> "asyncssh.SSHClientChannel[bytes]":
        assert self._channel is not None  # noqa: S101 asyncssh made it before anybody got this object
        return self._channel

    def connection_made(self, chan: "asyncssh.SSHClientChannel[bytes]") -> None:
        """Asyncssh opened the channel."""
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Hold what came until it is read."""
        self._held.setdefault(datatype, deque()).append(data)
        self._size += len(data)
        self._arrived.set()
        if not self._resuming:
            self._pause_if_full()

    def _pause_if_full(self) -> None:
        if self._size >= HIGH and not self._paused:
            self._paused = True
            self._wire.pause_reading()

    def eof_received(self) -> bool:
        """The other side sends no more; ours may."""
        self._ended = True
        self._arrived.set()
        return True

    def exit_status_received(self, status: int) -> None:
        """The command ended by itself."""
        self.exit_status = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:  # noqa: FBT001
        """A signal ended the command; what else is said of it is not kept."""
        del core_dumped, msg, lang
        self.exit_signal = signal

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is gone, properly or with its connection; a missing exit status tells which."""
        del exc
        self._ended = True
        self._arrived.set()
        self._may_write.set()
        self.gone = True
        self._tell_gone()

    def pause_writing(self) -> None:
        """The other side's window is full."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """There is room again."""
        self._may_write.set()

    @property
    def open(self) -> bool:
        """Whether more may come."""
        return not self._ended

    @property
    def exited(self) -> bool:
        """Whether the machine said how what ran on it ended."""
        return self.exit_status is not None or self.exit_signal is not None

    @property
    def silent(self) -> bool:
        """Whether nothing came that was not read."""
        return not self._size

    async def read(self, stream: int | None = None) -> bytes:
        """What came of a stream, about `TAKEN` at most; waits for some, and gives none at its end."""
        held = self._held[stream]
        while not held and not self._ended:
            self._arrived.clear()
            await self._arrived.wait()
        parts: list[bytes] = []
        size = 0
        while held and size < TAKEN:
            parts.append(held.popleft())
            size += len(parts[-1])
        taken = b"".join(parts)
        self._size -= size
        if self._paused and not self._size:
            self._paused = False
            self._resuming = True
            self._wire.resume_reading()
            self._resuming = False
            self._pause_if_full()
        return taken

    async def write(self, data: bytes) -> None:
        """Send to standard input; waits while the other side takes no more.

        Raises:
            OSError: The channel is closed.
        """
        self._wire.write(data)
        await self._may_write.wait()

    def write_eof(self) -> None:
        """Close standard input."""
        self._wire.write_eof()

    def resize(self, columns: int, rows: int) -> None:
        """Give its terminal another size (RFC 4254, 6.7)."""
        self._wire.change_terminal_size(columns, rows)

    async def wait_closed(self) -> None:
        """Wait until the channel is gone, all it had to say included."""
        await self._wire.wait_closed()

    def close(self) -> None:
        """Have the channel closed, whatever still comes or was still to be sent."""
        self._wire.abort()  # asyncssh's `close` sends what waits first, which a command that reads no more never takes
