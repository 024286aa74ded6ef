"""The folder in which one process keeps its blobs, told apart from what dead processes left behind.

    <state folder>/blobs/<process>/lock     held with flock as long as the process lives
    <state folder>/blobs/<process>/<id>     a blob

A lock, not a process id in the name: it ends with the process however that dies, and holds across pid namespaces that
share the folder. Everything here blocks: it is run in threads.
"""

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path

from mcp_ssh.errors import Internal
from mcp_ssh.private_files import private_folder

_LOCK = "lock"
_ATTEMPTS = 20


class BlobFolder:
    """The blob folder of this process, claimed until `release`."""

    def __init__(self, state_folder: Path) -> None:
        private_folder(state_folder)
        self._root = state_folder / "blobs"
        private_folder(self._root, inner=True)
        self.path, self._lock = self._claim()

    def sweep(self) -> int:
        """Remove what dead processes left, and return the bytes that the living others hold."""
        held = 0
        for each in self._root.iterdir():
            if each != self.path and each.is_dir() and not each.is_symlink() and not _remove_if_dead(each):
                held += _size_bytes(each)
        return held

    def release(self) -> None:
        """Remove the folder and all in it."""
        _remove(self.path)
        os.close(self._lock)

    def _claim(self) -> tuple[Path, int]:
        for _ in range(_ATTEMPTS):
            path = self._root / secrets.token_hex(8)
            path.mkdir(mode=0o700)
            # Until the lock is held the folder looks abandoned, so another process may take it away: try again then.
            with suppress(FileNotFoundError, BlockingIOError):
                return path, _open_lock(path, os.O_CREAT | os.O_EXCL)
        raise Internal("no folder for large outputs could be made", hint="look at `blobs` in the state folder")


def _open_lock(folder: Path, extra: int = 0) -> int:
    """The open lock file of a folder, held.

    Raises:
        FileNotFoundError: It is gone.
        BlockingIOError: Another process holds it.
    """
    path = folder / _LOCK
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | extra, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _expect_same(handle, path)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _expect_same(handle: int, path: Path) -> None:
    if not os.path.samestat(os.fstat(handle), path.stat()):
        raise FileNotFoundError(_LOCK)


def _remove_if_dead(folder: Path) -> bool:
    """Remove a folder whose process is dead; says whether it is gone."""
    try:
        handle = _open_lock(folder)
    except FileNotFoundError:
        with suppress(OSError):
            folder.rmdir()  # never locked and empty; a process about to lock it makes another
        return not folder.exists()
    except OSError:
        return False
    try:
        _remove(folder)
    finally:
        os.close(handle)
    return True


def _remove(folder: Path) -> None:
    """Remove a folder and its files, the lock last, so that what a crash leaves is still seen as left."""
    with suppress(OSError):
        for each in sorted(folder.iterdir(), key=lambda path: path.name == _LOCK):
            each.unlink(missing_ok=True)
        folder.rmdir()


def _size_bytes(folder: Path) -> int:
    total = 0
    with suppress(OSError):
        for each in folder.iterdir():
            with suppress(OSError):
                total += each.lstat().st_size
    return total
