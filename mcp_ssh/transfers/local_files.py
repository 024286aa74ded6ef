"""Files of the machine this server runs on: opened without following links, replaced by one rename.

A place was resolved, and allowed, before it comes here. From then on every folder on the way is entered by its
descriptor and must not be a link: one that was put there meanwhile is refused, not followed. Everything here blocks.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import Generator
from pathlib import Path

from mcp_ssh.errors import Conflict, InvalidInput, NotFound, PermissionDenied, RemoteFailed, TooLarge, ToolError
from mcp_ssh.transfers.local_quota import ENTRY_BYTES, UNLIMITED, Quota, freed_size

READ = 1024 * 1024
ANY = 2**62
ABANDONED_S = 7 * 86_400
"""How old a partial file is when nobody will go on with it; no call lasts longer than a day."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def trouble(error: OSError, shown: str) -> ToolError:
    """A failure of this machine's file system, about a path as the caller gave it."""
    about = f"local_path: {shown[:300]!r}"
    match error.errno:
        case errno.ENOENT:
            return NotFound(
                f"{about} does not exist on this server's machine",
                hint="check the path; a relative one starts in your transfer folder over HTTP, else in the folder that"
                " the server was started in",
            )
        case errno.ENOTDIR:
            return InvalidInput(
                f"{about} would have to be a folder on this server's machine, or lie in one, and a file is in the way",
                hint="choose another local path",
            )
        case errno.EACCES | errno.EPERM:
            return PermissionDenied(f"{about} is not open to this server", hint="choose another local path")
        case errno.ELOOP:
            return Conflict(f"{about} was replaced by a link meanwhile", hint="look at the folder before trying again")
        case errno.ENOSPC | errno.EDQUOT:
            return RemoteFailed(f"{about}: no space left on this server's machine", hint="free some space")
        case _:
            return RemoteFailed(f"{about}: {os.strerror(error.errno or 0).lower()}")


def enter(folder: Path, *, make: Quota | None = None) -> int:
    """A descriptor of a resolved folder, each part of its path entered without following links.

    Args:
        folder: Absolute and resolved.
        make: Make the folders that are missing, and count them.
    """
    handle = os.open("/", _FOLDER)
    try:
        for part in folder.parts[1:]:
            if make is not None:
                make_folder(part, 0o777, handle, make)
            inner = os.open(part, _FOLDER, dir_fd=handle)
            os.close(handle)
            handle = inner
    except BaseException:
        os.close(handle)
        raise
    return handle


def make_folder(name: str, mode: int, folder: int, quota: Quota) -> None:
    """Make a folder in an open one, unless it is there, and count it."""
    quota.add(ENTRY_BYTES)
    try:
        os.mkdir(name, mode, dir_fd=folder)
    except OSError as error:
        quota.remove(ENTRY_BYTES)
        if not isinstance(error, FileExistsError):
            raise


class Source:
    """Bytes to be sent: a local file, held open, or content that came with the call. They are read once, in order.

    Attributes:
        identity: Another one for other bytes, as far as the file's place and time tell.
        at: Up to where they were read.
    """

    def __init__(self, handle: int | None, content: bytes, mode: int) -> None:
        self._handle = handle
        self._content = content
        self.mode = mode
        if handle is None:
            self.size, self.identity = len(content), hashlib.sha256(content).hexdigest()
        else:
            facts = os.fstat(handle)
            self.size, self.identity = facts.st_size, f"{facts.st_dev}.{facts.st_ino}.{facts.st_mtime_ns}"
            self._written = _write_stamp(facts)
        self.begin()

    def begin(self) -> None:
        """Read from the start again."""
        self.at, self._digest = 0, hashlib.sha256()

    def next(self, limit: int = ANY) -> bytes:
        """The next bytes, up to a limit; never past the size it had at first."""
        chunk = self._read(min(self.size, limit))
        self._digest.update(chunk)
        self.at += len(chunk)
        return chunk

    def _read(self, limit: int) -> bytes:
        length = min(READ, limit - self.at)
        if self._handle is None:
            return self._content[self.at : self.at + length]
        return os.pread(self._handle, length, self.at)

    def sha256(self) -> str:
        """Of all that was read; none where a file that was written to meanwhile holds something else now."""
        found = self._digest.hexdigest()
        if self._handle is None or _write_stamp(os.fstat(self._handle)) == self._written:
            return found
        self.begin()
        while self.next():
            pass
        return found if self._digest.hexdigest() == found else ""

    def close(self) -> None:
        """Let go of the file."""
        if self._handle is not None:
            os.close(self._handle)


def _write_stamp(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_mtime_ns, facts.st_size


def source(place: Path) -> Source | None:
    """Open a resolved file for sending; `None` where it is a folder.

    Raises:
        InvalidInput: It is neither a regular file nor a folder.
    """
    folder = enter(place.parent)
    try:
        return source_in(place.name or ".", folder)
    finally:
        os.close(folder)


def enter_in(name: str, folder: int) -> int:
    """A descriptor of a folder in another."""
    return os.open(name, _FOLDER, dir_fd=folder)


def source_in(name: str, folder: int) -> Source | None:
    """The same for a name in a folder that is open."""
    # Not to wait for the other end of a pipe.
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return Source(handle, b"", stat.S_IMODE(mode))
    os.close(handle)
    if stat.S_ISDIR(mode):
        return None
    raise InvalidInput("local_path: is a device, pipe or socket, not a file", hint="name a regular file or a folder")


class Sink:
    """A local file on its way in: collected beside the target, checked, then put in its place by one rename."""

    def __init__(self, folder: int, name: str, partial: str, quota: Quota = UNLIMITED) -> None:
        self._folder = folder
        self._name = name
        self._quota = quota
        self._partial = f".mcp-ssh-{partial}.part"
        self.digest = hashlib.sha256()
        self.have = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._handle = os.open(self._partial, flags, 0o600, dir_fd=folder)
        facts = os.fstat(self._handle)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_nlink != 1:
            os.close(self._handle)
            raise Conflict("local_path: something that is not a partial download is in the way", hint="remove it")

    def resume(self, size: int) -> None:
        """Take in what an earlier try left.

        Raises:
            Conflict: Another call is at it.
        """
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict("the same download is under way in another call", hint="wait for its end") from error
        if os.fstat(self._handle).st_size > size:
            self.restart()
        while chunk := os.read(self._handle, READ):
            self.digest.update(chunk)
            self.have += len(chunk)
        try:
            self._quota.require(max(size - self.have, 0) + ENTRY_BYTES)
        except TooLarge:
            self.discard()
            raise

    def restart(self) -> None:
        """Forget what is there."""
        os.ftruncate(self._handle, 0)
        os.lseek(self._handle, 0, os.SEEK_SET)
        self._quota.remove(self.have)
        self.digest, self.have = hashlib.sha256(), 0

    def peek(self, offset: int, length: int) -> bytes:
        """Some of what is there."""
        return os.pread(self._handle, length, offset)

    def write(self, *pieces: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            TooLarge: They do not fit into the quota; what was collected is removed.
        """
        for piece in pieces:
            try:
                self._quota.add(len(piece))
            except TooLarge:
                self.discard()
                raise
            self.digest.update(piece)
            self.have += len(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(self._handle, rest) :]

    def commit(self, mode: int) -> None:
        """Put the file in its place. One that was there gives it its permissions, else `mode` does."""
        try:
            facts = os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            mode &= 0o777 & ~_umask()
            self._quota.add(ENTRY_BYTES)
        else:
            if not stat.S_ISREG(facts.st_mode):
                raise InvalidInput("local_path: is not a regular file", hint="add the name the file is to have")
            mode = stat.S_IMODE(facts.st_mode)
            self._quota.remove(freed_size(facts))
        os.fchmod(self._handle, mode)
        os.fsync(self._handle)
        os.rename(self._partial, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        os.fsync(self._folder)

    def discard(self) -> None:
        """Remove what was collected."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._partial, dir_fd=self._folder)
            self._quota.remove(self.have)

    def sweep(self) -> None:
        """Remove what downloads of long ago left in the folder, and nobody is at."""
        with os.scandir(self._folder) as entries:
            partial = [each.name for each in entries if PARTIAL.fullmatch(each.name)]
        for name in partial:
            # What cannot be removed is not a reason for a download to fail.
            with contextlib.suppress(OSError):
                _remove_abandoned(name, self._folder)

    def close(self) -> None:
        """Let go; what was collected and not committed stays, for the next try."""
        os.close(self._handle)


PARTIAL = re.compile(r"\.mcp-ssh-[0-9a-f]{16,24}\.part")


def _remove_abandoned(name: str, folder: int) -> None:
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    try:
        facts = os.fstat(handle)
        ours = stat.S_ISREG(facts.st_mode) and facts.st_uid == os.geteuid()
        if ours and time.time() - facts.st_mtime > ABANDONED_S:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=folder)
    finally:
        os.close(handle)


def _umask() -> int:
    """This process's umask, as /proc has it where there is one: asking the kernel means changing it for a moment."""
    with contextlib.suppress(OSError, StopIteration, ValueError), Path("/proc/self/status").open() as lines:
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    return 0o022


@contextlib.contextmanager
def sink(place: Path, partial: str, size: int, quota: Quota = UNLIMITED) -> Generator[Sink]:
    """A file to be received at a resolved place; the folders on the way are made.

    Args:
        place: Absolute and resolved.
        partial: What the name of the partial file has in it.
        size: How many bytes there will be.
        quota: Counts what is written.
    """
    folder = enter(place.parent, make=quota)
    try:
        if place.is_dir():
            raise InvalidInput("local_path: is a folder", hint="add the name the file is to have")
        collected = Sink(folder, place.name, partial, quota)
        try:
            collected.resume(size)
            yield collected
        finally:
            collected.close()
    finally:
        os.close(folder)


def keep(place: Path, content: bytes, sha256: str, quota: Quota = UNLIMITED) -> None:
    """Make content that is in memory the file at a resolved place."""
    with sink(place, sha256[:24], len(content), quota) as target:
        target.restart()
        target.write(content)
        target.commit(0o666)
