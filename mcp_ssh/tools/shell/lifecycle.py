"""Open interactive shells, list, resize and close them."""

from typing import Literal

from pydantic import BaseModel, Field

from mcp_ssh.audit import always, may_still_run
from mcp_ssh.params import FolderPath, OnSession, Result
from mcp_ssh.sessions.session import Session
from mcp_ssh.ssh.connection.connection import Terminal
from mcp_ssh.ssh.pty.shell import Shell, ShellState
from mcp_ssh.tool import Call, Risk, tool
from mcp_ssh.tools.shell.models import DEFAULT, Columns, OnShell, Rows, ShellName, Waiting, start_shell, waiting_for


class ShellOpenParams(OnSession):
    shell: ShellName = Field(default=DEFAULT, description="Name for it, free to choose.")
    columns: Columns = 80
    rows: Rows = 24
    cwd: FolderPath | None = Field(
        default=None, min_length=1, max_length=4096, description="Folder to start in; `~` is the account's home."
    )


class ShellOpenResult(Result):
    status: Literal["open"] = Field(description="Always `open`.")
    shell: str = Field(description="Its name.")
    columns: int = Field(description="Width of its terminal in characters.")
    rows: int = Field(description="Height in lines.")


@tool(Risk.CHANGE, room="shell", name="open", audit="opened the shell {shell}")
async def open_shell(host: Session, params: ShellOpenParams, call: Call) -> ShellOpenResult:
    """Open an interactive shell on a terminal, for programs that ask questions or draw the screen.

    A session can have several, by name; each keeps its folder, variables and running programs between calls. For
    commands that ask nothing command_exec is simpler. It ends with the session. Closing it ends all that was started in
    it, daemons too: what must stay is for command_background or the service manager.
    """
    shell = await start_shell(host, call, params.shell, Terminal(params.columns, params.rows), cwd=params.cwd)
    return ShellOpenResult(status="open", shell=shell.name, columns=params.columns, rows=params.rows)


class ShellFacts(BaseModel):
    status: ShellState = Field(description="open; ended: by itself; lost: with the connection.")
    columns: int = Field(description="Width of its terminal in characters.")
    rows: int = Field(description="Height in lines.")
    output_bytes: int = Field(description="Bytes it printed so far.")
    exit_code: int | None = Field(default=None, description="Of one that ended.")
    waiting_input: Waiting | None = Field(default=None, description="What it waits for.")


class ShellListResult(Result):
    shells: dict[str, ShellFacts] = Field(description="Your shells on the session by name.")
    count: int = Field(description="How many.")


@tool(Risk.READ, room="shell", name="list")
async def list_shells(host: Session, params: OnSession, call: Call) -> ShellListResult:
    """List your interactive shells on a session, and what each waits for."""
    facts = {each.name: await _facts(each) for each in host.shells.of(call.caller.id)}
    return ShellListResult(shells=facts, count=len(facts))


async def _facts(shell: Shell) -> ShellFacts:
    facts = ShellFacts(
        status=shell.state,
        columns=shell.terminal.columns,
        rows=shell.terminal.rows,
        output_bytes=shell.scrollback.total,
    )
    if shell.state == "ended":
        facts.exit_code = shell.exit_code
    if (asked := await shell.waiting()) is not None:
        facts.waiting_input = waiting_for(asked)
    return facts


class ShellResizeParams(OnShell):
    columns: Columns
    rows: Rows


class ShellResizeResult(Result):
    status: Literal["resized"] = Field(description="Always `resized`.")
    columns: int = Field(description="Width of its terminal in characters.")
    rows: int = Field(description="Height in lines.")


@tool(Risk.CHANGE, room="shell", idempotent=True, audit="resized the shell {shell} to {columns}x{rows}")
async def resize(host: Session, params: ShellResizeParams, call: Call) -> ShellResizeResult:
    """Give the terminal of an interactive shell another size; programs in it are told."""
    shell = host.shells.find(call.caller.id, params.shell)
    await shell.resize(Terminal(params.columns, params.rows))
    return ShellResizeResult(status="resized", columns=params.columns, rows=params.rows)


class ShellCloseResult(Result):
    status: Literal["closed"] = Field(description="Always `closed`.")
    shell: str = Field(description="Its name.")
    exit_code: int | None = Field(default=None, description="Of one that had ended by itself.")
    stopped: bool | Literal["unknown"] = Field(description="Whether every process started in it has ended.")
    survivors: list[int] | None = Field(default=None, description="Process ids that could not be ended.")


@tool(
    Risk.DESTROY,
    room="shell",
    audit=(
        (may_still_run, "closed the shell {shell}; what was started in it may still run"),
        (always, "closed the shell {shell}"),
    ),
)
async def close(host: Session, params: OnShell, call: Call) -> ShellCloseResult:
    """Close an interactive shell and end every process started in it, daemons too.

    To leave what runs in the background, send `exit` with shell_send instead.
    """
    shell = host.shells.find(call.caller.id, params.shell)
    exit_code = shell.exit_code if shell.state == "ended" else None
    stopped = await host.shells.close(shell, call.caller.id)
    closed = ShellCloseResult(status="closed", shell=shell.name, stopped=stopped.as_field())
    if exit_code is not None:
        closed.exit_code = exit_code
    if stopped.survivors:
        closed.survivors = stopped.survivors
    return closed
