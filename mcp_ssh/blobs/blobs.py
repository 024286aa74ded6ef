"""Blobs: the full text of outputs too large for an answer, kept for an hour after their last use."""

import asyncio
import hashlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from mcp_ssh.blobs.folder import BlobFolder
from mcp_ssh.blobs.search import MAX_NEEDLE_BYTES, BlobMatches, BlobQuery, read_exactly, search
from mcp_ssh.errors import InvalidInput, NotFound, ToolError
from mcp_ssh.tool import Caller

log = logging.getLogger(__name__)

MIB = 1024 * 1024
BATCH_BYTES = 256 * 1024
MAX_READ_BYTES = 16 * MIB
CLOSE_S = 10.0
T = TypeVar("T")


@dataclass(frozen=True)
class Blob:
    """A stored output. `complete` is false where only its beginning found room; `sha256` is that of a complete one."""

    id: str
    size_bytes: int
    complete: bool
    sha256: str | None = None


@dataclass
class _Entry:
    """A blob in the index; `finished` once it can be read."""

    id: str
    owner: str
    last_used_s: float
    path: Path | None = None
    size_bytes: int = 0
    complete: bool = True
    finished: bool = False
    sha256: str | None = None

    def blob(self) -> Blob:
        return Blob(self.id, self.size_bytes, self.complete, self.sha256 if self.complete else None)


class Blobs:
    """The blobs of this process, within bounds it shares with others on the same folder.

    Args:
        folder: The state folder; files lie in its `blobs`.
        per_call: Most bytes of one blob; the rest of an output is dropped and `complete` is false.
        total: Most bytes of all blobs, of all processes.
        share: Most bytes of all blobs of one caller in this process; its new blobs push out no other caller's.
        life_s: Seconds a blob lives after it was made or last read.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        folder: Path,
        per_call: int = 256 * MIB,
        total: int = 2048 * MIB,
        *,
        share: int = 512 * MIB,
        life_s: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state_folder = folder
        self._per_call = per_call
        self._total = total
        self._share = share
        self._life_s = life_s
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._others_bytes = 0
        self._folder: BlobFolder | None = None
        self._claiming: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._writers: set[BlobWriter] = set()
        self._closed = False

    async def open(self) -> None:
        """Claim a folder and remove what dead processes left. The first write does it where nobody did before.

        Raises:
            InvalidInput: The state folder cannot be used or is not private.
        """
        if self._folder is None and not self._closed:
            if self._claiming is None or self._claiming.done():
                self._claiming = self.begin(self._claim())
            await asyncio.shield(self._claiming)

    async def close(self) -> None:
        """Remove every blob of this process; safe to call twice, and while being cancelled."""
        if self._closed:
            return
        self._closed = True
        with anyio.move_on_after(CLOSE_S, shield=True):
            await asyncio.gather(*(writer.discard() for writer in list(self._writers)))
            if self._tasks:
                await asyncio.wait(list(self._tasks))
            self._entries.clear()
            if self._folder is not None:
                await _in_thread(self._folder.release)
                self._folder = None

    async def sweep(self) -> None:
        """Remove expired blobs and the leftovers of dead processes. Each new blob does it; a timer may."""
        now = self._clock()
        await self._drop([each for each in self._entries.values() if self._is_expired(each, now)])
        if self._folder is not None:
            self._others_bytes = await _in_thread(self._folder.sweep)

    def writer(self, caller_id: str) -> "BlobWriter":
        """A blob to write, of this caller. It must be finished or discarded."""
        entry = _Entry(secrets.token_hex(16), caller_id, self._clock())
        writer = BlobWriter(self, entry)
        self._entries[entry.id] = entry
        self._writers.add(writer)
        return writer

    def describe(self, caller: Caller, blob_id: str) -> Blob:
        """Size and completeness of a blob.

        Raises:
            NotFound: There is none with this id, no more, or it is another caller's. Which of them stays unsaid.
        """
        return self._use(caller, blob_id).blob()

    async def read_range(self, caller: Caller, blob_id: str, offset: int, length: int) -> tuple[bytes, int]:
        """Bytes from `offset` on, 16 MiB at most, and the size of the whole.

        Raises:
            NotFound: As for `describe`.
        """
        entry = self._use(caller, blob_id)
        wanted = max(0, min(length, MAX_READ_BYTES))
        data = await _in_thread(lambda: _with_file(entry, lambda handle: read_exactly(handle, max(0, offset), wanted)))
        return data, entry.size_bytes

    async def read_tail(self, caller: Caller, blob_id: str, length: int) -> tuple[bytes, int]:
        """The last bytes, 16 MiB at most, and the size of the whole.

        Raises:
            NotFound: As for `describe`.
        """
        size = self.describe(caller, blob_id).size_bytes
        kept = max(0, min(length, MAX_READ_BYTES, size))
        return await self.read_range(caller, blob_id, size - kept, kept)

    async def grep(
        self,
        caller: Caller,
        blob_id: str,
        pattern: str,
        *,
        ignore_case: bool = False,
        max_matches: int = 50,
        context: int = 0,
        start: int = 0,
        deadline_s: float = 20.0,
    ) -> BlobMatches:
        """Lines with a fixed text in them, searched in a thread, up to the deadline or until cancelled.

        What was found by then is returned, with the offset to go on from. `ignore_case` folds ASCII letters only.

        Raises:
            NotFound: As for `describe`.
            InvalidInput: A pattern that is empty, longer than 1 KiB or spans lines.
        """
        entry = self._use(caller, blob_id)
        needle = pattern.encode("utf-8", "surrogatepass")
        if not needle or len(needle) > MAX_NEEDLE_BYTES or b"\n" in needle:
            raise InvalidInput("pattern must be 1 to 1024 bytes of text without a line break")
        query = BlobQuery(needle, ignore_case, max(0, start), max_matches, context)
        left = threading.Event()
        ends_s = time.monotonic() + deadline_s

        def halted() -> bool:
            return left.is_set() or time.monotonic() > ends_s

        try:
            return await anyio.to_thread.run_sync(
                lambda: _with_file(entry, lambda handle: search(handle, entry.size_bytes, query, halted)),
                abandon_on_cancel=True,
            )
        finally:
            left.set()  # a thread that was left behind ends at its next block

    # For BlobWriter.

    async def place(self, entry: _Entry) -> Path | None:
        """Where a new blob is written; `None` where nothing can be any more."""
        await self.open()
        await self.sweep()
        return self._folder.path / entry.id if self._folder is not None and not self._closed else None

    async def reserve(self, entry: _Entry, wanted: int) -> int:
        """How many more bytes an open blob may take, having made room for them where that is possible."""
        if self._closed:
            return 0
        allowed = max(0, min(wanted, self._per_call - entry.size_bytes))
        entries = self._entries.values()
        used = self._others_bytes + sum(each.size_bytes for each in entries)
        own = sum(each.size_bytes for each in entries if each.owner == entry.owner)
        victims = self._to_remove(entry.owner, max(used + allowed - self._total, own + allowed - self._share))
        used -= sum(each.size_bytes for each in victims)
        own -= sum(each.size_bytes for each in victims if each.owner == entry.owner)
        allowed = max(0, min(allowed, self._total - used, self._share - own))
        entry.size_bytes += allowed
        await self._drop(victims)
        return allowed

    def finish(self, writer: "BlobWriter", entry: _Entry, *, forget: bool) -> None:
        """A writer is done with its blob."""
        self._writers.discard(writer)
        if forget:
            self._entries.pop(entry.id, None)
            return
        entry.finished = True
        entry.last_used_s = self._clock()

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start work that continues to its end even where the caller is cancelled; `close` waits for it.

        A thread cannot be cancelled, so neither is what waits for it: files must not change behind the index.
        """
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _claim(self) -> None:
        self._folder = await _in_thread(lambda: BlobFolder(self.state_folder))
        await self.sweep()

    def _to_remove(self, owner: str, excess: int) -> list[_Entry]:
        """Finished blobs of a caller, and expired ones, that make up `excess` bytes: the longest unused first."""
        victims: list[_Entry] = []
        now = self._clock()
        if excess > 0:
            for each in sorted(self._entries.values(), key=lambda each: each.last_used_s):
                if excess > 0 and each.finished and (each.owner == owner or self._is_expired(each, now)):
                    victims.append(each)
                    excess -= each.size_bytes
        return victims

    def _use(self, caller: Caller, blob_id: str) -> _Entry:
        entry = self._entries.get(blob_id)
        now = self._clock()
        if (
            entry is None
            or not entry.finished
            or self._is_expired(entry, now)
            or (entry.owner != caller.id and not caller.oversees)
        ):
            raise _no_such_blob()
        entry.last_used_s = now
        return entry

    def _is_expired(self, entry: _Entry, now: float) -> bool:
        return entry.finished and now - entry.last_used_s >= self._life_s

    async def _drop(self, victims: list[_Entry]) -> None:
        for each in victims:
            self._entries.pop(each.id, None)
        paths = [each.path for each in victims if each.path is not None]
        if paths:
            await asyncio.shield(self.begin(_in_thread(lambda: [_unlink(path) for path in paths])))


class BlobWriter:
    """Takes an output as it arrives and writes it in large batches.

    It holds less than a batch and the last chunk in memory; `write` waits for the disk, so a fast sender waits too.
    """

    def __init__(self, blobs: Blobs, entry: _Entry) -> None:
        self._blobs = blobs
        self._entry = entry
        self._pending = bytearray()
        self._turn = asyncio.Lock()
        self._job: asyncio.Task[None] | None = None
        self._handle: int | None = None
        self._stopped = False
        self._done = False
        self._sum = hashlib.sha256()

    @property
    def id(self) -> str:
        """The id the finished blob will have."""
        return self._entry.id

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append to the blob. Beyond the bounds, or on a full disk, nothing more is kept; that is not an error."""
        async with self._turn:
            if self._stopped or self._done:
                self._entry.complete = self._entry.complete and not len(chunk)
                return
            self._pending += chunk
            self._sum.update(chunk)
            if len(self._pending) >= BATCH_BYTES:
                await self._flush()

    async def finish(self) -> Blob:
        """Write what is pending and make the blob readable. Calling it again returns the same."""
        async with self._turn:
            if not self._done:
                await self._flush()
                await asyncio.shield(self._blobs.begin(_in_thread(self._close)))
                self._done = True
                self._entry.sha256 = self._sum.hexdigest()
                self._blobs.finish(self, self._entry, forget=False)
        return self._entry.blob()

    async def discard(self) -> None:
        """Forget the blob and remove its file, whether finished or not; safe while being cancelled."""
        self._stopped = self._done = True
        self._pending.clear()
        await asyncio.shield(self._blobs.begin(self._remove()))

    async def _remove(self) -> None:
        with anyio.move_on_after(CLOSE_S) as patience:
            async with self._turn:
                await self._settle()
                await _in_thread(self._close_and_unlink)
        if patience.cancelled_caught:
            log.warning("a blob could not be removed yet; it goes when this process ends")
        self._blobs.finish(self, self._entry, forget=True)

    async def _flush(self) -> None:
        await self._settle()
        if self._stopped:
            return
        batch, self._pending = self._pending, bytearray()
        # As a task: where our caller is cancelled (a timeout, say) the batch is still written, in order, so that
        # `finish` can give out all that was read.
        self._job = self._blobs.begin(self._store(batch))
        await self._settle()

    async def _settle(self) -> None:
        if self._job is not None:
            await asyncio.shield(self._job)
            self._job = None

    async def _store(self, batch: bytearray) -> None:
        entry = self._entry
        try:
            if entry.path is None:
                entry.path = await self._blobs.place(entry)
            allowed = await self._blobs.reserve(entry, len(batch)) if entry.path is not None else 0
            if allowed < len(batch):
                self._stopped, entry.complete = True, False
                del batch[allowed:]
            if entry.path is not None:
                await _in_thread(lambda: self._append(batch))
        except (OSError, ToolError) as error:
            log.warning("a large output could not be kept in full: %s", error)
            self._stopped, entry.complete = True, False
            entry.size_bytes = os.fstat(self._handle).st_size if self._handle is not None else 0

    def _append(self, batch: bytearray) -> None:
        if self._handle is None and self._entry.path is not None:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            self._handle = os.open(self._entry.path, flags, 0o600)
        view = memoryview(batch)
        while view and self._handle is not None:
            view = view[os.write(self._handle, view) :]

    def _close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def _close_and_unlink(self) -> None:
        self._close()
        if self._entry.path is not None:
            _unlink(self._entry.path)


async def _in_thread(work: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(work)


def _with_file(entry: _Entry, work: Callable[[int], T]) -> T:
    if entry.path is None:
        raise _no_such_blob()
    try:
        handle = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _no_such_blob() from error
    try:
        return work(handle)
    finally:
        os.close(handle)


def _no_such_blob() -> NotFound:
    return NotFound(
        "no such blob, or it has expired",
        hint="a blob lives an hour after its last read; run the command again to get its output",
    )


def _unlink(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
