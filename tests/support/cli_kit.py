"""The command line as a person has it: a process of its own."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-W", "error", "-m", "mcp_ssh")
LIMIT_S = 60
KEPT = frozenset({"PATH", "LANG", "TMPDIR", "MCP_SSH_LOOP"})

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through Linux's /proc")


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    with contextlib.suppress(OSError):
        if Path("/proc/self/stat").exists():
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
        os.kill(pid, 0)
        return True
    return False


def environment(home: Path, **changes: str) -> dict[str, str]:
    """An environment in which nothing of the person who runs the tests counts."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT}
    person = home / "person"
    person.mkdir(parents=True, exist_ok=True)
    return {**kept, "HOME": str(person), "MCP_SSH_HOME": str(home / "state"), **changes}


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def failure(self) -> str:
        """The one line that a failed command says."""
        assert self.out == ""
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1
        assert "Traceback" not in self.err
        assert re.fullmatch(r"ssh-steward: .+ \(.+\)\n", self.err)
        return self.err.rstrip("\n")


async def run(*words: str, home: Path, stdin: str = "", env: Mapping[str, str] | None = None) -> Done:
    """Run a command to its end."""
    with anyio.fail_after(LIMIT_S):
        done = await anyio.run_process(
            [*COMMAND, *words],
            input=stdin.encode(),
            check=False,
            cwd=ROOT,
            env=environment(home, **(env or {})),
        )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


class Running:
    """A command that runs until it is told to end."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.pid = process.pid
        assert process.stdout is not None
        assert process.stderr is not None
        self._streams = {"out": TextReceiveStream(process.stdout), "err": TextReceiveStream(process.stderr)}
        self.said = {"out": "", "err": ""}

    async def until(self, pattern: str, stream: str = "err") -> re.Match[str]:
        """Read on until the text so far has the pattern."""
        with anyio.fail_after(LIMIT_S):
            while (found := re.search(pattern, self.said[stream])) is None:
                try:
                    self.said[stream] += await self._streams[stream].receive()
                except anyio.EndOfStream:
                    raise AssertionError(f"it ended with {self.said}") from None
        return found

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, read the rest, and return the exit code."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        with anyio.fail_after(LIMIT_S):
            async with anyio.create_task_group() as group:
                for name in self._streams:
                    group.start_soon(self._rest, name)
            return await self.process.wait()

    async def _rest(self, name: str) -> None:
        async for text in self._streams[name]:
            self.said[name] += text


@contextlib.asynccontextmanager
async def running(*words: str, home: Path, env: Mapping[str, str] | None = None) -> AsyncGenerator[Running]:
    """Start a command; at the end of the block it is ended."""
    process = await anyio.open_process([*COMMAND, *words], cwd=ROOT, env=environment(home, **(env or {})))
    command = Running(process)
    try:
        yield command
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
                await process.wait()
            await process.aclose()


def on_terminal(
    words: Sequence[str],
    *,
    home: Path,
    typed: bytes = b"",
    after: bytes = b"",
    env: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run a command on a terminal; its exit code, and what the terminal shows.

    Args:
        words: The command line.
        home: The folder of its person and its state.
        typed: What is typed, at once or after a prompt.
        after: The end of that prompt.
        env: Changes to its environment.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env=environment(home, TERM="xterm", COLUMNS="120", **(env or {})),
    )
    os.close(theirs)
    shown, waits = b"", after
    if not waits:
        os.write(ours, typed)
    with contextlib.suppress(OSError):  # what Linux says when the other side of a terminal has closed
        while chunk := os.read(ours, 65536):
            shown += chunk
            if waits and waits in shown:
                waits = b""
                os.write(ours, typed)
    os.close(ours)
    return process.wait(LIMIT_S), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r\n", "\n")
