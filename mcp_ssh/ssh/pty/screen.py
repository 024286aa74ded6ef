"""What a terminal shows: its output drawn on a grid of characters."""

import contextlib
import time
import unicodedata
from collections.abc import Iterator
from typing import Any

FEED_LIMIT = 128 * 1024
"""Bytes that are drawn at most: of more output only the last counts, since a screen holds a few KiB."""


COMBINING_LIMIT = 8
"""Characters of a cell at most: a letter with its accents. Writing systems need up to four, and pyte would take time
that grows as the square of their number."""

DRAW_S = 1.0
REST_LIMIT = 4 * 1024
_PIECE = 1024


def _pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Parts of the output, each with one sequence at most, and where each ends."""
    at = 0
    while at < len(data):
        end = data.find(b"\x1b", at + 1, at + _PIECE)
        end = min(at + _PIECE, len(data)) if end < 0 else end
        yield end, data[at:end]
        at = end


def _cap_combining(text: str, room: int) -> str:
    """The text without the combining characters that a cell has no room for."""
    kept: list[str] = []
    for char in text:
        if unicodedata.combining(char):
            room -= 1
            if room < 0:
                continue
        else:
            room = COMBINING_LIMIT - 1
        kept.append(char)
    return "".join(kept)


class Screen:
    """A terminal's screen, drawn by `pyte`, which knows what a `linux` console knows (console_codes(4))."""

    def __init__(self, columns: int, rows: int) -> None:
        import pyte

        class BoundedScreen(pyte.Screen):
            def draw(self, data: str) -> None:
                super().draw(data if data.isascii() else _cap_combining(data, self._room()))

            def _room(self) -> int:
                """How many more combining characters the cell before the cursor takes."""
                row, column = (self.cursor.y, self.cursor.x) if self.cursor.x else (self.cursor.y - 1, self.columns)
                return max(COMBINING_LIMIT - len(self.buffer[row][column - 1].data), 0)

            def select_graphic_rendition(self, *attributes: int, **private: Any) -> None:
                if not private:
                    super().select_graphic_rendition(*attributes)

        self._screen = BoundedScreen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)

    def feed(self, data: bytes) -> None:
        """Draw output. It takes some ms for each 10 KiB, and `DRAW_S` of processor time at most.

        A sequence of four bytes can clear every cell, so hostile output takes far longer than its size tells. What is
        left when the time is over is drawn from its last `REST_LIMIT` bytes on.
        """
        if len(data) > FEED_LIMIT:
            self._screen.reset()
            data = data[-FEED_LIMIT:]
        until = time.thread_time() + DRAW_S
        for end, part in _pieces(data):
            if time.thread_time() >= until:
                if (rest := data[end - len(part) :]) and len(rest) > REST_LIMIT:
                    self._screen.reset()
                    rest = rest[-REST_LIMIT:]
                self._feed_until(rest, until + DRAW_S)
                return
            self._feed(part)

    def _feed_until(self, data: bytes, until: float) -> None:
        for _, part in _pieces(data):
            if time.thread_time() >= until:
                return
            self._feed(part)

    def _feed(self, part: bytes) -> None:
        # What pyte does not know of makes it stumble; the next sequence finds it on its feet again.
        with contextlib.suppress(Exception):
            self._stream.feed(part)

    def resize(self, columns: int, rows: int) -> None:
        """Give it another size."""
        self._screen.resize(rows, columns)

    @property
    def rows(self) -> list[str]:
        """Its rows from the top, without the blanks at their ends."""
        return [row.rstrip() for row in self._screen.display]

    @property
    def cursor(self) -> tuple[int, int]:
        """Row and column of the cursor, both from 1."""
        return self._screen.cursor.y + 1, min(self._screen.cursor.x, self._screen.columns - 1) + 1

    @property
    def shows_status_line(self) -> bool:
        """Whether the cursor stands behind highlighted text on the last row: so less and man show where they are."""
        cursor = self._screen.cursor
        if cursor.y != self._screen.lines - 1 or cursor.x == 0:
            return False
        row = self._screen.buffer[cursor.y]
        return all(row[column].reverse for column in range(min(cursor.x, self._screen.columns)))

    @property
    def line(self) -> str:
        """The cursor's row up to the cursor."""
        return self._screen.display[self._screen.cursor.y][: self._screen.cursor.x]
