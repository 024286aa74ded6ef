"""Bytes from and to our own standard streams, without ever blocking the loop."""

import os
import re
import select
from collections.abc import AsyncGenerator

import anyio
import anyio.to_thread

from mcp_ssh.cli.terminal import say, usage
from mcp_ssh.ssh.exec.capture import Capture

KEPT_BYTES = 64 * 1024
CHUNK_BYTES = 64 * 1024
MAX_INPUT_BYTES = 64 * 1024 * 1024


# The start of the line by which our own preamble says that there is no such folder, or all of it.
_NO_FOLDER = re.compile(rb"[0-9a-f]{1,32}|[0-9a-f]{32} (?:c|cw|cwd|cwd\n)?")


class Passing(Capture):
    """A stream that is passed on to a file descriptor as it comes; only its ends are kept.

    Args:
        descriptor: Where it goes.
        in_folder: The command was given a folder. A last line that may say there is none is kept back until more comes.
    """

    def __init__(self, descriptor: int, *, in_folder: bool = False) -> None:
        super().__init__(KEPT_BYTES)
        self._descriptor = descriptor
        self._in_folder = in_folder
        self._held = b""

    async def feed(self, chunk: bytes) -> None:
        """Pass the next bytes on; waits while the reader is slow, which holds the remote side back.

        Raises:
            BrokenPipeError: The reader has left.
        """
        await super().feed(chunk)
        if self._in_folder:
            chunk = self._held + chunk
            last = chunk[chunk.rfind(b"\n", 0, -1) + 1 :]
            self._held = last if _NO_FOLDER.fullmatch(last) else b""
            chunk = chunk[: len(chunk) - len(self._held)]
        await write(self._descriptor, chunk)

    async def release(self) -> None:
        """Pass on what was kept back: the command did run."""
        held, self._held = self._held, b""
        await write(self._descriptor, held)


async def write(descriptor: int, data: bytes) -> None:
    """Write all of it. A reader that does not read keeps this task waiting, and no other.

    Raises:
        BrokenPipeError: The reader has left.
    """
    rest = memoryview(data)
    while rest:
        try:
            await anyio.wait_writable(descriptor)
        except PermissionError:
            # A plain file: nothing to wait for, and nothing that could wait for ever.
            written = await anyio.to_thread.run_sync(os.write, descriptor, rest)
        else:
            written = os.write(descriptor, rest[: select.PIPE_BUF])
        rest = rest[written:]


async def standard_input() -> AsyncGenerator[bytes]:
    """Our standard input, as it comes. What cannot be read further, as a terminal that is gone, ends."""
    while True:
        try:
            chunk = await _read_some()
        except BlockingIOError:  # another process that shares the descriptor was faster
            continue
        except OSError as error:
            say(f"ssh-steward: standard input cannot be read, so it ends here: {error.strerror}")
            return
        if not chunk:
            return
        yield chunk


async def _read_some() -> bytes:
    try:
        await anyio.wait_readable(0)
    except PermissionError:  # a plain file
        return await anyio.to_thread.run_sync(os.read, 0, CHUNK_BYTES)
    return os.read(0, CHUNK_BYTES)


async def whole_input(limit_s: float) -> bytes:
    """All of our standard input.

    Raises:
        Failure: It is larger than this program holds in memory, or does not end in time.
    """
    taken = bytearray()
    with anyio.move_on_after(limit_s):
        async for chunk in standard_input():
            taken += chunk
            if len(taken) > MAX_INPUT_BYTES:
                raise usage("standard input is larger than 64 MiB", "upload it as a file first: ssh-steward upload")
        return bytes(taken)
    raise usage(f"standard input did not end within {limit_s:g} s", "close it, or pass none with -n")
