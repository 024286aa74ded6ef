"""Folders of this server's machine as tar streams, made and taken in without following a link. Everything here blocks.

A tar stream from a machine is a list of wishes: the owner of the machine could ask for `../../.ssh/authorized_keys`, or
for a link and then for a file behind it. So each folder on an entry's way is entered by descriptor and may not be a
link, and a file is made beside its goal under our name and renamed. Nothing outside the folder can be reached.
"""

import contextlib
import errno
import hashlib
import math
import os
import secrets
import stat
import tarfile
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from mcp_ssh.errors import Conflict, PermissionDenied
from mcp_ssh.policy.local_places import MOST_DEEP
from mcp_ssh.transfers.local_files import make_folder
from mcp_ssh.transfers.local_quota import ENTRY_BYTES, UNLIMITED, Quota, freed_size
from mcp_ssh.transfers.tar_stream import ForwardReader, OffsetChunks, entries

BATCH = 1024 * 1024
SHOWN = 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


_REST = b"0".ljust(101, b"\0") + tarfile.GNU_MAGIC.ljust(255, b"\0")
"""What is the same in every header of a plain file, behind the sum."""
_REST_SUM = sum(_REST) + 8 * ord(" ")


@dataclass
class TransferCounts:
    """What travelled: files, links and others without the folders, the bytes of the files, and what stayed behind.

    Attributes:
        digest: SHA-256 of what was sent of all files that their owner may read, one after the other.
    """

    count: int = 0
    size: int = 0
    left: int = 0
    skipped: list[str] = field(default_factory=list[str])
    digest: Any = field(default_factory=hashlib.sha256, repr=False)

    def skip(self, name: str) -> None:
        """Leave something behind; the first few are named."""
        self.left += 1
        if len(self.skipped) < SHOWN:
            self.skipped.append(name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def archive(root: int, tally: TransferCounts) -> Generator[bytes]:
    """A folder as a tar stream in pieces: all under `t`, and at the very end a file `end` with the tally's SHA-256.

    The order is that of the paths' bytes, which a machine can find again.
    The GNU format is the one that every tar reads, and that keeps names of any length in any bytes. Owners and unusual
    bits are left out: on the machine everything belongs to the account.
    """
    yield _header("t", os.fstat(root), tarfile.DIRTYPE)
    yield from _inside(root, "t", tally)
    digest = tally.digest.hexdigest().encode()
    yield _header("end", os.fstat(root), tarfile.REGTYPE, size=len(digest))
    yield digest + bytes(3 * tarfile.BLOCKSIZE - len(digest))


def _header(name: str, facts: os.stat_result, kind: bytes, target: str = "", size: int = 0) -> bytes:
    plain, mtime = os.fsencode(name), max(int(facts.st_mtime), 0)
    if kind == tarfile.REGTYPE and len(plain) <= tarfile.LENGTH_NAME and max(size, mtime) < 8**11:
        return plain_header(plain, facts.st_mode & 0o777, size, mtime)
    info = tarfile.TarInfo(name)
    # A folder that may not be written to could not be filled.
    info.mode = facts.st_mode & 0o777 | (0o700 if kind == tarfile.DIRTYPE else 0)
    info.type, info.linkname, info.size, info.mtime = kind, target, size, mtime
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def plain_header(name: bytes, mode: int, size: int, mtime: int) -> bytes:
    """The header of a file whose name and numbers fit their fields: tarfile takes five times as long over it."""
    start = b"%b%07o\0%b%011o\0%011o\0" % (name.ljust(100, b"\0"), mode, b"0000000\0" * 2, size, mtime)
    # The sum is taken as if its own field were blank (tar(5)).
    return b"%b%06o\0 %b" % (start, sum(start) + _REST_SUM, _REST)


def _inside(folder: int, path: str, tally: TransferCounts) -> Generator[bytes]:
    with os.scandir(folder) as found:
        # With its slash a folder comes where `sort` puts what is in it.
        named = {os.fsencode(each.name + "/" * each.is_dir(follow_symlinks=False)): each for each in found}
    for _, each in sorted(named.items()):
        inner = f"{path}/{each.name}"
        if each.is_dir(follow_symlinks=False):
            handle = os.open(each.name, _FOLDER, dir_fd=folder)
            try:
                yield _header(inner, os.fstat(handle), tarfile.DIRTYPE)
                yield from _inside(handle, inner, tally)
            finally:
                os.close(handle)
        elif each.is_symlink():
            tally.count += 1
            facts = each.stat(follow_symlinks=False)
            yield _header(inner, facts, tarfile.SYMTYPE, os.readlink(each.name, dir_fd=folder))
        elif each.is_file(follow_symlinks=False):
            tally.count += 1
            yield from _file(folder, each.name, inner, tally)
        else:
            tally.skip(inner[2:])


def _file(folder: int, name: str, path: str, tally: TransferCounts) -> Generator[bytes]:
    try:
        handle = os.open(name, _FILE, dir_fd=folder)
    except PermissionError as error:
        raise PermissionDenied(f"local_path: {path[2:]!r} in it is not open to this server") from error
    except FileNotFoundError as error:
        raise Conflict(f"local_path: {path[2:]!r} in it was removed meanwhile", hint="try again") from error
    try:
        facts = os.fstat(handle)
        yield _header(path, facts, tarfile.REGTYPE, size=facts.st_size)
        left = facts.st_size
        while left:
            chunk = os.read(handle, min(BATCH, left))
            if not chunk:
                raise Conflict(f"local_path: {path[2:]!r} in it became shorter meanwhile", hint="try again")
            left -= len(chunk)
            if facts.st_mode & stat.S_IRUSR:
                tally.digest.update(chunk)
            yield chunk
        tally.size += facts.st_size
        yield bytes(-facts.st_size % tarfile.BLOCKSIZE)
    finally:
        os.close(handle)


def batch(pieces: Generator[bytes]) -> bytes:
    """The next pieces together, about a MiB; nothing at the end."""
    held, size = list[bytes](), 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= BATCH:
            break
    return b"".join(held)


class TarExtractor:
    """Takes a tar stream into a folder.

    Args:
        root: Descriptor of the folder.
        links_inside: Leave out links that lead out of the folder.
        quota: Counts what is written.
    """

    def __init__(self, root: int, tally: TransferCounts, quota: Quota = UNLIMITED, *, links_inside: bool) -> None:
        self._root = root
        self._tally = tally
        self._links_inside = links_inside
        self._quota = quota
        self._counted = 0
        self._token = secrets.token_hex(8)
        self._made_so_far = 0
        self._open: tuple[tuple[str, ...], int] = ((), os.dup(root))

    def take(self, stream: ForwardReader) -> None:
        """Take in everything that comes.

        Raises:
            tarfile.TarError: It is not a tar stream, or it ends early.
        """
        try:
            for entry, content in entries(stream):
                self._entry(entry, content)
        finally:
            os.close(self._open[1])

    def _entry(self, entry: tarfile.TarInfo, content: OffsetChunks) -> None:
        parts = _parts(entry.name)
        if parts is None:
            self._tally.skip(entry.name)
            return
        try:
            if not parts or entry.isdir():
                self._folder(parts, entry.mode & 0o777 | 0o700)
            elif self._make_entry(entry, parts, content):
                self._tally.count += 1
            else:
                self._tally.skip(entry.name)
        except (NotADirectoryError, IsADirectoryError, FileExistsError, FileNotFoundError):
            # Something of another kind is there already, or a link that would lead elsewhere.
            self._tally.skip(entry.name)
        except OSError as error:
            if error.errno != _LOOP:
                raise
            self._tally.skip(entry.name)

    def _make_entry(self, entry: tarfile.TarInfo, parts: tuple[str, ...], content: OffsetChunks) -> bool:
        folder = self._folder(parts[:-1], 0o700)
        self._made_so_far += 1
        self._counted = 0
        self._count(ENTRY_BYTES)
        new = f".mcp-ssh-{self._token}{self._made_so_far:08x}.part"
        try:
            if entry.isreg():
                self._write(entry, content, os.open(new, _NEW, 0o600, dir_fd=folder))
            elif entry.issym():
                if self._links_inside and not _stays(parts[:-1], entry.linkname):
                    return False
                os.symlink(entry.linkname, new, dir_fd=folder)
            elif not (entry.islnk() and self._link(entry, parts, new)):
                return False
            folder = self._folder(parts[:-1], 0o700)
            with contextlib.suppress(FileNotFoundError):
                replaced = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
                self._quota.remove(freed_size(replaced) + ENTRY_BYTES)
            os.rename(new, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            self._quota.remove(self._counted)
            with contextlib.suppress(OSError):
                os.unlink(new, dir_fd=self._folder(parts[:-1], 0o700))
            raise
        return True

    def _write(self, entry: tarfile.TarInfo, content: OffsetChunks, handle: int) -> None:
        try:
            # Holes of a sparse file count, too: a reader or a copy of the file meets them.
            self._count(entry.size)
            for offset, piece in content:
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.pwrite(handle, rest, offset + len(piece) - len(rest)) :]
            if entry.issparse():
                os.ftruncate(handle, entry.size)
            self._tally.size += entry.size
            os.fchmod(handle, entry.mode & 0o777)
            os.utime(handle, (_time(entry), _time(entry)))
        finally:
            os.close(handle)

    def _count(self, size: int) -> None:
        self._quota.add(size)
        self._counted += size

    def _link(self, entry: tarfile.TarInfo, parts: tuple[str, ...], new: str) -> bool:
        """A second name of a file that came before."""
        first = _parts(entry.linkname)
        if not first:
            return False
        there = os.dup(self._folder(first[:-1], 0o700))
        try:
            here = self._folder(parts[:-1], 0o700)
            os.link(first[-1], new, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
        finally:
            os.close(there)
        return True

    def _folder(self, parts: tuple[str, ...], mode: int) -> int:
        """A folder's descriptor, good until the next is asked for; it is made where it is missing."""
        if self._open[0] == parts:
            return self._open[1]
        handle = os.dup(self._root)
        try:
            for depth, part in enumerate(parts, 1):
                make_folder(part, mode if depth == len(parts) else 0o700, handle, self._quota)
                inner = os.open(part, _FOLDER, dir_fd=handle)
                os.close(handle)
                handle = inner
        except BaseException:
            os.close(handle)
            raise
        os.close(self._open[1])
        self._open = (parts, handle)
        return handle


LATEST_TIME = 2**33
"""In the year 2242. File systems keep no times that are much later."""


def _time(entry: tarfile.TarInfo) -> float:
    """The time of an entry, within what a file system keeps."""
    time = float(entry.mtime)
    return min(max(time, -(2.0**31)), float(LATEST_TIME)) if math.isfinite(time) else 0.0


_LOOP = errno.ELOOP
"""ELOOP: what was to be a folder is a link."""


def _parts(name: str) -> tuple[str, ...] | None:
    """The folders and the name of an entry; None where it does not stay in the folder, or lies too deep."""
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    return None if name.startswith("/") or ".." in parts or len(parts) > MOST_DEEP else parts


def _stays(folder: tuple[str, ...], target: str) -> bool:
    """Whether a link in a folder leads nowhere outside, going by its words alone."""
    if target.startswith("/"):
        return False
    depth = len(folder)
    for part in PurePosixPath(target).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return False
    return True
