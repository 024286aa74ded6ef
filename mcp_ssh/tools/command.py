"""Commands: run one and wait for it."""

import base64
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mcp_ssh.errors import InvalidInput
from mcp_ssh.params import Becoming, Result, ShellText
from mcp_ssh.ssh.capture import Capture
from mcp_ssh.ssh.elapsing import elapsing
from mcp_ssh.ssh.run import Ended
from mcp_ssh.ssh.session import Session
from mcp_ssh.tool import Call, Risk, tool

MODEL_OUTPUT = 8 * 1024
PROGRAM_OUTPUT = 1024 * 1024


def _not_ours(name: str) -> str:
    if name == "MCP_SSH_CALL":
        raise ValueError("is set by this server for every command")
    return name


VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256), AfterValidator(_not_ours)]


class Exec(Becoming):
    command: ShellText = Field(
        min_length=1, max_length=262_144, description="Command line, in the language of the account's login shell."
    )
    timeout: float = Field(
        default=30.0, ge=0.1, le=3600, description="Seconds until the command is ended, with all it started."
    )
    get_exit_code: bool = Field(default=True, description="False: exit_code is null.")
    stdin: str | None = Field(
        default=None,
        max_length=4_194_304,
        repr=False,
        description="Text for standard input, which is closed without it.",
    )
    cwd: ShellText | None = Field(default=None, min_length=1, max_length=4096, description="Folder to run in.")
    env: dict[VariableName, ShellText] | None = Field(
        default=None,
        max_length=256,
        repr=False,
        description="Environment variables to add. Their values are in no process list.",
    )
    encoding: Literal["utf-8", "base64"] = Field(
        default="utf-8", description="How output is returned: text, or base64 of its exact bytes."
    )
    max_output_bytes: int | None = Field(
        default=None,
        ge=256,
        description="Bytes of each stream to return. Default 8 KiB for models, 1 MiB over REST. More goes to a blob.",
    )

    def time_limit_s(self) -> float:
        """The command's own deadline, and the time to end what it started."""
        return self.timeout + 15.0


class Executed(Result):
    status: Literal["completed", "timed_out"] = Field(
        description="completed: the command ended by itself, whatever its exit code."
    )
    command: str = Field(description="The command that ran.")
    stdout: str = Field(description="Standard output. Where it was cut, its first and last part.")
    stderr: str = Field(description="Standard error, likewise.")
    exit_code: int | None = Field(description="Exit code; 128+n where signal n ended it; null where it timed out.")
    duration_ms: float = Field(description="Milliseconds from the request to the end.")
    signal: str | None = Field(default=None, description="Signal that ended it, such as KILL.")
    stopped: bool | Literal["unknown"] | None = Field(
        default=None, description="After a timeout: whether every process of the command has ended."
    )
    survivors: list[int] | None = Field(default=None, description="Process ids that could not be ended.")
    truncated: bool | None = Field(default=None, description="True where output was cut.")
    stdout_bytes: int | None = Field(default=None, description="Size of a cut stdout.")
    stderr_bytes: int | None = Field(default=None, description="Size of a cut stderr.")
    stdout_blob: str | None = Field(default=None, description="Blob with all of a cut stdout, for blob_read.")
    stderr_blob: str | None = Field(default=None, description="Blob with all of a cut stderr, for blob_read.")
    invalid_utf8: bool | None = Field(
        default=None, description="True where bytes that are not UTF-8 were replaced; base64 keeps them."
    )
    encoding: Literal["utf-8", "base64"] | None = Field(default=None, description="base64 where it was asked for.")


@tool(Risk.DESTROY, open_world=True)
async def exec_(host: Session, params: Exec, call: Call) -> Executed:
    """Run a shell command on the machine and wait for its output and exit code.

    A non-zero exit code is a result, not an error. Standard input is closed unless stdin is given, so nothing waits
    for a prompt. At the timeout every process the command started is ended, and status is timed_out. The command is
    never repeated. Redirect the output of daemons, or the call waits for them.
    """
    limit = _limit(host, params, call)
    out = Capture(limit, host.blobs, call.caller.id)
    err = Capture(limit, host.blobs, call.caller.id)
    async with elapsing(call, lambda: f"{out.total + err.total} bytes of output"):
        ended = await host.execute(
            params.command,
            timeout_s=params.timeout,
            stdout=out,
            stderr=err,
            stdin=params.stdin.encode("utf-8", "surrogatepass") if params.stdin is not None else None,
            cwd=params.cwd,
            env=params.env,
        )
    return _result(params, ended, out, err)


def _limit(host: Session, params: Exec, call: Call) -> int:
    default = MODEL_OUTPUT if call.door in {"stdio", "mcp"} else PROGRAM_OUTPUT
    wanted = params.max_output_bytes or min(default, host.limits.output_bytes)
    if wanted > host.limits.output_bytes:
        raise InvalidInput(
            f"max_output_bytes: must be at most {host.limits.output_bytes}",
            hint="page through the whole output with blob_read; the ceiling is security.max_output_kb",
        )
    return wanted


def _result(params: Exec, ended: Ended, out: Capture, err: Capture) -> Executed:
    exit_code = ended.exit_code if params.get_exit_code else None
    result = Executed(
        status=ended.status,
        command=params.command,
        stdout=_shown(out, params.encoding),
        stderr=_shown(err, params.encoding),
        exit_code=exit_code,
        duration_ms=round(ended.duration_s * 1000, 1),
    )
    if ended.signal:
        result.signal = ended.signal
    if ended.stopped is not None:
        result.stopped = ended.stopped.shown()
        if ended.stopped.survivors:
            result.survivors = ended.stopped.survivors
    if params.encoding == "base64":
        result.encoding = "base64"
    elif not (_is_utf8(out) and _is_utf8(err)):
        result.invalid_utf8 = True
    _say_cut(result, out, err)
    return result


def _say_cut(result: Executed, out: Capture, err: Capture) -> None:
    if out.truncated:
        result.truncated, result.stdout_bytes = True, out.total
        if out.blob:
            result.stdout_blob = out.blob.id
    if err.truncated:
        result.truncated, result.stderr_bytes = True, err.total
        if err.blob:
            result.stderr_blob = err.blob.id


def _shown(capture: Capture, encoding: str) -> str:
    """A stream as a result carries it; base64 of a cut one is its first part only, since two do not join."""
    if not capture.truncated:
        whole = capture.whole()
        return base64.b64encode(whole).decode() if encoding == "base64" else whole.decode("utf-8", "replace")
    head, tail = capture.ends()
    if encoding == "base64":
        return base64.b64encode(head).decode()
    cut = capture.total - len(head) - len(tail)
    return f"{head.decode('utf-8', 'replace')}\n[… {cut} bytes cut …]\n{tail.decode('utf-8', 'replace')}"


def _is_utf8(capture: Capture) -> bool:
    parts = capture.ends() if capture.truncated else (capture.whole(),)
    try:
        for part in parts:
            part.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
