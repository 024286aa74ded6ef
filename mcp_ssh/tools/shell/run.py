"""Run a command in an interactive shell's own state."""

from pydantic import Field

from mcp_ssh.audit import always
from mcp_ssh.params import CommandLine, Result, output_limit
from mcp_ssh.sessions.session import Session
from mcp_ssh.sessions.shell_exec import ShellExecStatus, execute
from mcp_ssh.tool import Call, Risk, tool
from mcp_ssh.tools.shell.models import OnShell, Waiting, as_text, hide_at_password_prompt, to_type_in, waiting_for


class ShellExecParams(OnShell):
    command: CommandLine = Field(min_length=1, max_length=4096, description="Command line in the shell's language.")
    timeout: float = Field(
        default=30.0, ge=0.1, le=3600, description="Seconds to wait. Afterwards the command continues."
    )

    def time_limit_s(self) -> float:
        """The wait, and time to open the default shell and to come to its prompt."""
        return self.timeout + 45.0


class ShellExecResult(Result):
    status: ShellExecStatus = Field(
        description="completed; running: the time is over; waiting_input; interrupted: the shell is at its prompt again"
        " and the end was not seen (ctrl+c, a syntax error, exit of an inner shell); ended: the shell is."
    )
    command: str = Field(description="The command.")
    output: str = Field(description="What it printed on the terminal so far. Where it was cut, its last part.")
    exit_code: int | None = Field(description="Exit code; null where it is not known.")
    output_offset: int = Field(description="Where its output starts, for shell_read.")
    truncated: bool | None = Field(default=None, description="True where output was cut.")
    waiting_input: Waiting | None = Field(default=None, description="What the command waits for.")


@tool(
    Risk.DESTROY,
    room="shell",
    name="exec",
    open_world=True,
    audit=(
        (lambda _, said: said.get("status") == "completed", "ran in the shell {shell}: {command}"),
        (lambda _, said: said.get("status") == "running", "may still run in the shell {shell}: {command}"),
        (lambda _, said: said.get("status") == "waiting_input", "waits for input in the shell {shell}: {command}"),
        (always, "typed in the shell {shell}: {command}"),
    ),
)
async def run_in_shell(host: Session, params: ShellExecParams, call: Call) -> ShellExecResult:
    """Run a command in an interactive shell, with its folder, variables and account, and get output and exit code.

    Works in whatever POSIX shell has the prompt, such as one of `sudo -i` or of `ssh` to another machine, and in an
    account's own fish. In csh start `sh` with shell_send first.
    What asks for something gives waiting_input; its exit code comes later, in a line `[… exit N]` of shell_read.
    """
    shell = await to_type_in(host, call, params.shell)
    await hide_at_password_prompt(host, shell, "command")
    outcome = await execute(host, shell, params.command, timeout_s=params.timeout)
    host.renew_spares()
    shown = outcome.output[-output_limit(None, call.door, host.limits.output_bytes) :]
    result = ShellExecResult(
        status=outcome.status,
        command=params.command,
        output=await as_text(shown),
        exit_code=outcome.exit_code,
        output_offset=outcome.start,
    )
    if len(shown) < len(outcome.output):
        result.truncated = True
    if outcome.asking is not None:
        result.waiting_input = waiting_for(outcome.asking)
    return result
