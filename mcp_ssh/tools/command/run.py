"""Run a command and wait for it."""

from typing import Literal

from pydantic import Field

from mcp_ssh.audit import of_a_command
from mcp_ssh.params import BecomeParams, CommandLine, Result, output_limit
from mcp_ssh.sessions.blob_capture import BlobCapture
from mcp_ssh.sessions.session import Session
from mcp_ssh.ssh.exec.capture import Capture
from mcp_ssh.ssh.exec.run import CommandResult
from mcp_ssh.tool import Call, Risk, tool
from mcp_ssh.tools.command.models import (
    Encoding,
    Environment,
    StdinText,
    WorkingFolder,
    in_words,
    is_utf8,
    stdin_bytes,
)
from mcp_ssh.tools.heartbeat import elapsing


class CommandExecParams(BecomeParams):
    command: CommandLine = Field(
        min_length=1, max_length=131_071, description="Command line, in the language of the account's login shell."
    )
    timeout: float = Field(
        default=30.0, ge=0.1, le=3600, description="Seconds until the command is ended, with all it started."
    )
    get_exit_code: bool = Field(default=True, description="False: exit_code is null.")
    stdin: StdinText = None
    cwd: WorkingFolder = None
    env: Environment = None
    encoding: Encoding = Field(
        default="utf-8", description="How output is returned: text, or base64 of its exact bytes."
    )
    max_output_bytes: int | None = Field(
        default=None,
        ge=256,
        description="Bytes of each stream to return. Default 8 KiB for models, 1 MiB over REST. More goes to a blob.",
    )
    exact: bool = Field(default=False, description="Never use a shell that was started ahead of need; slower.")

    def time_limit_s(self) -> float:
        """The command's own deadline, and the time to end what it started."""
        return self.timeout + 15.0


class CommandExecResult(Result):
    status: Literal["completed", "timed_out"] = Field(
        description="completed: the command ended by itself, whatever its exit code."
    )
    command: str = Field(description="The command.")
    stdout: str = Field(description="Standard output. Where it was cut, its first and last part.")
    stderr: str = Field(description="Standard error, likewise.")
    exit_code: int | None = Field(description="Exit code; 128+n where signal n ended it; null where it timed out.")
    duration_ms: float = Field(description="Milliseconds from the request to the end.")
    signal: str | None = Field(default=None, description="Signal that ended it, such as KILL.")
    stopped: bool | Literal["unknown"] | None = Field(
        default=None, description="After a timeout: whether every process of the command has ended."
    )
    survivors: list[int] | None = Field(default=None, description="Process ids that could not be ended.")
    ran: bool | None = Field(
        default=None, description="False where the timeout came before the command was sent: it did not run."
    )
    truncated: bool | None = Field(default=None, description="True where output was cut.")
    stdout_bytes: int | None = Field(default=None, description="Size of a cut stdout.")
    stderr_bytes: int | None = Field(default=None, description="Size of a cut stderr.")
    stdout_blob: str | None = Field(default=None, description="Blob of a cut stdout, for blob_read.")
    stderr_blob: str | None = Field(default=None, description="Blob of a cut stderr, for blob_read.")
    stdout_blob_bytes: int | None = Field(
        default=None, description="Set where stdout_blob has only so many bytes, the first ones."
    )
    stderr_blob_bytes: int | None = Field(
        default=None, description="Set where stderr_blob has only so many bytes, the first ones."
    )
    invalid_utf8: bool | None = Field(
        default=None, description="True where bytes that are not UTF-8 were replaced; base64 keeps them."
    )
    encoding: Encoding | None = Field(default=None, description="base64 where it was asked for.")


@tool(Risk.DESTROY, room="command", name="exec", open_world=True, audit=of_a_command("ran", "{command}"))
async def run_command(host: Session, params: CommandExecParams, call: Call) -> CommandExecResult:
    """Run a shell command on the machine and wait for its output and exit code.

    A non-zero exit code is a result, not an error. Standard input is closed unless stdin is given, so nothing waits
    for a prompt. At the timeout every process the command started is ended, and status is timed_out. The command is
    never repeated. Redirect the output of daemons, or the call waits for them.
    """
    limit = output_limit(params.max_output_bytes, call.door, host.limits.output_bytes)
    out = BlobCapture(limit, host.blobs, call.caller.id)
    err = BlobCapture(limit, host.blobs, call.caller.id)
    async with elapsing(call, lambda: f"{out.total + err.total} bytes of output"):
        ended = await host.execute(
            params.command,
            timeout_s=params.timeout,
            stdout=out,
            stderr=err,
            stdin=stdin_bytes(params.stdin),
            cwd=params.cwd,
            env=params.env,
            exact=params.exact,
        )
    return _result(params, ended, out, err)


def _result(params: CommandExecParams, ended: CommandResult, out: BlobCapture, err: BlobCapture) -> CommandExecResult:
    exit_code = ended.exit_code if params.get_exit_code else None
    result = CommandExecResult(
        status=ended.status,
        command=params.command,
        stdout=_stream_text(out, params.encoding),
        stderr=_stream_text(err, params.encoding),
        exit_code=exit_code,
        duration_ms=round(ended.duration_s * 1000, 1),
    )
    if ended.signal:
        result.signal = ended.signal
    if ended.stopped is not None:
        result.stopped = ended.stopped.as_field()
        if ended.stopped.survivors:
            result.survivors = ended.stopped.survivors
    if not ended.sent:
        result.ran = False
    if params.encoding == "base64":
        result.encoding = "base64"
    elif not (_is_utf8(out) and _is_utf8(err)):
        result.invalid_utf8 = True
    _say_cut(result, out, err)
    return result


def _say_cut(result: CommandExecResult, out: BlobCapture, err: BlobCapture) -> None:
    if out.truncated:
        result.truncated, result.stdout_bytes = True, out.total
        if out.blob:
            result.stdout_blob = out.blob.id
            if out.blob.size_bytes < out.total:
                result.stdout_blob_bytes = out.blob.size_bytes
    if err.truncated:
        result.truncated, result.stderr_bytes = True, err.total
        if err.blob:
            result.stderr_blob = err.blob.id
            if err.blob.size_bytes < err.total:
                result.stderr_blob_bytes = err.blob.size_bytes


def _stream_text(capture: Capture, encoding: Encoding) -> str:
    """A stream as a result carries it; base64 of a cut one is its first part only, since two do not join."""
    if not capture.truncated:
        whole = capture.whole()
        return in_words(whole, encoding)
    head, tail = capture.ends()
    if encoding == "base64":
        return in_words(head, encoding)
    cut = capture.total - len(head) - len(tail)
    return f"{head.decode('utf-8', 'replace')}\n[… {cut} bytes cut …]\n{tail.decode('utf-8', 'replace')}"


def _is_utf8(capture: Capture) -> bool:
    return all(map(is_utf8, capture.ends() if capture.truncated else (capture.whole(),)))
