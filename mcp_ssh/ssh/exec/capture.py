"""What is kept of a stream of any length: its head, its tail, its size, and the whole of it in a blob."""

from typing import TYPE_CHECKING

import anyio

from mcp_ssh.blobs.blobs import Blob, Blobs, BlobWriter

if TYPE_CHECKING:
    from mcp_ssh.sessions.query import AnswerRoom


class Capture:
    """Takes a stream in chunks and keeps at most `limit` bytes of it in memory.

    A stream that fits is kept whole. Of a longer one the first and the last half of the limit stay, and all of it goes
    to a blob of the caller's where `blobs` is given. With a `room` it waits for memory before it keeps more.
    """

    def __init__(
        self, limit: int, blobs: Blobs | None = None, caller_id: str = "", room: "AnswerRoom | None" = None
    ) -> None:
        self.limit = limit
        self.total = 0
        self._kept = bytearray()
        self._tail = bytearray()
        self._blobs = blobs
        self._caller_id = caller_id
        self._room = room
        self._writer: BlobWriter | None = None
        self.blob: Blob | None = None

    @property
    def truncated(self) -> bool:
        """Whether the stream was longer than the limit."""
        return self.total > self.limit

    async def feed(self, chunk: bytes) -> None:
        """Take the next bytes; waits while the blob is being written, which holds the remote side back."""
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
        if self._blobs is not None:
            # Shielded: a deadline that strikes while the disk is busy must not tear a hole into the blob.
            with anyio.CancelScope(shield=True):
                if not was_truncated:
                    self._writer = self._blobs.writer(self._caller_id)
                    await self._writer.write(bytes(self._kept))
                if self._writer is not None:
                    await self._writer.write(rest)

    @property
    def _half(self) -> int:
        return max(self.limit // 2, 1)

    async def finish(self) -> None:
        """The stream is at its end: complete the blob."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            self.blob = await writer.finish()

    async def restart(self) -> None:
        """Forget what came: it was not part of the stream."""
        await self.discard()
        self.total = 0
        self._kept.clear()
        self._tail.clear()

    async def discard(self) -> None:
        """Nobody will read this: remove an unfinished blob."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            await writer.discard()

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
