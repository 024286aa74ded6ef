"""What is kept of a stream of any length: its head, its tail, its size, and all of it in a sink."""

from typing import Protocol

import anyio

from mcp_ssh.ssh.exec.answer_budget import AnswerRoom


class OutputSink(Protocol):
    """Takes all of a stream that is longer than memory may hold of it."""

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes; what holds this back holds the remote side back."""
        ...

    async def finish(self) -> None:
        """The stream is complete."""
        ...

    async def discard(self) -> None:
        """Nobody will read it. The next bytes begin another stream."""
        ...


class Capture:
    """Takes a stream in chunks and keeps at most `limit` bytes of it in memory.

    A stream that fits is kept whole. Of a longer one the first and the last half of the limit stay, and all of it goes
    to the sink where one is given. With a `room` it waits for memory before it keeps more.
    """

    def __init__(self, limit: int, sink: OutputSink | None = None, room: AnswerRoom | None = None) -> None:
        self.limit = limit
        self.total = 0
        self._kept = bytearray()
        self._tail = bytearray()
        self._sink = sink
        self._room = room
        self._sinks = False

    @property
    def truncated(self) -> bool:
        """Whether the stream was longer than the limit."""
        return self.total > self.limit

    async def feed(self, chunk: bytes) -> None:
        """Take the next bytes; waits while the sink takes them, which holds the remote side back."""
        was_truncated = self.truncated
        self.total += len(chunk)
        room = self.limit - len(self._kept)
        if self._room is not None and room > 0:
            await self._room.take(min(len(chunk), room))
        if room > 0:
            self._kept += chunk[:room]
        rest = chunk[max(room, 0) :]
        if not rest:
            return
        self._tail += rest
        if len(self._tail) > 2 * self._half:
            del self._tail[: len(self._tail) - self._half]
        if self._sink is not None:
            # Shielded: a deadline that strikes while the disk is busy must not tear a hole into it.
            with anyio.CancelScope(shield=True):
                if not was_truncated:
                    self._sinks = True
                    await self._sink.write(bytes(self._kept))
                if self._sinks:
                    await self._sink.write(rest)

    @property
    def _half(self) -> int:
        return max(self.limit // 2, 1)

    async def finish(self) -> None:
        """The stream is at its end, and so is what the sink got."""
        if self._sinks and self._sink is not None:
            self._sinks = False
            await self._sink.finish()

    async def restart(self) -> None:
        """Forget what came: it was not part of the stream."""
        await self.discard()
        self.total = 0
        self._kept.clear()
        self._tail.clear()

    async def discard(self) -> None:
        """Nobody will read this, nor what the sink got."""
        if self._sinks and self._sink is not None:
            self._sinks = False
            await self._sink.discard()

    def whole(self) -> bytes:
        """All bytes, where they fitted into the limit."""
        return bytes(self._kept)

    def ends(self) -> tuple[bytes, bytes]:
        """Head and tail of a truncated stream, cut at UTF-8 character boundaries where it is UTF-8."""
        together = (self._kept + self._tail)[-self._half :] if self.total - self.limit < self._half else self._tail
        return _without_split_end(bytes(self._kept[: self._half])), _without_split_start(bytes(together[-self._half :]))


def _without_split_end(data: bytes) -> bytes:
    """The data without a last UTF-8 character that lacks bytes (RFC 3629: at most four bytes a character)."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            wanted = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return data[:-back] if wanted > back else data
    return data


def _without_split_start(data: bytes) -> bytes:
    """The data without the continuation bytes of a UTF-8 character whose start is missing."""
    start = 0
    while start < min(3, len(data)) and data[start] & 0xC0 == 0x80:
        start += 1
    return data[start:]
