"""Which shell a call means, and what every answer says of one."""

import contextlib
from typing import Annotated

import anyio.to_thread
from pydantic import BaseModel, Field

from mcp_ssh.audit import hide_argument, show_argument
from mcp_ssh.errors import ToolError
from mcp_ssh.messages.validation import word_pattern
from mcp_ssh.params import OnSession
from mcp_ssh.sessions.session import Session
from mcp_ssh.sessions.shell_exec import shows_typing
from mcp_ssh.ssh.connection.connection import Terminal
from mcp_ssh.ssh.pty.shell import Shell
from mcp_ssh.ssh.pty.terminal import Kind, ShellPrompt, plain, prompt
from mcp_ssh.ssh.wire.command import interactive
from mcp_ssh.tool import Call

DEFAULT = "default"
"""The shell of a session that nobody has to name or to open."""

AT_ONCE = 16 * 1024
"""Bytes of output that are made into text in a few ms, whatever they are."""

_NAME = word_pattern(
    r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$",
    "must be at most 64 letters, digits and _ . -, and begin with none of . -, such as build",
)
ShellName = Annotated[str, Field(pattern=_NAME)]
Columns = Annotated[int, Field(ge=20, le=500, description="Width of the terminal in characters.")]
Rows = Annotated[int, Field(ge=5, le=200, description="Height of the terminal in lines.")]


class OnShell(OnSession):
    shell: ShellName = Field(default=DEFAULT, description="Name of the shell.")


class Waiting(BaseModel):
    kind: Kind = Field(description="shell: at its prompt. question: asks for something else.")
    prompt: str = Field(description="The line it waits at.")
    next: str = Field(description="The call to make.")


_NEXT: dict[Kind, str] = {
    "password": "shell_secret: the user is asked, and you do not see the answer. Never send a secret with shell_send",
    "confirm": "shell_send with command y or n",
    "pager": "shell_send with command q and enter false to leave, or a space to go on",
    "question": "shell_send with the answer",
    "shell": "shell_exec or shell_send",
}


def waiting_for(asked: ShellPrompt) -> Waiting:
    """What a shell waits for, as answers tell it."""
    return Waiting(kind=asked.kind, prompt=asked.text, next=_NEXT[asked.kind])


async def as_text(output: bytes) -> str:
    """Output as text; in a thread where it takes longer than other calls should wait."""
    return plain(output) if len(output) <= AT_ONCE else await anyio.to_thread.run_sync(plain, output)


async def to_type_in(host: Session, call: Call, name: str) -> Shell:
    """The shell of that name; the default one is opened where it is not there.

    Raises:
        NotFound: There is none.
        Refused: What may run on the machine is a list, which a shell cannot be held to, also one that is open already.
    """
    _expect_shells(host)
    if name != DEFAULT:
        return host.shells.find(call.caller.id, name)
    return await start_shell(host, call, name, Terminal(80, 24), replace=False)


async def hide_at_password_prompt(host: Session, shell: Shell, argument: str) -> None:
    """Keep what is typed at a password prompt out of the history, unless the terminal is seen to show it."""
    # Of a shell that has ended, too: what was meant for its prompt is a secret all the same.
    asked = prompt((await shell.screen()).line, shell_prompt=shell.prompt_line)
    if asked is None or asked.kind != "password":
        return
    hide_argument(argument)
    with contextlib.suppress(ToolError):
        if shell.state == "open" and await shows_typing(host, shell):
            show_argument(argument)


async def start_shell(
    host: Session, call: Call, name: str, terminal: Terminal, *, cwd: str | None = None, replace: bool = True
) -> Shell:
    """Open a shell, unless it is there already and need not be new.

    Raises:
        Refused: What may run on the machine is a list, which a shell cannot be held to.
    """
    _expect_shells(host)
    wired = interactive(shell=host.account.shell, cwd=cwd, env=host.environment)
    return await host.shells.open(call.caller.id, name, wired, terminal, replace=replace)


def _expect_shells(host: Session) -> None:
    from mcp_ssh.tools.shell.lifecycle import open_shell  # which imports this module

    host.rules.expect_tool(open_shell)
