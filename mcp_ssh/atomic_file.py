"""A file of this server's that several processes change: they take turns, and each change is one step."""

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from mcp_ssh.errors import TimedOut

LOCK_LIMIT_S = 10.0
_LOCK_POLL_S = 0.01


@contextmanager
def turn_at(path: Path, shown: str) -> Generator[None]:
    """Keep other processes that ask from changing the file meanwhile. Blocks; the lock is a file beside it.

    Args:
        path: The file itself, not a link to it. Its folder is there.
        shown: How it is called in errors.

    Raises:
        TimedOut: Another process had it all the time.
    """
    lock = path.with_name(path.name + ".lock")
    held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        ends = time.monotonic() + LOCK_LIMIT_S
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= ends:
                    raise TimedOut(
                        f"another process has held {shown} for {LOCK_LIMIT_S:.0f} s; nothing was changed",
                        hint="try again",
                    ) from None
                time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(held)


def replace(path: Path, data: bytes) -> None:
    """Give the file new content, 0600 and on disk, in one step. Blocks; the caller holds the lock.

    Raises:
        OSError: It cannot be written; the old file stands.
    """
    # One fixed name serves: what a crash left behind is overwritten by the next writer.
    fresh = path.with_name(path.name + ".new")
    written = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(written, "wb") as file:
        os.fchmod(written, 0o600)
        file.write(data)
        file.flush()
        os.fsync(written)
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
