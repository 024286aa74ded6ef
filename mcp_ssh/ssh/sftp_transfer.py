"""Files and folders on their way over SFTP, where there is no shell to help.

The server computes no SHA-256, so an upload is read back; a download is compared by its size, and its SHA-256 is that
of what came. Folders go file by file.
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

import anyio

from mcp_ssh.errors import Conflict, RemoteFailed
from mcp_ssh.probes.answers import named
from mcp_ssh.probes.file_transfer import Larger, Offer, partial_name
from mcp_ssh.ssh import local
from mcp_ssh.ssh.local import Source
from mcp_ssh.ssh.local_tree import Tally
from mcp_ssh.ssh.session import Session
from mcp_ssh.ssh.sftp import Sftp, Target, entry, opened, regular, removed_on_failure, synced, told, wire_path
from mcp_ssh.ssh.transfer import Goal, Progress, Transferred, Wish, in_thread
from mcp_ssh.ssh.tree import Grown
from mcp_ssh.tool import Call

CHUNK = 1024 * 1024
PIECE = 32 * 1024
"""What every server takes in one request: they take packets of 34,000 bytes (draft-ietf-secsh-filexfer-02, 3)."""


async def upload(host: Session, wish: Wish, source: Source, call: Call) -> Transferred:
    """Send a file; what an earlier try left is gone on from, and all of it is read back.

    Raises:
        Conflict: What arrived is not what was sent; the old file is unchanged.
    """
    sha256 = await in_thread(source.sha256, "the source")
    async with opened(host) as sftp:
        with told(wish.path):
            target = await Target.at(sftp, wish.path)
            part = target.beside(partial_name(wish.path, source.size, sha256))
            have = await _sent(sftp, part, source, Progress(call, source.size, "uploading"))
            if await _read_back(sftp, part) != sha256:
                await sftp.client.remove(part)
                raise Conflict(
                    f"what arrived for {named(wish.path)} is not what was read here; the old file is unchanged",
                    hint="try again: all of it will be sent anew",
                )
            outcome = await target.put(part, wish.permissions, wish.usual)
            shown = await sftp.shown(wish.path)
    return Transferred(shown, source.size, sha256, have, outcome.permissions, outcome.atomic)


async def _sent(sftp: Sftp, part: bytes, source: Source, progress: Progress) -> int:
    """Send what is not there yet; how much was."""
    import asyncssh

    own: Any = await sftp.facts(part, follow=False)
    if own is not None and not stat.S_ISREG(own.permissions or 0):
        raise Conflict("something that is no partial upload is in the way", hint="look at the folder with file_list")
    have = min(own.size or 0, source.size) if own is not None else 0
    try:
        async with sftp.client.open(part, "r+b" if own is not None else "xb", block_size=0) as file:
            offset = have
            while chunk := await in_thread(functools.partial(source.read, offset), "the source"):
                await _write_block(file, chunk, offset)
                offset += len(chunk)
                await progress.reached(offset)
            await file.truncate(source.size)
            await synced(file)
    except asyncssh.SFTPFailure:
        # A full disk, most likely: it should not stay full of this.
        with contextlib.suppress(asyncssh.SFTPError):
            await sftp.client.remove(part)
        raise
    return have


async def _write_block(file: Any, data: bytes, offset: int) -> None:
    """Write a block, its pieces side by side.

    asyncssh would split it too (so files are opened with block_size=0, which keeps it from that), but it leaves the
    errors of the other pieces to nobody when one fails.
    """
    try:
        async with anyio.create_task_group() as group:
            for start in range(0, len(data), PIECE):
                group.start_soon(file.write, data[start : start + PIECE], offset + start)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors


async def _read_block(file: Any, offset: int) -> bytes:
    """Read a block, its pieces side by side; nothing at the end of the file."""
    pieces: dict[int, bytes] = {}

    async def read(start: int) -> None:
        pieces[start] = await file.read(PIECE, offset + start)

    try:
        async with anyio.create_task_group() as group:
            for start in range(0, CHUNK, PIECE):
                group.start_soon(read, start)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
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
    async with opened(host) as sftp:
        with told(path):
            facts: Any = await sftp.client.stat(wire_path(path))
            if stat.S_ISDIR(facts.permissions or 0):
                return path, None
            regular(path, facts)
            if (facts.size or 0) > maximum:
                raise Larger(path, facts.size)
            async with sftp.client.open(wire_path(path), "rb") as file:
                return await sftp.shown(path), await file.read(maximum)


async def download(host: Session, path: str, goal: Goal, call: Call) -> Transferred | None:
    """Receive a file; `None` where it is a folder."""
    async with opened(host) as sftp:
        with told(path):
            facts: Any = await sftp.client.stat(wire_path(path))
            if stat.S_ISDIR(facts.permissions or 0):
                return None
            regular(path, facts)
            real = await sftp.real(path)
            offer = Offer(facts.size or 0, stat.S_IMODE(facts.permissions or 0o600), None)
            partial = partial_name(goal.place.name, host.name, real, offer.size, facts.mtime)
            async with contextlib.AsyncExitStack() as held:
                sink = local.sink(goal.place, partial, offer.size, make=goal.make)
                target = await in_thread(functools.partial(sink.__enter__), goal.shown)
                held.callback(sink.__exit__, None, None, None)
                resumed, progress = target.have, Progress(call, offer.size, "downloading")
                async with sftp.client.open(real, "rb", block_size=0) as file:
                    while chunk := await _read_block(file, target.have):
                        await in_thread(functools.partial(target.write, chunk), goal.shown)
                        await progress.reached(target.have)
                if target.have != offer.size:
                    await in_thread(target.discard, goal.shown)
                    raise Conflict(f"{named(path)} changed while it was being read; nothing was kept", hint="try again")
                await in_thread(functools.partial(target.commit, offer.mode), goal.shown)
            done = Transferred(await sftp.shown(path), target.have, target.digest.hexdigest(), resumed)
    return done


# ---- folders -----------------------------------------------------------------------------------------------------


async def upload_tree(host: Session, path: str, place: Path, shown: str, call: Call) -> Grown:
    """Send what is in a local folder into one of the machine, file by file."""
    root = await in_thread(functools.partial(local.enter, place), shown)
    try:
        async with opened(host) as sftp:
            with told(path):
                growing = _Growing(sftp, shown, call)
                await growing.fill(await sftp.real(path.rstrip("/") or "/"), root)
                return Grown(await sftp.shown(path), growing.tally)
    finally:
        os.close(root)


class _Growing:
    """A local folder on its way, file by file."""

    def __init__(self, sftp: Sftp, shown: str, call: Call) -> None:
        self._sftp = sftp
        self._shown = shown
        self._progress = Progress(call, None, "uploading")
        self.tally = Tally()

    async def fill(self, folder: bytes, handle: int) -> None:
        """Put what is in an open local folder into one of the machine, which is made where it is missing."""
        if await self._sftp.facts(folder) is None:
            await self._sftp.client.mkdir(folder)
        for name in sorted(await in_thread(functools.partial(os.listdir, handle), self._shown)):
            looking = functools.partial(os.stat, name, dir_fd=handle, follow_symlinks=False)
            mode = (await in_thread(looking, self._shown)).st_mode
            there = posixpath.join(folder, os.fsencode(name))
            if stat.S_ISDIR(mode):
                inner = await in_thread(functools.partial(local.enter_in, name, handle), self._shown)
                try:
                    await self.fill(there, inner)
                finally:
                    os.close(inner)
            elif stat.S_ISLNK(mode):
                await _linked(self._sftp, there, os.readlink(name, dir_fd=handle))
                self.tally.count += 1
            elif stat.S_ISREG(mode):
                await self._file(there, name, handle)
            else:
                self.tally.skip(name)

    async def _file(self, there: bytes, name: str, handle: int) -> None:
        source = await in_thread(functools.partial(local.source_in, name, handle), self._shown)
        if source is None:
            self.tally.skip(name)
            return
        try:
            await _put(self._sftp, there, source)
        finally:
            source.close()
        self.tally.count += 1
        self.tally.size += source.size
        await self._progress.reached(self.tally.size)


async def _linked(sftp: Sftp, there: bytes, target: str) -> None:
    new = posixpath.join(posixpath.dirname(there), f".mcp-ssh-{secrets.token_hex(12)}.part".encode())
    async with removed_on_failure(sftp, new):
        await sftp.client.symlink(os.fsencode(target), new)
        await sftp.client.posix_rename(new, there)


async def _put(sftp: Sftp, there: bytes, source: Source) -> None:
    new = posixpath.join(posixpath.dirname(there), f".mcp-ssh-{secrets.token_hex(12)}.part".encode())
    async with removed_on_failure(sftp, new):
        async with sftp.client.open(new, "xb", block_size=0) as file:
            offset = 0
            while chunk := await in_thread(functools.partial(source.read, offset), "the source"):
                await _write_block(file, chunk, offset)
                offset += len(chunk)
        await sftp.client.chmod(new, source.mode & 0o777)
        await sftp.client.posix_rename(new, there)


async def download_tree(host: Session, path: str, goal: Goal, call: Call) -> Grown:
    """Receive what is in a folder of the machine into a local one, file by file. Links are left out."""
    tally, progress = Tally(), Progress(call, None, "downloading")
    async with opened(host) as sftp:
        with told(path):
            todo = [(await sftp.real(path), goal.place)]
            while todo:
                folder, place = todo.pop()
                opening = functools.partial(local.enter, place, make=True)
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
                        await _got(sftp, there, here, found.mode, goal)
                        tally.count += 1
                        tally.size += found.size
                        await progress.reached(tally.size)
                    else:
                        tally.skip(os.fsdecode(found.name))
            return Grown(await sftp.shown(path), tally)


async def _got(sftp: Sftp, there: bytes, here: Path, mode: int, goal: Goal) -> None:
    sink = local.sink(here, secrets.token_hex(12), 0, make=True)
    target = await in_thread(functools.partial(sink.__enter__), goal.shown)
    try:
        async with sftp.client.open(there, "rb", block_size=0) as file:
            while chunk := await _read_block(file, target.have):
                await in_thread(functools.partial(target.write, chunk), goal.shown)
        await in_thread(functools.partial(target.commit, mode & 0o777), goal.shown)
    except BaseException:
        target.discard()
        raise
    finally:
        sink.__exit__(None, None, None)
