"""What is typed into an interactive shell and has an outcome: a command with its exit code, a secret unseen."""

import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import anyio

from mcp_ssh.errors import Conflict, InvalidInput, Refused, ToolError, Unsupported
from mcp_ssh.shell_command import script
from mcp_ssh.ssh.pty.shell import QUIET_S, SETTLE_S, Shell
from mcp_ssh.ssh.pty.terminal import LONGEST_LINE, ShellPrompt, TypedCommand, prompt, with_exit_code

if TYPE_CHECKING:
    from mcp_ssh.sessions.session import Session

PROMPT_LIMIT_S = 5.0
"""How long a shell may take to come to its prompt before a command is typed."""
LOOK_AGAIN_S = 1.0
"""How long it is left alone where it is not at its prompt and prints nothing."""
BEGIN_LIMIT_S = 10.0
"""How long it may take to begin with what was typed."""
LOST_S = 1.0
"""A prompt that has stood for so long, without the end of the command, shows that the end will not come."""

ShellExecStatus = Literal["completed", "running", "waiting_input", "interrupted", "ended"]


@dataclass(frozen=True)
class ShellOutcome:
    """What became of a command typed into a shell.

    Attributes:
        status: As the tool's result describes it.
        exit_code: Where it completed, or ended the shell.
        start: Offset of its output.
        output: Its output so far, as far as it is kept.
        asking: What it waits for.
    """

    status: ShellExecStatus
    exit_code: int | None
    start: int
    output: bytes = field(repr=False)
    asking: ShellPrompt | None = None


async def execute(host: "Session", shell: Shell, command: str, *, timeout_s: float) -> ShellOutcome:
    """Type a command, and wait for its end, its question, or the deadline, after which it continues.

    Raises:
        InvalidInput: It is longer than a shell takes in one line.
        Conflict: The shell is not at its prompt; or it did not show that it began, and `details["ran"]` is `unknown`.
        Unsupported: It is csh that has the prompt.
    """
    _type_command(command, fish=host.account.shell == "fish")
    if shell.turn.locked():
        raise Conflict(f"another call waits for a command in the shell {shell.name!r}", hint="use another shell")
    async with shell.turn:
        await _at_prompt(host, shell)
        call = _type_command(command, fish=shell.reader == "fish")
        watch = _Watch(host, shell, call, await shell.type(call.line))
        outcome = await watch.outcome(anyio.current_time() + timeout_s)
    shell.cursor = max(shell.cursor, shell.scrollback.total)
    return outcome


def _type_command(command: str, *, fish: bool) -> TypedCommand:
    call = with_exit_code(command, secrets.token_hex(8), fish=fish)
    if len(call.line) > LONGEST_LINE:
        raise InvalidInput(
            f"command: too long for a shell on a terminal by {len(call.line) - LONGEST_LINE} characters as it is typed",
            hint="put it into a file with file_write, and run that with `. ./file`",
        )
    return call


# $1: the account's shell. Says whether the process group that has its terminal is the shell's own, whether the terminal
# gives what is typed at once, as line editors have it, which program leads that group, and whether it has operands as a
# shell has that runs a script (proc(5), stat).
_READER = r"""
cd "/proc/$1" || exit
line=
while IFS= read -r part || [ -n "$part" ]; do line=$part; done <stat
set -- ${line##*) }
[ "$3" = "$6" ] && echo own || echo other
case " $(stty -a <fd/0) " in *" -icanon"[\ \;]*) echo raw ;; *) echo lines ;; esac
head -c 64 "/proc/$6/comm"
tr "\0" "\n" <"/proc/$6/cmdline" | sed 1d | grep -qv "^-" && echo script || echo none
"""

_EDITING = frozenset({"bash", "zsh", "fish", "mksh", "yash"})
"""Shells that edit the line themselves: while they read a command, their terminal is not in line mode."""

_PLAIN = frozenset({"sh", "dash", "ash", "busybox", "ksh", "ksh93"})
"""Shells that may leave that to the terminal, which then looks the same while they run something of their own."""

_CARRIERS = frozenset(
    {"sudo", "su", "doas", "ssh", "dbclient", "mosh-client", "docker", "podman", "kubectl", "nsenter", "machinectl",
     "lxc", "lxc-attach", "screen", "tmux", "tmux: client", "script", "runuser", "pkexec", "virsh", "telnet"}
)  # fmt: skip
"""Programs in which another shell may stand at its prompt, where only its line tells."""


@dataclass(frozen=True)
class _Reader:
    """What has the terminal of a shell.

    Attributes:
        name: The program.
        own: Whether it is the account's own shell.
        raw: Whether the terminal is not in line mode.
        script: Whether it was started with operands: a shell then runs a script.
    """

    name: str
    own: bool
    raw: bool
    script: bool

    def at_prompt(self, line: str, known: str | None) -> bool:
        """Whether a shell waits for a command at this line, where `known` is its prompt if that is known."""
        if self.name in _EDITING:
            return self.raw
        if self.name in _PLAIN:
            return not self.script and (self.raw or _looks_like_prompt(line, known))
        return (self.own or self.name in _CARRIERS) and _looks_like_prompt(line, known)


def _looks_like_prompt(line: str, known: str | None) -> bool:
    asked = prompt(line, shell_prompt=known)
    return asked is not None and asked.kind == "shell"


async def _reader(host: "Session", shell: Shell) -> _Reader | None:
    """What has the terminal now; None where the account has no shell that could tell.

    Raises:
        Unsupported: It is csh.
    """
    if shell.pid is None:
        return None
    try:
        output = await host.run(script(_READER, [str(shell.pid)]), timeout_s=PROMPT_LIMIT_S, limit=64 * 1024)
    except Refused:  # a pattern of the owner denies `sh` on this machine
        return None
    said = output.stdout.decode("utf-8", "replace").split("\n")[-5:-1]
    if len(said) < 4 or said[0] not in {"own", "other"}:
        return None
    if said[2].endswith("csh"):
        raise Unsupported(
            f"{said[2]} has the prompt of the shell {shell.name!r}, and cannot be given a command whose end is seen",
            hint="start `sh` in it with shell_send and repeat this, or use command_exec",
        )
    return _Reader(said[2], said[0] == "own", said[1] == "raw", said[3] == "script")


async def _at_prompt(host: "Session", shell: Shell) -> None:
    """Wait until the shell stands at its prompt, and note what that looks like.

    Raises:
        Conflict: Something else has the terminal.
    """
    looked_at = -1
    with anyio.move_on_after(PROMPT_LIMIT_S):
        while shell.state == "open":
            pause_s = SETTLE_S
            if shell.quiet_s() >= SETTLE_S or looked_at == shell.scrollback.total:
                looked_at, pause_s = shell.scrollback.total, LOOK_AGAIN_S
                if await _stands_at_prompt(host, shell):
                    return
            await shell.scrollback.news(pause_s)
    shell.expect_open()
    line = (await shell.screen()).line.strip()[-200:]
    raise Conflict(
        f"the shell {shell.name!r} is not at its prompt: its line is {line!r}",
        hint="look with shell_screen; end what runs with shell_key ctrl+c, or answer it with shell_send",
    )


async def _stands_at_prompt(host: "Session", shell: Shell) -> bool:
    """Whether a shell waits for a command. The machine is asked only where its line does not tell: a round trip."""
    line = (await shell.screen()).line
    said = bool(line.strip())
    asks = host.account.shell in {"fish", "other"}  # there the language of what is typed depends on the answer
    if said and not asks and (line == shell.prompt_line or shell.is_back):
        shell.prompt_line = line
        return True
    reader = await _reader(host, shell)
    at_prompt = _looks_like_prompt(line, None) if reader is None else reader.at_prompt(line, shell.prompt_line)
    if at_prompt and (await shell.screen()).line == line:
        shell.prompt_line, shell.reader = line, reader.name if reader else ""
        return True
    return False


async def _find_prompt(shell: Shell, quiet_s: float) -> ShellPrompt | None:
    """What the shell waits for, once its output has paused for so long; it may take a moment to come to that."""
    asked: ShellPrompt | None = None
    with anyio.move_on_after(PROMPT_LIMIT_S):
        while shell.state == "open" and (asked := await shell.waiting(quiet_s)) is None:
            await shell.scrollback.news(SETTLE_S)
    shell.expect_open()
    return asked


def _unknown_whether_begun(shell: Shell) -> Conflict:
    return Conflict(
        f"the shell {shell.name!r} did not show that it began with the command; whether it runs, or will, is unknown",
        hint="look with shell_screen before repeating it: the shell may be slow or stopped, or not a POSIX shell",
        details={"ran": "unknown"},
    )


class _Watch:
    """Looks for the marks of one command in what its shell prints."""

    def __init__(self, host: "Session", shell: Shell, call: TypedCommand, typed_at: int) -> None:
        self._host = host
        self._shell = shell
        self._call = call
        self._looked = typed_at
        self._start: int | None = None
        self._asked_at = -1

    async def outcome(self, until: float) -> ShellOutcome:
        began_by = min(until, anyio.current_time() + BEGIN_LIMIT_S)
        while True:
            if (found := self._find_end()) is not None:
                return found
            if self._shell.state != "open":
                return self._so_far("ended", self._shell.exit_code)
            if (stopped := await self._find_obstacle(began_by)) is not None:
                return stopped
            if (left_s := until - anyio.current_time()) <= 0:
                return self._so_far("running")
            await self._shell.scrollback.news(min(left_s, QUIET_S))

    def _find_end(self) -> ShellOutcome | None:
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
        self._shell.complete(origin + found.end())
        return self._so_far("completed", int(found[1]) if found[1] else None, origin + found.start())

    async def _find_obstacle(self, began_by: float) -> ShellOutcome | None:
        """What came in the way of the end, if anything did."""
        quiet_s = self._shell.quiet_s()
        asked = await self._shell.waiting(QUIET_S)
        back = quiet_s >= LOST_S and await self._is_back(asked)
        if self._start is None:
            if back or anyio.current_time() >= began_by:
                raise _unknown_whether_begun(self._shell)
            return None
        if back:
            return self._so_far("interrupted")
        if asked is None or asked.kind == "shell" or (asked.kind == "question" and quiet_s < LOST_S):
            return None
        return self._so_far("waiting_input", asking=asked)

    async def _is_back(self, asked: ShellPrompt | None) -> bool:
        """Whether the shell stands at its prompt again: a line alone does not show it, for a program may print one.

        The machine is asked once for each line that stands.
        """
        shell, line = self._shell, (await self._shell.screen()).line
        if not line.strip() or shell.scrollback.total == self._asked_at:
            return False
        if line != shell.prompt_line and asked is not None and asked.kind != "shell":
            return False
        self._asked_at = shell.scrollback.total
        try:
            reader = await _reader(self._host, shell)
        except ToolError:
            reader = None
        if reader is None or reader.name in _CARRIERS or reader.name in _PLAIN:
            return line == shell.prompt_line
        return reader.at_prompt(line, shell.prompt_line)

    def _so_far(
        self,
        status: ShellExecStatus,
        exit_code: int | None = None,
        end: int | None = None,
        asking: ShellPrompt | None = None,
    ) -> ShellOutcome:
        scrollback = self._shell.scrollback
        start = max(self._looked if self._start is None else self._start, scrollback.start)
        return ShellOutcome(status, exit_code, start, scrollback.slice(start, end), asking)


# $1: a process on the terminal.
_MODES = 'stty -a <"/proc/$1/fd/0"'


async def asks_secretly(host: "Session", shell: Shell) -> ShellPrompt:
    """The question of a program that wants a secret, on a terminal that does not show what is typed.

    Raises:
        Conflict: Nothing asks for one now, or the terminal would show it.
        Unsupported: The account has no shell that could tell.
    """
    asked = await _find_prompt(shell, QUIET_S)
    if asked is None or asked.kind != "password":
        raise Conflict(
            f"nothing in the shell {shell.name!r} asks for a secret now",
            hint="wait with shell_read until waiting_input says password",
        )
    if await shows_typing(host, shell):
        raise Conflict(
            "the terminal shows what is typed, so a secret would stand in the output",
            hint="use a program that hides what is typed, such as `read -s`",
        )
    return asked


async def shows_typing(host: "Session", shell: Shell) -> bool:
    """Whether the terminal of a shell shows what is typed.

    Raises:
        Unsupported: The account has no shell that could tell.
    """
    if shell.pid is None:
        raise Unsupported(
            "this account has no shell that could tell whether the terminal shows what is typed",
            hint="log in with an account that has one",
        )
    output = await host.run(script(_MODES, [str(shell.pid)]), timeout_s=PROMPT_LIMIT_S)
    return b"-echo" not in output.stdout.replace(b";", b" ").split()
