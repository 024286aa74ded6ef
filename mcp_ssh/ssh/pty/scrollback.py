"""What a terminal printed, by absolute offsets, the last of it kept."""

import anyio

KEPT = 2 * 1024 * 1024
"""Bytes kept of one terminal's output."""


class Scrollback:
    """Output in the order it came. Reading takes nothing away; only age does.

    Attributes:
        start: Offset of the first byte that is still kept.
        last_at: When something came last, on anyio's clock.
    """

    def __init__(self) -> None:
        self._kept = bytearray()
        self._news = anyio.Event()
        self.start = 0
        self.last_at = anyio.current_time()

    @property
    def total(self) -> int:
        """Bytes that came so far, which is the offset of the next."""
        return self.start + len(self._kept)

    def add(self, data: bytes) -> None:
        """Keep what came."""
        self._kept += data
        surplus = len(self._kept) - KEPT
        if surplus > 0:
            del self._kept[:surplus]
            self.start += surplus
        self.last_at = anyio.current_time()
        self.tell()

    def trim(self, kept: int) -> None:
        """Keep only so many bytes at the end."""
        surplus = max(0, len(self._kept) - kept)
        self._kept = bytearray(self._kept[surplus:])  # one that only shrinks keeps its memory
        self.start += surplus

    def tell(self) -> None:
        """Wake who waits for news."""
        self._news.set()
        self._news = anyio.Event()

    def slice(self, start: int, end: int | None = None) -> bytes:
        """What is kept between two offsets."""
        first = max(0, start - self.start)
        return bytes(self._kept[first : None if end is None else max(first, end - self.start)])

    async def news(self, seconds: float) -> None:
        """Wait for something to come, for a time at most."""
        news = self._news
        with anyio.move_on_after(seconds):
            await news.wait()
