"""How much an HTTP caller may keep in its transfer folder on the server's machine. Everything here blocks."""

import contextlib
import os
import stat
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

from mcp_ssh.errors import TooLarge

ENTRY_BYTES = 4096
"""What each file, link and folder counts beside its size, so that empty ones are bounded, too."""


@dataclass
class _Usage:
    used: int = 0
    measured: bool = False
    transfers: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


_usages: dict[Path, _Usage] = {}
_registry = threading.Lock()


class Quota:
    """The bytes that a caller may still write. The base class sets no bound: it is the owner's."""

    def require(self, size: int) -> None:
        """Check that `size` more bytes fit, without counting them."""

    def add(self, size: int) -> None:
        """Count bytes that are about to be written.

        Raises:
            TooLarge: They do not fit.
        """

    def remove(self, size: int) -> None:
        """Stop counting bytes that were removed or replaced."""


UNLIMITED = Quota()


class FolderQuota(Quota):
    """The quota of one transfer folder, shared by all transfers of this process into it."""

    def __init__(self, usage: _Usage, limit: int, shown: str) -> None:
        self._usage = usage
        self._limit = limit
        self._shown = shown

    def require(self, size: int) -> None:
        """Check that `size` more bytes fit, without counting them."""
        with self._usage.lock:
            self._expect(size)

    def add(self, size: int) -> None:
        """Count bytes that are about to be written."""
        with self._usage.lock:
            self._expect(size)
            self._usage.used += size

    def remove(self, size: int) -> None:
        """Stop counting bytes that were removed or replaced."""
        with self._usage.lock:
            self._usage.used -= size

    def _expect(self, size: int) -> None:
        if self._usage.used + size > self._limit:
            raise TooLarge(
                f"local_path: {size} more bytes do not fit into your transfer folder, which holds {self._usage.used} of"
                f" at most {self._limit} bytes",
                hint=f"the folder is `{self._shown}` in the server's state folder; ask its owner to remove files there,"
                " or to raise sftp.transfer_quota_mb",
                details={"used_bytes": self._usage.used, "quota_bytes": self._limit},
            )


@contextlib.contextmanager
def folder_quota(folder: Path, limit: int) -> Generator[Quota]:
    """The quota of a transfer folder, measured when the first of several transfers begins."""
    with _registry:
        usage = _usages.setdefault(folder, _Usage())
        usage.transfers += 1
    try:
        with usage.lock:
            if not usage.measured:
                usage.used, usage.measured = measure(folder), True
        yield FolderQuota(usage, limit, "/".join(folder.parts[-2:]))
    finally:
        with _registry:
            usage.transfers -= 1
            if not usage.transfers:
                _usages.pop(folder, None)


def measure(folder: Path) -> int:
    """Sum up a folder: sizes of files, and `ENTRY_BYTES` for every entry."""
    total = 0
    for _, folders, files, handle in os.fwalk(folder):
        total += ENTRY_BYTES * (len(folders) + len(files))
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                total += size_in(handle, name)
    return total


def freed_size(facts: os.stat_result) -> int:
    """How many bytes the removal of a name frees: none where the file has other names."""
    return facts.st_size if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1 else 0


def size_in(folder: int, name: str) -> int:
    """The size of a regular file in an open folder; 0 of anything else.

    Raises:
        FileNotFoundError: Nothing is there.
    """
    facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return facts.st_size if stat.S_ISREG(facts.st_mode) else 0
