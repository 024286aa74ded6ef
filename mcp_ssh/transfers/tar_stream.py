"""A tar stream taken apart as it comes: headers of plain files and folders here, all others by tarfile.

tarfile takes four times as long over a header, and copies content twice. Here only what GNU tar and BusyBox write for
an ordinary file or folder is read, to the letter; whatever differs in a byte is tarfile's. Everything blocks.
"""

import io
import re
import tarfile
from collections.abc import Callable, Generator, Iterable
from typing import Any, cast

LARGEST_READ = 1024 * 1024
"""The most that is held of a stream at once; a name, or a header of pax, that is longer is refused."""
LARGEST_HEADER = 8 * LARGEST_READ
"""The most that the headers of one entry may take: names, headers of pax, and the map of a sparse file."""
LARGEST_GLOBALS = 1000
"""How many values the global headers of pax may set."""
BLOCK = tarfile.BLOCKSIZE

OffsetChunks = Iterable[tuple[int, bytes | memoryview]]
"""The bytes of a file in pieces, each with its offset."""

# Permissions, owner and group, size, time, sum; a file or a folder, no link; the magic of GNU or of POSIX.
_PLAIN = re.compile(
    rb"([0-7]{7})\0(?:[0-7]{7}\0){2}([0-7]{11})\0([0-7]{11})\0([0-7]{6})\0 ([05])\0{100}ustar(?:  \0|\x0000)"
)
_PREFIX = 345
_SUM = slice(148, 156)


class ForwardReader(io.RawIOBase):
    """Bytes that come in pieces, as a file that is read onwards only.

    Args:
        more: Gives the next piece; nothing at the end.
    """

    def __init__(self, more: Callable[[], bytes]) -> None:
        self._more = more
        self._held = memoryview(b"")
        self._at = 0
        self._headers = 0

    def begin_entry(self) -> None:
        """Allow for the headers of another entry."""
        self._headers = 0

    def some(self, most: int) -> memoryview:
        """The next bytes, as many as are at hand; none at the end."""
        if not self._held:
            self._held = memoryview(self._more())
        taken, self._held = self._held[:most], self._held[most:]
        self._at += len(taken)
        return taken

    def peek(self, size: int) -> bytes:
        """The next bytes, which stay where they are; fewer only at the end."""
        if len(self._held) < size:
            at = self._at
            self._held, self._at = memoryview(self.read(size) + bytes(self._held)), at
        return bytes(self._held[:size])

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; fewer only at the end.

        Raises:
            tarfile.ReadError: So many are never held at once.
        """
        self._headers += size
        if not 0 <= size <= LARGEST_READ or self._headers > LARGEST_HEADER:
            raise tarfile.ReadError("a header is too long")
        parts: list[memoryview] = []
        while size and (piece := self.some(size)):
            parts.append(piece)
            size -= len(piece)
        return b"".join(parts)

    def tell(self) -> int:
        """How many bytes were read."""
        return self._at

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Pass over bytes, up to an offset or the end.

        Raises:
            tarfile.StreamError: They have been read already.
        """
        if whence or offset < self._at:
            raise tarfile.StreamError("the stream cannot be read twice")
        while self._at < offset and self.some(offset - self._at):
            pass
        return self._at


def plain(block: bytes) -> tarfile.TarInfo | None:
    """What a header says; None where it is not the one of a plain file or folder, or is damaged."""
    found = _PLAIN.match(block, tarfile.LENGTH_NAME)
    if found is None or len(block) != BLOCK or block[_PREFIX]:
        return None
    mode, size, mtime, checksum, kind = found.groups()
    # The sum is taken as if its own field were blank (tar(5)).
    if sum(block) - sum(block[_SUM]) + 8 * ord(" ") != int(checksum, 8):
        return None
    name = block[: tarfile.LENGTH_NAME].partition(b"\0")[0].decode("utf-8", "surrogateescape")
    entry = tarfile.TarInfo(name.rstrip("/"))
    entry.mode, entry.size, entry.mtime, entry.type = int(mode, 8), int(size, 8), int(mtime, 8), kind
    return entry if kind == tarfile.REGTYPE or not entry.size else None


def entries(stream: ForwardReader) -> Generator[tuple[tarfile.TarInfo, OffsetChunks]]:
    """Every entry with its content, which must be taken before the next entry.

    Raises:
        tarfile.TarError: It is not a tar stream, or it ends early.
    """
    with tarfile.open(fileobj=cast("Any", stream), mode="r:", encoding="utf-8", errors="surrogateescape") as opened:
        tar = cast("Any", opened)  # `offset` is not in its documentation
        entry: tarfile.TarInfo | None = tar.next()
        while entry is not None:
            # tarfile keeps every entry it has seen.
            tar.members = []
            if entry.size < 0 or len(opened.pax_headers) > LARGEST_GLOBALS:
                raise tarfile.ReadError("a header has a size or a number of values that no file has")
            stream.begin_entry()
            yield entry, _sparse(stream, entry, tar.offset) if entry.issparse() else _content(stream, entry)
            stream.seek(tar.offset)
            block = stream.peek(BLOCK)
            if (entry := plain(block)) is not None:
                stream.seek(tar.offset + BLOCK)
                tar.offset += BLOCK + entry.size + -entry.size % BLOCK
            elif len(block) < BLOCK or ((entry := tar.next()) is None and any(block)):
                raise tarfile.ReadError("unexpected end of data")


def _content(stream: ForwardReader, entry: tarfile.TarInfo) -> OffsetChunks:
    return _segment(stream, 0, entry.size if entry.isreg() else 0)


def _segment(stream: ForwardReader, offset: int, size: int) -> Generator[tuple[int, memoryview]]:
    end = offset + size
    while offset < end:
        piece = stream.some(end - offset)
        if not piece:
            raise tarfile.ReadError("unexpected end of data")
        yield offset, piece
        offset += len(piece)


def _sparse(stream: ForwardReader, entry: tarfile.TarInfo, end: int) -> OffsetChunks:
    """The parts of a sparse file that its entry holds; what lies between them is a hole, and is never made."""
    stream.seek(entry.offset_data)
    reached = 0
    for offset, size in cast("list[tuple[int, int]]", cast("Any", entry).sparse):
        if not size:
            continue  # an unused place of the map
        if not reached <= offset <= offset + size <= entry.size or stream.tell() + size > end:
            raise tarfile.ReadError("the map of a sparse file does not fit its entry")
        yield from _segment(stream, offset, size)
        reached = offset + size
