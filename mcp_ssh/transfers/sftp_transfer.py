"""Files and folders on their way over SFTP, where there is no shell to help.

The server computes no SHA-256, so an upload is read back, and the SHA-256 of a download is that of what came. A
download that continues from an earlier try trusts what that brought where size and time of the file are the same and
samples of it fit: to compare all of it would be to read all of it again. Folders go file by file.
"""

import contextlib
import functools
import hashlib
import os
import posixpath
import secrets
import stat
from pathlib import Path
from typing import Any

from mcp_ssh.errors import Conflict, RemoteFailed
from mcp_ssh.linux.files.transfer import Larger, partial_name
from mcp_ssh.linux.framing import quote_path
from mcp_ssh.sessions.session import Session
from mcp_ssh.transfers import local_files
from mcp_ssh.transfers.file import (
    SOURCE,
    DownloadTarget,
    TransferProgress,
    TransferResult,
    UploadTarget,
    ahead,
    in_thread,
    passed_over,
    receiving,
    side_by_side,
)
from mcp_ssh.transfers.local_files import Sink, Source
from mcp_ssh.transfers.local_tree import TransferCounts
from mcp_ssh.transfers.sftp import (
    DirectoryEntry,
    Sftp,
    SftpTarget,
    entry,
    open_sftp,
    regular,
    removed_on_failure,
    sftp_errors,
    sync_file,
    wire_path,
)
from mcp_ssh.transfers.tree import TreeResult, came

CHUNK = 1024 * 1024
PIECE = 32 * 1024
"""What every server takes in one request: they take packets of 34,000 bytes (draft-ietf-secsh-filexfer-02, 3)."""

SAMPLES = 15
_NO_SIZES = (b"/proc/", b"/sys/")
"""Where files do not tell their size."""
LOOKED_AT = 1000
"""Names of a folder that are looked through for partial files of long ago: each hundred is a round trip."""


async def upload(host: Session, wish: UploadTarget, source: Source, progress: TransferProgress) -> TransferResult:
    """Send a file; what an earlier try left is gone on from, and all of it is read back.

    Raises:
        Conflict: What arrived is not what was sent; the old file is unchanged.
    """
    async with open_sftp(host) as sftp:
        with sftp_errors(wish.path):
            target = await SftpTarget.at(sftp, wish.path)
            part = target.beside(partial_name(wish.path, source.size, source.identity))
            progress.total, progress.resumes = source.size, True
            progress.left = lambda: (
                f"up to {progress.done} of {source.size} bytes arrived, and the file there is unchanged"
            )
            have = await _send_rest(sftp, part, source, progress)
            sha256 = await in_thread(source.sha256, SOURCE)
            if await _read_back(sftp, part) != sha256:
                await sftp.client.remove(part)
                raise Conflict(
                    f"what arrived for {quote_path(wish.path)} is not what was read here; the old file is unchanged",
                    hint="try again: all of it will be sent again",
                )
            progress.left = lambda: "all of it was sent, so the file there is the old one or the new one"
            outcome = await target.put(part, wish.permissions, wish.usual)
            await _remove_old_parts(sftp, target.real)
            shown = await sftp.display_path(wish.path)
    return TransferResult(shown, source.size, sha256, have, outcome.permissions, outcome.atomic)


async def _remove_old_parts(sftp: Sftp, written: bytes) -> None:
    """Remove partial files of long ago from the folder of a file just written, whose time is the machine's own."""
    import asyncssh

    with contextlib.suppress(asyncssh.SFTPError):
        now: Any = await sftp.client.stat(written)
        folder, seen = posixpath.dirname(written), 0
        async with contextlib.aclosing(sftp.client.scandir(folder)) as entries:
            async for each in entries:
                found = entry(each)
                ours = (
                    stat.S_ISREG(found.mode)
                    and found.uid == now.uid
                    and local_files.PARTIAL.fullmatch(os.fsdecode(found.name))
                )
                if ours and (now.mtime or 0) - found.mtime > local_files.ABANDONED_S:
                    await sftp.client.remove(posixpath.join(folder, found.name))
                if (seen := seen + 1) >= LOOKED_AT:
                    break


async def _send_rest(sftp: Sftp, part: bytes, source: Source, progress: TransferProgress) -> int:
    """Send what is not there yet; how much was."""
    import asyncssh

    own: Any = await sftp.facts(part, follow=False)
    if own is not None and not stat.S_ISREG(own.permissions or 0):
        raise Conflict("something that is not a partial upload is in the way", hint="look at the folder with file_list")
    have = min(own.size or 0, source.size) if own is not None else 0
    try:
        async with sftp.client.open(part, "r+b" if own is not None else "xb", block_size=0) as file:
            await passed_over(source, have)
            await _write_rest(file, source, progress)
            await file.truncate(source.size)
            await sync_file(file)
    except asyncssh.SFTPFailure:
        # A full disk, most likely: it should not stay full of this.
        with contextlib.suppress(asyncssh.SFTPError):
            await sftp.client.remove(part)
        raise
    return have


async def _write_rest(file: Any, source: Source, progress: TransferProgress | None = None) -> None:
    """Write the rest of a source at its place."""
    offset = source.at
    async with ahead(source.next, SOURCE) as pieces:
        async for piece in pieces:
            await _write_block(file, piece, offset)
            offset += len(piece)
            if progress is not None:
                await progress.advance(offset)


async def _write_block(file: Any, data: bytes, offset: int) -> None:
    """Write a block, its pieces side by side.

    asyncssh would split it too (so files are opened with block_size=0, which keeps it from that), but it leaves the
    errors of the other pieces to nobody when one fails.
    """
    async with side_by_side() as group:
        for start in range(0, len(data), PIECE):
            group.start_soon(file.write, data[start : start + PIECE], offset + start)


async def _read_block(file: Any, offset: int) -> bytes:
    """Read a block, its pieces side by side; nothing at the end of the file."""
    pieces: dict[int, bytes] = {}

    async def read(start: int) -> None:
        pieces[start] = await file.read(PIECE, offset + start)

    async with side_by_side() as group:
        for start in range(0, CHUNK, PIECE):
            group.start_soon(read, start)
    data = b""
    for start in range(0, CHUNK, PIECE):
        data += pieces[start]
        if len(pieces[start]) < PIECE:  # a server may send less than was asked for, and not only at the end
            break
    return data


async def _read_back(sftp: Sftp, path: bytes) -> str:
    digest, offset = hashlib.sha256(), 0
    async with sftp.client.open(path, "rb", block_size=0) as file:
        while chunk := await _read_block(file, offset):
            digest.update(chunk)
            offset += len(chunk)
    return digest.hexdigest()


async def fetch(host: Session, path: str, maximum: int) -> tuple[str, bytes | None]:
    """A file's content in memory, `None` for a folder.

    Raises:
        Larger: It has more bytes.
    """
    async with open_sftp(host) as sftp:
        with sftp_errors(path):
            facts: Any = await sftp.client.stat(wire_path(path))
            if stat.S_ISDIR(facts.permissions or 0):
                return path, None
            regular(path, facts)
            if (facts.size or 0) > maximum:
                raise Larger(path, facts.size)
            async with sftp.client.open(wire_path(path), "rb") as file:
                return await sftp.display_path(path), await file.read(maximum)


async def download(host: Session, path: str, goal: DownloadTarget, progress: TransferProgress) -> TransferResult | None:
    """Receive a file; `None` where it is a folder.

    Raises:
        Conflict: It changed while it was being read.
    """
    async with open_sftp(host) as sftp:
        with sftp_errors(path):
            facts: Any = await sftp.client.stat(wire_path(path))
            if stat.S_ISDIR(facts.permissions or 0):
                return None
            regular(path, facts)
            real = await sftp.real(path)
            partial = partial_name(goal.place.name, host.name, real, *_state(facts))
            async with contextlib.AsyncExitStack() as held:
                sink = local_files.sink(goal.place, partial, facts.size or 0, goal.quota)
                target = await in_thread(functools.partial(sink.__enter__), goal.shown)
                held.callback(sink.__exit__, None, None, None)
                receiving(progress, facts.size or 0)
                async with sftp.client.open(real, "rb", block_size=0) as file:
                    if facts.mtime is None or not await _fits(file, target, goal.shown):
                        await in_thread(target.restart, goal.shown)
                    resumed = target.have
                    while chunk := await _read_block(file, target.have):
                        await in_thread(functools.partial(target.write, chunk), goal.shown)
                        await progress.advance(target.have)
                    now: Any = await file.stat()
                changed = (target.have, facts.mtime) != _state(now) or _state(now) != _state(facts)
                if changed and not real.startswith(_NO_SIZES):
                    await in_thread(target.discard, goal.shown)
                    raise Conflict(
                        f"{quote_path(path)} changed while it was being read; nothing was kept", hint="try again"
                    )
                mode = stat.S_IMODE(facts.permissions or 0o600)
                await in_thread(functools.partial(target.commit, mode), goal.shown)
                await in_thread(target.sweep, goal.shown)
            return TransferResult(await sftp.display_path(path), target.have, target.digest.hexdigest(), resumed)


def _state(facts: Any) -> tuple[int, int | None]:
    return facts.size or 0, facts.mtime


async def _fits(file: Any, target: Sink, shown: str) -> bool:
    """Whether what an earlier try brought is what the machine has: its first bytes, its last, and some between."""
    last = max(target.have - PIECE, 0)
    fitting: list[bool] = []

    async def compare(offset: int) -> None:
        here = await in_thread(functools.partial(target.peek, offset, PIECE), shown)
        fitting.append(here == (await file.read(PIECE, offset))[: len(here)])

    async with side_by_side() as group:
        for offset in {last * number // SAMPLES for number in range(SAMPLES + 1)} if target.have else ():
            group.start_soon(compare, offset)
    return all(fitting)


# ---- folders -----------------------------------------------------------------------------------------------------


async def upload_tree(host: Session, path: str, place: Path, shown: str, progress: TransferProgress) -> TreeResult:
    """Send what is in a local folder into one of the machine, file by file."""
    root = await in_thread(functools.partial(local_files.enter, place), shown)
    try:
        async with open_sftp(host) as sftp:
            with sftp_errors(path):
                growing = _Growing(sftp, shown, progress)
                progress.left = lambda: f"{growing.tally.count} files are there, each whole; the rest is not"
                await growing.fill(await sftp.real(path.rstrip("/") or "/"), root)
                return TreeResult(await sftp.display_path(path), growing.tally)
    finally:
        os.close(root)


class _Growing:
    """A local folder on its way, file by file."""

    def __init__(self, sftp: Sftp, shown: str, progress: TransferProgress) -> None:
        self._sftp = sftp
        self._shown = shown
        self._progress = progress
        self.tally = TransferCounts()

    async def fill(self, folder: bytes, handle: int) -> None:
        """Put what is in an open local folder into one of the machine, which is made where it is missing."""
        written: bytes | None = None
        folder = await self._sftp.client.realpath(folder)
        self._sftp.spare(folder, os.fsdecode(folder))
        if await self._sftp.facts(folder) is None:
            await self._sftp.client.mkdir(folder)
        for name in sorted(await in_thread(functools.partial(os.listdir, handle), self._shown)):
            looking = functools.partial(os.stat, name, dir_fd=handle, follow_symlinks=False)
            mode = (await in_thread(looking, self._shown)).st_mode
            there = posixpath.join(folder, os.fsencode(name))
            self._sftp.spare(there, os.fsdecode(there))
            if stat.S_ISDIR(mode):
                inner = await in_thread(functools.partial(local_files.enter_in, name, handle), self._shown)
                try:
                    await self.fill(there, inner)
                finally:
                    os.close(inner)
            elif stat.S_ISLNK(mode):
                await _link_into_place(self._sftp, there, os.readlink(name, dir_fd=handle))
                self.tally.count += 1
            elif stat.S_ISREG(mode):
                await self._file(there, name, handle)
                written = there
            else:
                self.tally.skip(name)
        if written is not None:
            await _remove_old_parts(self._sftp, written)

    async def _file(self, there: bytes, name: str, handle: int) -> None:
        source = await in_thread(functools.partial(local_files.source_in, name, handle), self._shown)
        if source is None:
            self.tally.skip(name)
            return
        try:
            await _put(self._sftp, there, source)
        finally:
            source.close()
        self.tally.count += 1
        self.tally.size += source.size
        await self._progress.advance(self.tally.size)


async def _link_into_place(sftp: Sftp, there: bytes, target: str) -> None:
    new = posixpath.join(posixpath.dirname(there), f".mcp-ssh-{secrets.token_hex(12)}.part".encode())
    async with removed_on_failure(sftp, new):
        await sftp.client.symlink(os.fsencode(target), new)
        await sftp.client.posix_rename(new, there)


async def _put(sftp: Sftp, there: bytes, source: Source) -> None:
    new = posixpath.join(posixpath.dirname(there), f".mcp-ssh-{secrets.token_hex(12)}.part".encode())
    async with removed_on_failure(sftp, new):
        async with sftp.client.open(new, "xb", block_size=0) as file:
            await _write_rest(file, source)
        await sftp.client.chmod(new, source.mode & 0o777)
        await sftp.client.posix_rename(new, there)


async def download_tree(host: Session, path: str, goal: DownloadTarget, progress: TransferProgress) -> TreeResult:
    """Receive what is in a folder of the machine into a local one, file by file. Links are left out."""
    tally = TransferCounts()
    async with open_sftp(host) as sftp:
        with sftp_errors(path):
            todo = [(await sftp.real(path), goal.place)]
            progress.left = lambda: came(tally)
            while todo:
                folder, place = todo.pop()
                opening = functools.partial(local_files.enter, place, make=goal.quota)
                os.close(await in_thread(opening, goal.shown))
                async for each in sftp.client.scandir(folder):
                    found = entry(each)
                    there, here = posixpath.join(folder, found.name), place / os.fsdecode(found.name)
                    if found.name in {b".", b".."}:
                        continue
                    if b"/" in found.name:
                        raise RemoteFailed("the SFTP server named a file with a slash in it")
                    if stat.S_ISDIR(found.mode):
                        todo.append((there, here))
                    elif stat.S_ISREG(found.mode):
                        await _got(sftp, there, here, found, goal)
                        tally.count += 1
                        tally.size += found.size
                        await progress.advance(tally.size)
                    else:
                        tally.skip(os.fsdecode(found.name))
            return TreeResult(await sftp.display_path(path), tally)


async def _got(sftp: Sftp, there: bytes, here: Path, found: DirectoryEntry, goal: DownloadTarget) -> None:
    sink = local_files.sink(here, secrets.token_hex(12), found.size, goal.quota)
    target = await in_thread(functools.partial(sink.__enter__), goal.shown)
    try:
        async with sftp.client.open(there, "rb", block_size=0) as file:
            while chunk := await _read_block(file, target.have):
                await in_thread(functools.partial(target.write, chunk), goal.shown)
        await in_thread(functools.partial(target.commit, found.mode & 0o777), goal.shown)
    except BaseException:
        target.discard()
        raise
    finally:
        sink.__exit__(None, None, None)
