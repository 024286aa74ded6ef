"""One command of the demo host: a shell in a session of its own, its streams, and its end."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import anyio
import asyncssh

BLOCK = 64 * 1024

GRACE_S = 0.5
"""Between TERM and KILL, when a channel closes before its command ended."""

REAP_LIMIT_S = 5.0


class Child:
    """A command's shell, the leader of a session and a process group of its own.

    Attributes:
        pid: Process id, and so the id of the session and of the group.
    """

    def __init__(self, transport: asyncio.SubprocessTransport, process: asyncio.subprocess.Process) -> None:
        self._transport = transport
        self._process = process
        self.pid = process.pid
        self._ended_by_itself = False

    @classmethod
    async def start(cls, words: list[str], home: Path, environment: dict[str, str]) -> "Child":
        """Start it, with pipes for its three streams.

        Raises:
            OSError: The machine has no room for one more process.
            ValueError: A word holds a NUL.
        """
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.subprocess_exec(
            lambda: asyncio.subprocess.SubprocessStreamProtocol(limit=BLOCK, loop=loop),
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=home,
            env=environment,
            start_new_session=True,
        )
        return cls(transport, asyncio.subprocess.Process(transport, protocol, loop))

    async def attend(self, channel: asyncssh.SSHServerProcess[bytes]) -> int | None:
        """Carry its streams both ways until it ends and both outputs do, as sshd does.

        Returns:
            The exit code, or less than 0 for a signal that ended it; None where the channel closed first.
        """
        process = self._process
        assert process.stdout is not None  # noqa: S101 all three were asked for
        assert process.stderr is not None  # noqa: S101
        status = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._until_closed, channel, group.cancel_scope)
            group.start_soon(self._carry_in, channel)
            async with anyio.create_task_group() as outputs:
                outputs.start_soon(_carry_out, process.stdout, channel.stdout)
                outputs.start_soon(_carry_out, process.stderr, channel.stderr)
            status = await process.wait()
            self._ended_by_itself = True
            group.cancel_scope.cancel()
        return status

    async def _until_closed(self, channel: asyncssh.SSHServerProcess[bytes], scope: anyio.CancelScope) -> None:
        await channel.channel.wait_closed()
        scope.cancel()

    async def _carry_in(self, channel: asyncssh.SSHServerProcess[bytes]) -> None:
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 it was asked for
        listening = True
        while chunk := await _next(channel.stdin):
            if not listening:
                continue  # taken all the same: a client that still sends must not be held up
            try:
                stdin.write(chunk)
                await stdin.drain()
            except OSError:
                listening = False
        stdin.close()

    def deliver(self, name: str) -> None:
        """Send a signal to the process group, as sshd does."""
        number = getattr(signal, f"SIG{name}", None)
        if isinstance(number, signal.Signals):
            self._kill(number)

    def _kill(self, number: signal.Signals) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self.pid, number)

    async def end(self) -> None:
        """End the process group, unless the command ended by itself, and let go of the pipes."""
        if not self._ended_by_itself:
            self._kill(signal.SIGTERM)
            self._kill(signal.SIGCONT)
            with anyio.move_on_after(GRACE_S):
                await self._process.wait()
            self._kill(signal.SIGKILL)
        self._transport.close()
        with anyio.move_on_after(REAP_LIMIT_S):
            await self._process.wait()


async def _next(source: asyncssh.SSHReader[bytes]) -> bytes:
    """What comes next from the client; nothing where it, or its connection, is gone, for whatever reason."""
    try:
        return await source.read(BLOCK)
    except Exception:  # noqa: BLE001 asyncssh raises here what ended the connection, an exception of any kind
        return b""


async def _carry_out(source: asyncio.StreamReader, target: asyncssh.SSHWriter[bytes]) -> None:
    with contextlib.suppress(OSError, asyncssh.Error):  # a closed channel ends the command by another road
        while chunk := await source.read(BLOCK):
            target.write(chunk)
            await target.drain()


def left_behind(mark: str, home: Path, sessions: frozenset[int]) -> list[int]:
    """Processes of commands: in one of their sessions, with our mark in the environment, or standing in the home.

    Where there is no /proc (macOS) only the sessions' own process groups can be told. Blocks: run it in a thread.
    """
    if not Path("/proc/self/stat").exists():
        return [-session for session in sessions if group_exists(session)]
    pids = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    return [pid for pid in pids if _ours(pid, mark, home, sessions)]


def _ours(pid: int, mark: str, home: Path, sessions: frozenset[int]) -> bool:
    folder = Path("/proc", str(pid))
    try:
        if pid == os.getpid() or folder.stat().st_uid != os.geteuid():
            return False
        state, _, _, session = folder.joinpath("stat").read_text().rpartition(")")[2].split()[:4]
        if state in {"Z", "X"}:
            return False
        if int(session) in sessions or mark.encode() in folder.joinpath("environ").read_bytes().split(b"\0"):
            return True
        return folder.joinpath("cwd").readlink().is_relative_to(home)
    except (OSError, ValueError):
        return False  # it ended while we looked


def group_exists(group: int) -> bool:
    """Whether the process group has a member, a zombie counted."""
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True
