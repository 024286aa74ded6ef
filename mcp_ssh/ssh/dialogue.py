"""What is typed into an interactive shell and has an outcome: a command with its exit code, a secret unseen."""

import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import anyio

from mcp_ssh.commandline import script
from mcp_ssh.errors import Conflict, InvalidInput, Unsupported
from mcp_ssh.probes.terminal import LONGEST_LINE, Prompt, Typed, with_exit_code
from mcp_ssh.ssh.shell import QUIET_S, SETTLE_S, Shell

if TYPE_CHECKING:
    from mcp_ssh.ssh.session import Session

PROMPT_LIMIT_S = 5.0
"""How long a shell may take to come to its prompt before a command is typed."""
BEGIN_LIMIT_S = 10.0
"""How long it may take to begin with what was typed."""
LOST_S = 1.0
"""A prompt that has stood for so long, without the end of the command, shows that the end will not come."""

Status = Literal["completed", "running", "waiting_input", "interrupted", "ended"]


@dataclass(frozen=True)
class Outcome:
    """What became of a command typed into a shell.

    Attributes:
        status: As the tool's result describes it.
        exit_code: Where it completed, or ended the shell.
        start: Offset of its output.
        output: Its output so far, as far as it is kept.
        asking: What it waits for.
    """

    status: Status
    exit_code: int | None
    start: int
    output: bytes = field(repr=False)
    asking: Prompt | None = None


async def execute(host: "Session", shell: Shell, command: str, *, timeout_s: float) -> Outcome:
    """Type a command, and wait for its end, its question, or the deadline, after which it goes on.

    Raises:
        InvalidInput: It is longer than a shell takes in one line.
        Conflict: The shell is not at its prompt, or did not begin with the command.
        Unsupported: It is csh that has the prompt.
    """
    _typed(command, fish=host.account.shell == "fish")
    if shell.turn.locked():
        raise Conflict(f"another call waits for a command in the shell {shell.name!r}", hint="use another shell")
    async with shell.turn:
        await _at_prompt(shell)
        call = _typed(command, fish=await _is_fish(host, shell))
        outcome = await _Watch(shell, call, await shell.type(call.line)).outcome(anyio.current_time() + timeout_s)
    shell.cursor = max(shell.cursor, shell.scrollback.total)
    return outcome


def _typed(command: str, *, fish: bool) -> Typed:
    call = with_exit_code(command, secrets.token_hex(8), fish=fish)
    if len(call.line) > LONGEST_LINE:
        raise InvalidInput(
            f"command: too long for a shell on a terminal by {len(call.line) - LONGEST_LINE} characters as it is typed",
            hint="put it into a file with file_write, and run that with `. ./file`",
        )
    return call


# $1: the account's shell. The 8th field of stat is the group that has its terminal (proc(5)), named after its leader.
_READER = r"""IFS= read -r line <"/proc/$1/stat" && set -- ${line##*) } && cat "/proc/$6/comm" """


async def _is_fish(host: "Session", shell: Shell) -> bool:
    """Whether fish is what reads a line now, be it the account's own shell or not; else it is one of the POSIX kind.

    Accounts whose own shell is POSIX are not asked: it would cost every command a round trip.

    Raises:
        Unsupported: It is csh.
    """
    if host.account.shell not in {"fish", "other"} or shell.pid is None:
        return False
    output = await host.run(script(_READER, [str(shell.pid)]), timeout_s=PROMPT_LIMIT_S)
    name = output.stdout.decode("utf-8", "replace").strip()
    if name.endswith("csh"):
        raise Unsupported(
            f"{name} has the prompt of the shell {shell.name!r}, and cannot be given a command whose end is seen",
            hint="start `sh` in it with shell_send and repeat this, or use command_exec",
        )
    return name == "fish"


async def _at_prompt(shell: Shell) -> None:
    asked = await _asked(shell, SETTLE_S)
    if asked is None or asked.kind != "shell":
        line = (await shell.screen()).line.strip()[-200:]
        raise Conflict(
            f"the shell {shell.name!r} is not at its prompt: its line is {line!r}",
            hint="look with shell_screen; end what runs with shell_key ctrl+c, or answer it with shell_send",
        )


async def _asked(shell: Shell, quiet_s: float) -> Prompt | None:
    """What the shell waits for, once its output has paused for so long; it may take a moment to come to that."""
    asked: Prompt | None = None
    with anyio.move_on_after(PROMPT_LIMIT_S):
        while shell.state == "open" and (asked := await shell.waiting(quiet_s)) is None:
            await shell.scrollback.news(SETTLE_S)
    shell.expect_open()
    return asked


class _Watch:
    """Looks for the marks of one command in what its shell prints."""

    def __init__(self, shell: Shell, call: Typed, typed_at: int) -> None:
        self._shell = shell
        self._call = call
        self._looked = typed_at
        self._start: int | None = None

    async def outcome(self, until: float) -> Outcome:
        began_by = min(until, anyio.current_time() + BEGIN_LIMIT_S)
        while True:
            if (found := self._completed()) is not None:
                return found
            if self._shell.state != "open":
                return self._so_far("ended", self._shell.exit_code)
            if (stopped := await self._stopped(began_by)) is not None:
                return stopped
            if (left_s := until - anyio.current_time()) <= 0:
                return self._so_far("running")
            await self._shell.scrollback.news(min(left_s, QUIET_S))

    def _completed(self) -> Outcome | None:
        scrollback = self._shell.scrollback
        if self._start is None:
            found = re.search(self._call.begin + rb"\r?\n", scrollback.slice(self._looked))
            if found is None:
                return None
            # The end may follow at once: its line end is then the one that was found.
            self._start = max(self._looked, scrollback.start) + found.end()
            self._looked = self._start - 2
        origin = max(self._looked, scrollback.start)
        data = scrollback.slice(origin)
        found = self._call.end.search(data)
        if found is None:
            self._looked = max(origin, scrollback.total - 64)
            return None
        return self._so_far("completed", int(found[1]) if found[1] else None, origin + found.start())

    async def _stopped(self, began_by: float) -> Outcome | None:
        """What came in the way of the end, if anything did."""
        quiet_s = self._shell.quiet_s()
        asked = await self._shell.waiting(QUIET_S)
        back = asked is not None and asked.kind == "shell" and quiet_s >= LOST_S
        if self._start is None:
            if back or anyio.current_time() >= began_by:
                raise Conflict(
                    "the shell did not begin with the command that was typed",
                    hint="look with shell_screen what runs: it must be a POSIX shell, or the account's fish",
                )
            return None
        if back:
            return self._so_far("interrupted")
        if asked is None or asked.kind == "shell" or (asked.kind == "question" and quiet_s < LOST_S):
            return None
        return self._so_far("waiting_input", asking=asked)

    def _so_far(
        self, status: Status, exit_code: int | None = None, end: int | None = None, asking: Prompt | None = None
    ) -> Outcome:
        scrollback = self._shell.scrollback
        start = max(self._looked if self._start is None else self._start, scrollback.start)
        return Outcome(status, exit_code, start, scrollback.slice(start, end), asking)


# $1: a process on the terminal.
_MODES = 'stty -a <"/proc/$1/fd/0"'


async def asks_secretly(host: "Session", shell: Shell) -> Prompt:
    """The question of a program that wants a secret, on a terminal that does not show what is typed.

    Raises:
        Conflict: Nothing asks for one now, or the terminal would show it.
        Unsupported: The account has no shell that could tell.
    """
    asked = await _asked(shell, QUIET_S)
    if asked is None or asked.kind != "password":
        raise Conflict(
            f"nothing in the shell {shell.name!r} asks for a secret now",
            hint="wait with shell_read until waiting_input says password",
        )
    if await _echoes(host, shell):
        raise Conflict(
            "the terminal shows what is typed, so a secret would stand in the output",
            hint="use a program that hides what is typed, such as `read -s`",
        )
    return asked


async def _echoes(host: "Session", shell: Shell) -> bool:
    if shell.pid is None:
        raise Unsupported(
            "this account has no shell that could tell whether the terminal shows what is typed",
            hint="log in with an account that has one",
        )
    output = await host.run(script(_MODES, [str(shell.pid)]))
    return b"-echo" not in output.stdout.replace(b";", b" ").split()
