"""The log file: private, bounded in size, and shared by every process of this program that logs to the folder."""

import logging
import logging.handlers
import os
from io import TextIOWrapper
from pathlib import Path

from mcp_ssh.errors import InvalidInput

FILE_NAME = "mcp-ssh.log"
FILE_BYTES = 10 * 1024 * 1024
FILES_KEPT = 5


def log_file(folder: Path) -> logging.Handler:
    """The handler that writes to the file in a folder, which is made 0700 where it is missing.

    Raises:
        InvalidInput: The file cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return PrivateFile(folder / FILE_NAME, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(
            f"logging.directory: the log file cannot be written: {error.strerror}",
            hint="name a folder of your own, or leave it empty to log to standard error only",
        ) from error


def _open_private(path: str, flags: int) -> int:
    """Open it 0600 from its first byte; one that was made otherwise is closed to others now."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


class PrivateFile(logging.handlers.RotatingFileHandler):
    """A file that only its owner may read, and that several processes may write and rotate."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding=self.encoding, opener=_open_private)

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 logging's
        """Whether the file is full; one that another process has rotated away is left first."""
        if self.stream is not None and not self._is_current(self.stream):
            self.stream.close()
            self.stream = self._open()
        if self.stream is not None:
            self.stream.seek(0, os.SEEK_END)  # since 3.13 Python counts only what this process wrote
        return bool(super().shouldRollover(record))

    def _is_current(self, stream: TextIOWrapper) -> bool:
        try:
            return os.path.samestat(os.stat(self.baseFilename), os.fstat(stream.fileno()))  # noqa: PTH116
        except OSError:
            return False
