"""Finding text in a file of any size, line by line, in constant memory.

Only fixed text: Python's regular expressions cannot be interrupted, and one that backtracks would hold the whole
process. Everything here blocks: it is run in a thread, and asks `halted` between blocks.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

SHOWN_BYTES = 4096
"""A longer line is cut to this much, around the match."""
MAX_TEXT_BYTES = 256 * 1024
"""A search ends early when its matches and their context make up this much."""
MAX_NEEDLE_BYTES = 1024
BLOCK_BYTES = 256 * 1024


@dataclass(frozen=True)
class BlobQuery:
    """What to look for, and how much of it."""

    needle: bytes
    ignore_case: bool
    start: int
    max_matches: int
    context: int


@dataclass(frozen=True)
class BlobMatch:
    """A line with the text in it. A line longer than 4 KiB is shown in part, and matches again further on."""

    line: int
    offset: int
    text: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class BlobMatches:
    """Matches in order; `next_offset` is where to go on, `None` when all of the file was searched."""

    matches: tuple[BlobMatch, ...]
    next_offset: int | None


def read_exactly(handle: int, offset: int, length: int) -> bytes:
    """The bytes of a range, fewer only where the file ends."""
    parts: list[bytes] = []
    while length > 0 and (part := os.pread(handle, length, offset)):
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return b"".join(parts)


def search(handle: int, size_bytes: int, query: BlobQuery, halted: Callable[[], bool]) -> BlobMatches:
    """Search an open file from `query.start` to its end, until enough is found or `halted` says so."""
    needle = query.needle.lower() if query.ignore_case else query.needle
    matches: list[BlobMatch] = []
    shown_bytes = 0
    position = 0
    line = 1
    while position < size_bytes and not halted():
        if position < query.start:  # only the lines before it count
            block = read_exactly(handle, position, min(BLOCK_BYTES, query.start - position))
            hit = -1
        else:
            block = read_exactly(handle, position, BLOCK_BYTES + len(needle) - 1)
            hit = (block.lower() if query.ignore_case else block).find(needle)
        if not block:
            return BlobMatches(tuple(matches), None)  # shorter than it was: nothing more to find
        if hit < 0:
            passed = min(BLOCK_BYTES, len(block))
            line += block.count(b"\n", 0, passed)
            position += passed
            continue
        line += block.count(b"\n", 0, hit)
        match, position, cost = _show_match(handle, position + hit, line, query)
        matches.append(match)
        shown_bytes += cost
        if len(matches) >= query.max_matches or shown_bytes >= MAX_TEXT_BYTES:
            break
    return BlobMatches(tuple(matches), position if position < size_bytes else None)


def _show_match(handle: int, hit: int, line: int, query: BlobQuery) -> tuple[BlobMatch, int, int]:
    """The match at `hit`, the offset behind what it shows, and how many bytes it shows."""
    back_from = max(0, hit - SHOWN_BYTES)
    newline = read_exactly(handle, back_from, hit - back_from).rfind(b"\n")
    start = back_from + newline + 1
    whole_start = hit + len(query.needle) - start <= SHOWN_BYTES  # never so where no line start was in reach
    if not whole_start:
        start = hit - SHOWN_BYTES // 4
    ahead = read_exactly(handle, start, SHOWN_BYTES)
    length = ahead.find(b"\n", hit - start)
    whole_end = length >= 0
    if not whole_end:
        length = len(ahead)
    before = _before(handle, start, query.context) if whole_start else []
    after = _after(handle, start + length + 1, query.context) if whole_end else []
    match = BlobMatch(line, hit, _line(ahead[:length]), tuple(map(_line, before)), tuple(map(_line, after)))
    return match, start + length, length + sum(map(len, before)) + sum(map(len, after))


def _before(handle: int, line_start: int, lines: int) -> list[bytes]:
    if lines == 0 or line_start == 0:
        return []
    start = max(0, line_start - lines * (SHOWN_BYTES + 1))
    pieces = read_exactly(handle, start, line_start - 1 - start).split(b"\n")
    return [piece[-SHOWN_BYTES:] for piece in pieces[-lines:]]


def _after(handle: int, start: int, lines: int) -> list[bytes]:
    ahead = read_exactly(handle, start, lines * (SHOWN_BYTES + 1))
    pieces = ahead.split(b"\n")
    if pieces[-1] == b"":
        pieces.pop()
    return [piece[:SHOWN_BYTES] for piece in pieces[:lines]]


def _line(piece: bytes) -> str:
    return piece.removesuffix(b"\r").decode("utf-8", "replace")
