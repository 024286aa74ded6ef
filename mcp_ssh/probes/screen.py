"""What a terminal shows: its output drawn on a grid of characters."""

import contextlib
import re
from typing import Any

FEED_LIMIT = 128 * 1024
"""Bytes that are drawn at most: of more output only the last counts, since a screen holds a few KiB."""


class Screen:
    """A terminal's screen, drawn by `pyte`, which knows what a `linux` console knows (console_codes(4))."""

    def __init__(self, columns: int, rows: int) -> None:
        import pyte

        class Tolerant(pyte.Screen):
            def select_graphic_rendition(self, *attributes: int, **private: Any) -> None:
                if not private:
                    super().select_graphic_rendition(*attributes)

        self._screen = Tolerant(columns, rows)
        self._stream = pyte.ByteStream(self._screen)

    def feed(self, data: bytes) -> None:
        """Draw output. It takes some ms for each 10 KiB."""
        if len(data) > FEED_LIMIT:
            self._screen.reset()
            data = data[-FEED_LIMIT:]
        # What pyte does not know of makes it stumble; the next sequence finds it on its feet again.
        for part in re.split(rb"(?=\x1b)", data):
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
