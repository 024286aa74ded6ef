"""Warm shells: shells that the machine started ahead of need, each of which waits for the one command it will run.

A command on a channel of its own costs two round trips and the account's rc files. A warm shell has had both, so a
command handed to it costs one round trip. Its streams, exit status, process group and end are those of any other
command: a warm shell is used once, and its channel ends with the command.
"""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from mcp_ssh.errors import ToolError
from mcp_ssh.ssh.wire.command import StartLine, start_mark, waiting

if TYPE_CHECKING:
    from mcp_ssh.ssh.connection.channel import Channel

MOST = 4
"""Warm shells of one connection where calls follow each other at once; else there is one."""

IDLE_S = 30.0
"""How long a warm shell waits without any call on its connection."""

AFTER_ANSWER_S = 0.005
"""Between an answer and the next warm shell, so that the answer is under way before anything else costs time."""

AFTER_BEGIN_S = 0.05
"""The same where a call has begun meanwhile: short calls are not disturbed."""

START_LIMIT_S = 15.0
"""How long an account's rc files may take."""

# One program that only looks, and plain words. What is not so plain may change what the next login finds.
_LOOKS = re.compile(
    r"(?:true|false|echo|pwd|ls|cat|head|tail|grep|wc|stat|df|du|free|uptime|uname|id|whoami|ps)(?: [\w./,:=@%+-]+)*",
    re.ASCII,
)


def only_looks(command: str) -> bool:
    """Whether a command plainly changes nothing that the account's next login would find."""
    return _LOOKS.fullmatch(command) is not None


@dataclass(frozen=True)
class WarmShell:
    """A shell that waits.

    Attributes:
        channel: Its channel.
        cookie: Value of `MCP_SSH_CALL` in it, and so in all that the command starts.
        pid: Its process id.
    """

    channel: "Channel"
    cookie: str
    pid: int


class WarmShells:
    """The warm shells of one connection.

    None is started before the first call's answer was given, nor while there is no room for one. All are dropped when
    something may have changed what a login finds (rc files, environment, groups, limits), so a command never runs in a
    shell that is older than the last change made through us.

    Args:
        opened: Opens a channel for a text; None where the machine has no room for one more.
        room: Whether one more channel leaves enough for calls and for ending them.
    """

    def __init__(self, opened: Callable[[str], Awaitable["Channel | None"]], room: Callable[[], bool]) -> None:
        self._opened = opened
        self._room = room
        self.ready: list[WarmShell] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._wanted = 1
        self._steady = False
        self._refill: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self.allowed = False
        """Whether this account gets warm shells; set at login, and taken back where its shell does not behave."""

    def __len__(self) -> int:
        return len(self.ready) + len(self._starting)

    def take(self) -> WarmShell | None:
        """The oldest warm shell, for a call that begins now; None where the call needs a channel of its own."""
        if self._wanted == 1 and self._refill is not None:
            self._plan(AFTER_BEGIN_S)
        while self.ready:
            warm_shell = self.ready.pop(0)
            if warm_shell.channel.open and warm_shell.channel.silent:
                return warm_shell
            warm_shell.channel.close()
            if not warm_shell.channel.silent:
                self.forbid()
        if self._steady:
            self._wanted = min(self._wanted + 1, MOST)
        return None

    def refill_soon(self) -> None:
        """A call has its answer: soon there may be a warm shell for the next one."""
        if not self.allowed:
            return
        self._steady = True
        if self._refill is None or self._wanted == 1:
            self._plan(AFTER_ANSWER_S)
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_later(IDLE_S, self.drop)

    def renew(self) -> None:
        """Something may have changed that a new login would know of, and the warm shells do not: have them end."""
        self.drop()
        if self.allowed:
            self._plan(AFTER_ANSWER_S)

    def drop(self) -> None:
        """Have the warm shells there are end; the next call's answer brings a new one."""
        self._steady = False
        self._wanted = 1
        self.leave(0)

    def leave(self, room: int) -> None:
        """Keep no more than there is room for."""
        while len(self) > room:
            if self._starting:
                self._starting.pop().cancel()
            else:
                self.ready.pop(0).channel.close()

    def forbid(self) -> None:
        """No warm shells on this connection any more."""
        self.allowed = False
        for timer in (self._refill, self._expiry):
            if timer is not None:
                timer.cancel()
        self._refill = self._expiry = None
        self.drop()

    async def close(self) -> None:
        """End everything; nothing is waited for on the machine."""
        starting = [*self._starting]
        self.forbid()
        if starting:
            await asyncio.wait(starting, timeout=1.0)

    def _plan(self, delay_s: float) -> None:
        if self._refill is not None:
            self._refill.cancel()
        self._refill = asyncio.get_running_loop().call_later(delay_s, self._start)

    def _start(self) -> None:
        self._refill = None
        while self.allowed and len(self) < self._wanted and self._room():
            task = asyncio.get_running_loop().create_task(self._start_shell())
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _start_shell(self) -> None:
        cookie = secrets.token_hex(16)
        channel: Channel | None = None
        warm_shell: WarmShell | None = None
        try:
            with anyio.move_on_after(START_LIMIT_S):
                channel = await self._opened(waiting(cookie))
                warm_shell = await _waiting(channel, cookie) if channel is not None else None
        except ToolError:
            pass  # the connection is gone, which the next call will be told
        finally:
            if warm_shell is None and channel is not None:
                channel.close()
        if warm_shell is None:
            self.forbid()
        else:
            self.ready.append(warm_shell)


async def _waiting(channel: "Channel", cookie: str) -> WarmShell | None:
    """The warm shell on a channel, once it waits; None where anything else than its start line came."""
    from mcp_ssh.ssh.connection.channel import STDERR

    line = StartLine(start_mark(cookie))
    other = b""
    while line.pid is None and not other and (chunk := await channel.read(STDERR)):
        other = line.feed(chunk)
    if line.pid is None or other or not channel.silent:
        return None
    return WarmShell(channel, cookie, line.pid)
