"""Interactive shells of a session: each on a terminal of its own, kept until it ends, is closed, or its session is.

A task a shell takes in what the terminal prints, as it comes, so that nothing waits for a reader; what is older than
the scrollback is dropped and counted. Closing a shell runs the same sweep that ends a command (`wire/kill.py`): the
shell has a cookie in its environment, and so has all that it started.
"""

import asyncio
import contextlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import anyio
import anyio.to_thread

from mcp_ssh.errors import Conflict, ConnectFailed, NotFound, RemoteFailed, TimedOut, ToolError, TooMany
from mcp_ssh.ssh.connection.connection import Connection, Terminal
from mcp_ssh.ssh.errors import connection_lost
from mcp_ssh.ssh.exec.stop import close_channel
from mcp_ssh.ssh.exec.stop_later import UnfinishedCall
from mcp_ssh.ssh.pty.screen import FEED_LIMIT, Screen
from mcp_ssh.ssh.pty.scrollback import Scrollback
from mcp_ssh.ssh.pty.terminal import ShellPrompt, incomplete_tail, plain, prompt
from mcp_ssh.ssh.wire.command import BARE_SHELLS, CommandEnvelope, StartLine
from mcp_ssh.ssh.wire.kill import StopResult

if TYPE_CHECKING:
    from mcp_ssh.ssh.connection.channel import Channel

MOST = 8
"""Shells that one session may have."""
OPEN_LIMIT_S = 20.0
"""How long a shell may take to start."""
GREETING_LIMIT_S = 2.0
"""How long its first prompt is waited for."""
SETTLE_S = 0.1
"""Output that has paused for so long is handed to who waits for it."""
QUIET_S = 0.35
"""A line that asks for something and has stood for so long is waited at."""

LOST_BYTES = 64 * 1024
"""Bytes that are kept of what one printed that was lost with its connection."""

ShellState = Literal["open", "ended", "lost"]


@dataclass(frozen=True)
class ShellOutput:
    """A part of what a shell printed.

    Attributes:
        start: Offset of its first byte; behind what was asked for where that is no longer kept.
        content: The bytes; a character or control sequence that is cut stands in the next piece.
        total: Bytes printed so far.
    """

    start: int
    content: bytes = field(repr=False)
    total: int

    @property
    def end(self) -> int:
        """Offset behind it."""
        return self.start + len(self.content)


class Shell:
    """One interactive shell.

    Attributes:
        name: Its name, one of its caller's on this session.
        terminal: Its size.
        state: `open`; `ended` by itself; `lost` with the connection.
        exit_code: Of one that ended.
        cursor: Offset up to which it was read by who gave no offset.
        turn: Held by who types a command and waits for its end.
        prompt_line: The line up to the cursor when the shell was last known to stand at its prompt.
        reader: The program that read that line, where that is known.
    """

    def __init__(self, name: str, link: Connection, call: CommandEnvelope, terminal: Terminal) -> None:
        self.name = name
        self.terminal = terminal
        self.state: ShellState = "open"
        self.exit_code: int | None = None
        self.scrollback = Scrollback()
        self.cursor = 0
        self.turn = anyio.Lock()
        self.prompt_line: str | None = None
        self.reader = ""
        self._link = link
        self._call = call
        self._start_line = StartLine(call.start_line, expected=call.marked)
        self._began = anyio.current_time()
        self._channel: Channel | None = None
        self._typed_at = 0
        self._typed_when = -math.inf
        self._completed_at: int | None = None
        self._screen = Screen(terminal.columns, terminal.rows)
        self._drawn = 0
        self._drawing = anyio.Lock()
        self._started = anyio.Event()
        self._life: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    # ---- its life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Have it run.

        Raises:
            NotFound: The folder to start in does not exist.
            Unsupported: The account has no shell, or gets no terminal.
            TimedOut: It did not start in time.
            ConnectFailed: The connection is gone.
        """
        self._life = asyncio.get_running_loop().create_task(self._run())
        try:
            await self._come_up()
        except BaseException:
            await self.close()
            raise

    async def _come_up(self) -> None:
        try:
            with anyio.fail_after(OPEN_LIMIT_S):
                await self._started.wait()
        except TimeoutError as error:
            raise TimedOut(
                f"no shell within {OPEN_LIMIT_S:g} s",
                hint="the machine may give no more channels: close a shell, or look with session_status",
            ) from error
        if self._failure is None:
            await self._wait_for_prompt()
        if self._failure is not None or self.state != "open":
            raise self._failure or self._no_start()

    async def _wait_for_prompt(self) -> None:
        """Wait for the first prompt, within bounds: what is typed before it may be shown twice."""
        with anyio.move_on_after(GREETING_LIMIT_S):
            while self.state == "open" and not (self.scrollback.total and self.quiet_s() >= SETTLE_S):
                await self.scrollback.news(SETTLE_S)

    async def _run(self) -> None:
        forced = self._link.shell in BARE_SHELLS
        try:
            async with self._link.place():
                text = None if forced else self._call.text
                channel = self._channel = await self._link.open(text, terminal=self.terminal)
                if forced:
                    self._started.set()
                while chunk := await channel.read():
                    await self._take(channel, chunk, forced=forced)
                await channel.wait_closed()
        except Exception as error:  # noqa: BLE001 who waits for the start gets it; afterwards it is the end
            self._failure = error
        finally:
            self._end()

    async def _take(self, channel: "Channel", chunk: bytes, *, forced: bool) -> None:
        if forced or self._started.is_set():
            self.scrollback.add(chunk)
            return
        passed = self._start_line.feed(chunk)
        if self._start_line.pid is None and not passed:
            return
        if self._call.stdin:
            with contextlib.suppress(OSError):
                await channel.write(self._call.stdin)
        self.scrollback.add(passed)
        self._started.set()

    def _end(self) -> None:
        channel = self._channel
        self.state = "ended" if channel is not None and channel.exited else "lost"
        self.exit_code = channel.exit_status if channel is not None else None
        self.scrollback.add(self._start_line.rest())
        if self.state == "lost":
            self._shrink()
        self._started.set()

    def _shrink(self) -> None:
        """Keep only the last of what it printed: sessions whose connection was lost may be remembered for long."""
        self.scrollback.trim(LOST_BYTES)
        self._screen, self._drawn = Screen(self.terminal.columns, self.terminal.rows), 0

    def _no_start(self) -> ToolError:
        said = self.scrollback.slice(0)
        if self._call.no_folder in said:
            return NotFound("the folder does not exist or may not be entered", hint="check `cwd` with file_stat")
        if self.state == "lost":
            return connection_lost()
        last = plain(said).strip()[-200:]
        return RemoteFailed(
            f"the account's shell ended at once: {last or 'it did not say why'}",
            hint="look at the account's rc files, or use command_exec",
        )

    async def close(self) -> StopResult:
        """End it, and all that was started in it, unless the connection is gone; what became of that.

        Of a shell that never said which process it is, nobody can say that it ended: it may still begin.
        """
        stopped = StopResult(ended=True)
        with anyio.CancelScope(shield=True):
            if self._channel is not None:
                stopped = await self._sweep()
                await close_channel(self._channel)
                if stopped.ended and self._call.marked and self._start_line.pid is None and not self._channel.exited:
                    stopped = StopResult(ended=None)
                if not stopped.ended:
                    self._link.later.add(UnfinishedCall(self._call, entered=True, channel=self._channel))
            if self._life is not None:
                self._life.cancel()
                await asyncio.wait([self._life])
        return stopped

    async def _sweep(self) -> StopResult:
        pid = self._start_line.pid if self.state == "open" else None
        return await self._link.stop(self._call, pid, anyio.current_time() - self._began)

    def expect_open(self) -> None:
        """Return where it is there to be typed to.

        Raises:
            Conflict: It ended.
            ConnectFailed: It went with its link.
        """
        if self.state == "lost":
            raise ConnectFailed(
                f"the shell {self.name!r} was lost with its connection", hint="open another with shell_open"
            )
        if self.state == "ended":
            raise Conflict(
                f"the shell {self.name!r} has ended with exit code {self.exit_code}",
                hint="its output can still be read; open another with shell_open",
            )

    # ---- typing and looking ------------------------------------------------------------------------------------

    async def type(self, data: bytes) -> int:
        """Send what is typed; the offset of the output that follows.

        Raises:
            Conflict: It ended.
            ConnectFailed: It went with its link.
        """
        self.expect_open()
        assert self._channel is not None  # noqa: S101 an open one has a channel
        self._typed_at, self._typed_when = self.scrollback.total, anyio.current_time()
        self._completed_at = None
        try:
            await self._channel.write(data)
        except OSError as error:
            raise connection_lost() from error
        return self._typed_at

    async def resize(self, terminal: Terminal) -> None:
        """Give its terminal another size.

        Raises:
            Conflict: It ended.
            ConnectFailed: It went with its link.
        """
        self.expect_open()
        assert self._channel is not None  # noqa: S101 an open one has a channel
        screen = await self.screen()
        self._channel.resize(terminal.columns, terminal.rows)
        screen.resize(terminal.columns, terminal.rows)
        self.terminal = terminal

    @property
    def pid(self) -> int | None:
        """Process id of the shell, where that is known."""
        return self._start_line.pid

    async def screen(self) -> Screen:
        """Its screen, with all on it that came so far."""
        async with self._drawing:
            total = self.scrollback.total
            data = self.scrollback.slice(max(self._drawn, total - FEED_LIMIT - 1))
            self._drawn = total
            if data:
                await anyio.to_thread.run_sync(self._screen.feed, data)
        return self._screen

    def quiet_s(self) -> float:
        """Seconds since something was printed or typed; none while what was typed had no answer yet."""
        if self._typed_at == self.scrollback.total and self._typed_when > -math.inf:
            return 0.0
        return anyio.current_time() - max(self.scrollback.last_at, self._typed_when)

    def complete(self, offset: int) -> None:
        """Note that a command ended and its output up to this offset; what follows on that line is the prompt."""
        self._completed_at = offset

    @property
    def is_back(self) -> bool:
        """Whether a command has ended and nothing but the begin of one line was printed since, and nothing typed."""
        if self._completed_at is None:
            return False
        said = self.scrollback.slice(self._completed_at)
        return bool(said.strip()) and b"\n" not in said

    async def asking(self) -> ShellPrompt | None:
        """What it waits for, as far as the line with the cursor tells."""
        if self.state != "open":
            return None
        screen = await self.screen()
        return prompt(screen.line, shell_prompt=self.prompt_line, pager=screen.shows_status_line)

    async def waiting(self, quiet_s: float = QUIET_S) -> ShellPrompt | None:
        """The same once that line has stood for a moment, so that it is not a part of a longer one."""
        return await self.asking() if self.quiet_s() >= quiet_s else None

    async def read(self, offset: int | None, limit: int, wait_s: float) -> ShellOutput:
        """What it printed from an offset on, and wait for some if there is none yet.

        The answer comes when the output pauses, the limit is reached, or something is waited at.

        Args:
            offset: Omitted: where the last such read ended. Negative: that many bytes before the end.
            limit: Bytes at most.
            wait_s: How long to wait at most.
        """
        start = self.cursor if offset is None else offset
        if start < 0:
            start = max(0, self.scrollback.total + start)
        await self._settle(start, limit, wait_s)
        piece = self._piece(start, limit)
        if offset is None:
            self.cursor = piece.end
        return piece

    async def _settle(self, start: int, limit: int, wait_s: float) -> None:
        until = anyio.current_time() + wait_s
        while self.state == "open" and self.scrollback.total - start < limit:
            left_s = until - anyio.current_time()
            pause_s = await self._pause_s(said=self.scrollback.total > start)
            if pause_s <= 0 or left_s <= 0:
                return
            await self.scrollback.news(min(left_s, pause_s))

    async def _pause_s(self, *, said: bool) -> float:
        """How much longer the output has to pause until there is nothing to wait for."""
        quiet_s = self.quiet_s()
        if quiet_s < SETTLE_S:
            return SETTLE_S - quiet_s
        if await self.asking():
            return QUIET_S - quiet_s
        return 0 if said else math.inf

    def _piece(self, start: int, limit: int) -> ShellOutput:
        start = min(max(start, self.scrollback.start), self.scrollback.total)
        content = self.scrollback.slice(start, start + limit)
        cut = incomplete_tail(content) if self.state == "open" or start + len(content) < self.scrollback.total else 0
        # What is nothing but a beginning is never finished where it stays so: then it is shown as it is.
        if cut and (cut < len(content) or self.quiet_s() < 1.0):
            content = content[:-cut]
        return ShellOutput(start, content, self.scrollback.total)


class Shells:
    """The shells of one session, each its caller's."""

    def __init__(self, link: Connection) -> None:
        self._link = link
        self._shells: dict[tuple[str, str], Shell] = {}
        self._opening = anyio.Lock()
        self._closed = False

    def of(self, caller_id: str) -> list[Shell]:
        """A caller's shells, in the order they were opened."""
        return [shell for (whose, _), shell in self._shells.items() if whose == caller_id]

    def find(self, caller_id: str, name: str) -> Shell:
        """A shell by its name.

        Raises:
            NotFound: There is none; the hint names those there are.
        """
        shell = self._shells.get((caller_id, name))
        if shell is None:
            known = ", ".join(each.name for each in self.of(caller_id)) or "none are open"
            raise NotFound(f"there is no shell {name!r}", hint=f"open it with shell_open; your shells: {known}")
        return shell

    async def open(
        self, caller_id: str, name: str, call: CommandEnvelope, terminal: Terminal, *, replace: bool
    ) -> Shell:
        """Start a shell. One of that name that has ended gives way; an open one is it, unless `replace`.

        Raises:
            Conflict: There is an open one of that name.
            TooMany: The session, or its connection, has as many as it may.
        """
        async with self._opening:
            known = self._shells.get((caller_id, name))
            if known is not None and known.state == "open":
                if not replace:
                    return known
                raise Conflict(
                    f"there is a shell {name!r} already", hint="use it, close it with shell_close, or take another name"
                )
            self._expect_room()
            shell = Shell(name, self._link, call, terminal)
            await shell.start()
            if self._closed:
                await shell.close()
                raise connection_lost()
            self._shells[caller_id, name] = shell
            return shell

    def _expect_room(self) -> None:
        for key in [key for key, each in self._shells.items() if each.state != "open"][: max(0, len(self) - MOST + 1)]:
            del self._shells[key]
        if len(self) >= MOST:
            raise TooMany(f"this session has {MOST} shells", hint="close one; shell_list names yours")
        if not self._link.may_keep:
            raise TooMany(
                "the machine gives this connection no channel that could be kept for a shell",
                hint="close a shell of another session on this machine, or wait for a running call to end",
            )

    def __len__(self) -> int:
        return len(self._shells)

    @property
    def last_output(self) -> float:
        """When one that is open printed something last, on the monotonic clock; 0 for never."""
        times = [each.scrollback.last_at for each in self._shells.values() if each.state == "open"]
        return max(times, default=0.0)

    async def close(self, shell: Shell, caller_id: str) -> StopResult:
        """End a shell with all that was started in it, and forget it; what became of that."""
        stopped = await shell.close()
        if self._shells.get((caller_id, shell.name)) is shell:
            del self._shells[caller_id, shell.name]
        return stopped

    async def close_all(self) -> list[StopResult]:
        """End those that are open, side by side; what became of each."""
        self._closed = True
        shells = [each for each in self._shells.values() if each.state == "open"]
        self._shells.clear()
        stops: list[StopResult] = []

        async def close(shell: Shell) -> None:
            stops.append(await shell.close())

        async with anyio.create_task_group() as group:
            for shell in shells:
                group.start_soon(close, shell)
        return stops
