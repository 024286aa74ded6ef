"""A ProxyCommand: a program of the server's owner whose standard streams are the way to the machine."""

import asyncio
import contextlib
import os
import signal
import socket

KEPT_BYTES = 1024
GRACE_S = 1.0
"""How long a program that was told to end may take over it."""


class Proxy:
    """A running program, ended with the connection that it carries; what it started ends too.

    It gets one end of a pair of sockets, so that no byte passes through our code.
    """

    def __init__(self, process: asyncio.subprocess.Process, ours: socket.socket, complaints: int) -> None:
        self._process = process
        self.socket = ours
        self._complaints = complaints
        self._said = b""
        self._told = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(complaints, self._hear)
        self._watching = asyncio.ensure_future(self._watch())

    @classmethod
    async def start(cls, command: str) -> "Proxy":
        """Run a command line with sh.

        Raises:
            OSError: There is no sh, or no room for one more program.
        """
        ours, theirs = socket.socketpair()
        complaints, complaining = os.pipe()
        os.set_blocking(complaints, False)
        argv = ["/bin/sh", "-c", f"exec {command}"]
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=complaining, start_new_session=True
            )
        except BaseException:
            ours.close()
            os.close(complaints)
            raise
        finally:
            theirs.close()
            os.close(complaining)
        ours.setblocking(False)  # noqa: FBT003 the method's own signature
        return cls(process, ours, complaints)

    @property
    def running(self) -> bool:
        """Whether it is still there."""
        return self._process.returncode is None

    def _hear(self) -> None:
        try:
            chunk = os.read(self._complaints, 4096)
        except BlockingIOError:
            return
        if chunk:
            self._said = (self._said + chunk)[-KEPT_BYTES:]
        else:
            self._hear_no_more()

    def _hear_no_more(self) -> None:
        if self._complaints >= 0:
            self._loop.remove_reader(self._complaints)
            os.close(self._complaints)
            self._complaints = -1

    async def _watch(self) -> None:
        """Wait for its end, then end at once what it leaves behind: later its number may be another's."""
        await self._process.wait()
        self._signal(signal.SIGKILL)

    def end(self) -> None:
        """Tell it to end, and end it where it does not."""
        if self._told:
            return
        self._told = True
        self.socket.close()
        if self.running:
            self._signal(signal.SIGHUP)
            self._signal(signal.SIGTERM)
            self._loop.call_later(GRACE_S, self._kill)

    def _kill(self) -> None:
        if self.running:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def terminate(self) -> None:
        """End it, and wait until it is gone."""
        self.end()
        done, _ = await asyncio.wait([self._watching], timeout=GRACE_S / 2)
        if not done:
            self._kill()
            await asyncio.wait([self._watching], timeout=GRACE_S)
        self._hear_no_more()

    async def complaint(self) -> tuple[str, str]:
        """How it ended, for a message, and the last line that it wrote."""
        await asyncio.wait([self._watching], timeout=GRACE_S / 2)
        status = self._process.returncode
        how = "went silent" if status is None else f"ended with status {status}"
        lines = [line.strip() for line in self._said.decode("utf-8", "replace").splitlines() if line.strip()]
        return how, lines[-1] if lines else ""
