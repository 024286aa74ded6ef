"""Read local files whose path a caller or a configuration names.

Such a path can lead to a device, a FIFO, a huge file, or a network file system that does not answer. `read_file` takes
regular files only and reads a bounded number of bytes. `in_abandonable_thread` runs blocking work so that neither a
deadline nor the end of the server waits for it.
"""

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

MAX_THREADS = 16
"""How many calls may be in such threads at once, those that nobody waits for any longer included."""

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_free = threading.BoundedSemaphore(MAX_THREADS)


def read_file(path: Path, limit: int) -> tuple[bytes, os.stat_result]:
    """Read a regular file of at most `limit` bytes, and its status. Blocks where its file system blocks.

    Raises:
        OSError: The file cannot be opened (its own number), is not a regular file (EINVAL) or is larger (EFBIG).
        ValueError: The path holds a NUL character.
    """
    # Without O_NONBLOCK, opening a FIFO waits for a writer.
    handle = os.open(path, _FLAGS)
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        data = b""
        while len(data) <= limit and (chunk := os.read(handle, limit + 1 - len(data))):
            data += chunk
    finally:
        os.close(handle)
    if len(data) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data, facts


async def in_abandonable_thread(function: Callable[[], T]) -> T:
    """Run blocking work in a daemon thread. A cancelled caller leaves it behind, and the end of the process stops it.

    Raises:
        OSError: EBUSY; `MAX_THREADS` such calls have not returned yet.
    """
    if not _free.acquire(blocking=False):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(done: Future[T]) -> None:
        if result.done():
            return
        if (error := done.exception()) is not None:
            result.set_exception(error)
        else:
            result.set_result(done.result())

    def work() -> None:
        done: Future[T] = Future()
        try:
            done.set_result(function())
        except BaseException as error:  # noqa: BLE001 the caller gets it
            done.set_exception(error)
        _free.release()
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, done)

    threading.Thread(target=work, name="local file", daemon=True).start()
    return await result
