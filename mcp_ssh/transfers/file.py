"""Single files between this machine and another: streamed in constant memory, resumed, compared by SHA-256, atomic."""

import contextlib
import functools
import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream

from mcp_ssh.errors import Conflict, RemoteFailed
from mcp_ssh.linux.files.transfer import (
    ANY_SIZE,
    BLOCK,
    ChecksummedFile,
    CorruptTransfer,
    Offer,
    Raced,
    ask_receive,
    ask_send,
    parse_have,
    parse_offer,
    partial_name,
)
from mcp_ssh.linux.files.write import parse_write
from mcp_ssh.linux.framing import PathQuery, quote_path
from mcp_ssh.messages.printable import said_details
from mcp_ssh.sessions.session import Session
from mcp_ssh.ssh.exec.stream import RemoteProcess, streaming
from mcp_ssh.tool import Call
from mcp_ssh.transfers import local_files
from mcp_ssh.transfers.local_files import Sink, Source
from mcp_ssh.transfers.local_quota import UNLIMITED, Quota

T = TypeVar("T")

SOURCE = "the source"
REPORT_S = 0.25
"""How often progress is reported, at most."""


async def in_thread(function: Callable[[], T], shown: str) -> T:
    """Do something with local files, off the loop; failures of the file system name the path as the caller gave it."""
    try:
        return await anyio.to_thread.run_sync(function)
    except OSError as error:
        raise local_files.trouble(error, shown) from error


class TransferProgress:
    """Tells the caller how far a transfer is, now and then, and records what its end leaves.

    Attributes:
        done: Bytes that travelled.
        total: Bytes that will, where that is known.
        resumes: Whether the same call, made again, continues from here.
        left: What is on both sides if the transfer ends now.
    """

    def __init__(self, call: Call, what: str) -> None:
        self._call = call
        self._what = what
        self._told = time.monotonic()
        self.done = 0
        self.total: int | None = None
        self.resumes = False
        self.left: Callable[[], str] = lambda: "nothing was changed"

    async def advance(self, done: int) -> None:
        """So many bytes have travelled, those of an earlier try included."""
        self.done = done
        if time.monotonic() - self._told >= REPORT_S:
            self._told = time.monotonic()
            await self._call.progress(done, self.total, self._what)


@dataclass(frozen=True)
class TransferResult:
    """What a transfer did: size and SHA-256 of the whole, and how many bytes an earlier try had brought already."""

    path: str
    size: int
    sha256: str
    resumed: int
    permissions: str = ""
    atomic: bool = True


# ---- to the machine ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UploadTarget:
    """What an uploaded file is to be.

    Attributes:
        path: The file there; links are followed.
        permissions: Octal digits it gets; None keeps those it has.
        usual: Permissions of a new file, less the account's umask.
    """

    path: str
    permissions: str | None = None
    usual: int = 0o666


async def upload(host: Session, wish: UploadTarget, source: Source, progress: TransferProgress) -> TransferResult:
    """Send a file.

    Raises:
        Damaged: What arrived is not what was sent; the old file is unchanged.
        Raced: Other uploads of the same file ended first, twice.
    """
    try:
        return await _upload(host, wish, source, progress)
    except Raced:
        pass
    except CorruptTransfer as error:
        if not error.offset:
            raise
    # What an earlier try left was bad, or another call put it in place.
    return await _upload(host, wish, source, progress)


async def _upload(host: Session, wish: UploadTarget, source: Source, progress: TransferProgress) -> TransferResult:
    # What is too small to be resumed is sent before the machine asks for it, unless it is being written to just now.
    sha256 = None
    if source.size <= BLOCK:
        await passed_over(source, source.size)
        sha256 = await in_thread(source.sha256, SOURCE) or None
    at_once = sha256 is not None
    asked = ask_receive(
        wish.path, source.size, source.identity, permissions=wish.permissions, usual=wish.usual, sha256=sha256
    )
    progress.total, progress.resumes = source.size, True
    async with streaming(host.link, host.protect(asked.command), host.acting) as stream:
        have = 0 if at_once else parse_have(await stream.answer(asked))
        progress.left = lambda: f"up to {progress.done} of {source.size} bytes arrived, and the file there is unchanged"
        await passed_over(source, have)
        whole = await _send_rest(stream, source, progress)
        if sha256 is None and whole:
            await stream.answer(asked)
            sha256 = await in_thread(source.sha256, SOURCE)
            await stream.write(f"{sha256}\n".encode())
        if whole:
            progress.left = lambda: "all of it was sent, so the file there is the old one or the new one"
        stream.end_input()
        if at_once:
            have = parse_have(await stream.answer(asked))
        answer = await stream.answer(asked)
        await stream.finish()
    outcome = parse_write(answer.body)
    return TransferResult(answer.path, source.size, sha256 or "", have, outcome.permissions, outcome.atomic)


async def passed_over(source: Source, offset: int) -> None:
    """Read a source from its start again, up to an offset: what is there already counts for its SHA-256."""
    source.begin()
    while source.at < offset and await in_thread(functools.partial(source.next, offset), SOURCE):
        pass


@contextlib.asynccontextmanager
async def ahead(read: Callable[[], bytes], shown: str) -> AsyncGenerator[MemoryObjectReceiveStream[bytes]]:
    """What is read piece by piece in a thread, until there is none, each while the one before it is sent."""
    taken, pieces = anyio.create_memory_object_stream[bytes](1)

    async def fill() -> None:
        async with taken:
            while piece := await in_thread(read, shown):
                await taken.send(piece)

    async with side_by_side() as group, pieces:
        group.start_soon(fill)
        yield pieces
        group.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def side_by_side() -> AsyncGenerator[TaskGroup]:
    """Several things at once; the first failure ends the others, and is the one that is raised."""
    try:
        async with anyio.create_task_group() as group:
            yield group
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors


async def _send_rest(stream: RemoteProcess, source: Source, progress: TransferProgress) -> bool:
    """Send the rest of a file; False where it became shorter meanwhile, or the other side takes no more."""
    done = source.at
    async with ahead(source.next, SOURCE) as pieces:
        async for piece in pieces:
            if not await stream.write(piece):
                return False
            done += len(piece)
            await progress.advance(done)
    return done == source.size


# ---- from the machine --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RemoteFile:
    """A file of the machine; it is sent once we say from which offset.

    Attributes:
        path: Its path, as the machine has it.
        offer: What is known of it; `None` for a folder.
        stream: On which it comes.
        summed: Takes what comes apart.
    """

    path: str
    offer: Offer
    stream: RemoteProcess
    summed: ChecksummedFile

    async def read(self) -> list[memoryview]:
        """Some of its bytes, in pieces; none at the end."""
        while chunk := await self.stream.read():
            if passed := self.summed.feed(chunk):
                return passed
        return []


@dataclass(frozen=True)
class RemoteFolder:
    """A folder of the machine; it is sent if we ask for it.

    Attributes:
        path: Its path, as the machine has it.
        stream: On which it would come.
    """

    path: str
    stream: RemoteProcess
    asked: PathQuery

    async def begin(self) -> None:
        """Have it come as a tar stream.

        Raises:
            NoTar: The machine has no tar.
        """
        await self.stream.write(b"tar\n")
        self.stream.end_input()
        await self.stream.answer(self.asked)


@contextlib.asynccontextmanager
async def open_remote(
    host: Session, path: str, maximum: int = ANY_SIZE, *, at_once: bool = False
) -> AsyncGenerator[RemoteFile | RemoteFolder]:
    """What the machine has at a path.

    Args:
        host: The session.
        path: The path.
        maximum: The most bytes it may have.
        at_once: Have all of a file follow without a word from us, which would be a round trip.
    """
    asked = ask_send(path, maximum, at_once=at_once)
    async with streaming(host.link, host.protect(asked.command), host.acting) as stream:
        if at_once:
            stream.end_input()
        answer = await stream.answer(asked)
        offer = parse_offer(answer)
        if offer is None:
            yield RemoteFolder(answer.path, stream, asked)
        else:
            yield RemoteFile(answer.path, offer, stream, ChecksummedFile(asked, offer))


async def fetch(host: Session, path: str, maximum: int) -> tuple[str, bytes | None]:
    """A file's content in memory, `None` for a folder.

    Raises:
        Larger: It has more bytes.
        Conflict: It changed while it was being read.
    """
    async with open_remote(host, path, maximum, at_once=True) as there:
        if isinstance(there, RemoteFolder):
            await there.stream.finish()
            return there.path, None
        content = bytearray()
        while len(content) <= maximum and (pieces := await there.read()):
            content += b"".join(pieces)
        await there.stream.finish()
    data = bytes(content)
    if there.offer.version and await anyio.to_thread.run_sync(_sha256, data) != there.summed.sha256:
        raise _file_changed(there.path)
    return there.path, data


async def download(
    host: Session,
    path: str,
    goal: "DownloadTarget",
    progress: TransferProgress,
    grow: Callable[[RemoteFolder], Awaitable[T]],
) -> TransferResult | T:
    """Receive a file; where it is a folder, what `grow` makes of it.

    Raises:
        Conflict: It changed while it was being read.
    """
    try:
        return await _download(host, path, goal, progress, grow)
    except _Bad as bad:
        if not bad.resumed:
            raise _file_changed(path) from bad
    # What an earlier try left was bad; it is removed now.
    try:
        return await _download(host, path, goal, progress, grow)
    except _Bad as bad:
        raise _file_changed(path) from bad


@dataclass(frozen=True)
class DownloadTarget:
    """Where a download goes.

    Attributes:
        place: Resolved and allowed; the folders on the way are made.
        shown: The path as the caller gave it.
        quota: Counts what is written.
    """

    place: Path
    shown: str
    quota: Quota = UNLIMITED

    def with_name(self, name: str) -> "DownloadTarget":
        """The place of that name in this folder."""
        return replace(self, place=self.place / name)


def receiving(progress: TransferProgress, size: int) -> None:
    """From here on a file of that many bytes comes, and is kept as far as it came."""
    progress.total, progress.resumes = size, True
    progress.left = lambda: f"{progress.done} of {size} bytes came, and the local file is unchanged"


class _Bad(Exception):
    """What came does not have the SHA-256 it should have."""

    def __init__(self, resumed: int) -> None:
        super().__init__()
        self.resumed = resumed


async def _download(
    host: Session,
    path: str,
    goal: DownloadTarget,
    progress: TransferProgress,
    grow: Callable[[RemoteFolder], Awaitable[T]],
) -> TransferResult | T:
    async with open_remote(host, path) as there, contextlib.AsyncExitStack() as held:
        if isinstance(there, RemoteFolder):
            return await grow(there)
        offer, stream = there.offer, there.stream
        partial = partial_name(goal.place.name, host.name, there.path, offer.size, offer.version)
        opened = local_files.sink(goal.place, partial, offer.size, goal.quota)
        target = await in_thread(functools.partial(opened.__enter__), goal.shown)
        held.callback(opened.__exit__, None, None, None)
        resumed = target.have
        await stream.write(f"{resumed}\n".encode())
        stream.end_input()
        receiving(progress, offer.size)
        while pieces := await there.read():
            await in_thread(functools.partial(target.write, *pieces), goal.shown)
            await progress.advance(target.have)
        _, said = await stream.finish()
        await _keep(target, there, goal.shown, resumed, said)
    return TransferResult(there.path, target.have, target.digest.hexdigest(), resumed, f"{offer.mode:04o}")


async def _keep(target: Sink, there: RemoteFile, shown: str, resumed: int, said: bytes) -> None:
    offer = there.offer
    if offer.version and (target.have < offer.size or there.summed.sha256 is None):
        raise RemoteFailed(
            f"only {target.have} of {offer.size} bytes came",
            hint="try again: what came is kept, and the rest follows",
            details=said_details(said),
        )
    if offer.version and target.digest.hexdigest() != there.summed.sha256:
        await in_thread(target.discard, shown)
        raise _Bad(resumed)
    await in_thread(functools.partial(target.commit, offer.mode), shown)
    await in_thread(target.sweep, shown)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _file_changed(path: str) -> Conflict:
    return Conflict(
        f"{quote_path(path)} changed while it was being read; nothing was kept",
        hint="try again; a file that never rests can be read with `cat` through command_exec",
        details={"path": path},
    )
