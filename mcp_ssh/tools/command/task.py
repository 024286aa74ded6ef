"""Commands in the background: start one, look at it, list them, end one."""

import codecs
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from mcp_ssh.audit import always, may_still_run
from mcp_ssh.linux.tasks.requests import StreamPart, TaskSnapshot, TaskStatus
from mcp_ssh.messages.validation import word_pattern
from mcp_ssh.params import LARGEST_NUMBER, MODEL_DOORS, BecomeParams, CommandLine, Result, output_limit
from mcp_ssh.sessions import background as engine
from mcp_ssh.sessions.session import Session
from mcp_ssh.store.tasks import LastLook
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

SHOWN = 200
"""The most tasks of one list."""

UNTIL_END_S = 30.0
"""How long the end of a task is waited for where no time is named; clients give a call about a minute."""

TASK_NAME = word_pattern(
    r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$",
    "must be at most 64 letters, digits and . _ -, and begin with none of . -, such as backup-1",
)
TaskId = Annotated[str, Field(pattern=TASK_NAME, description="Id of the task, or its task_name.")]

# ---- command_background ------------------------------------------------------------------------------------------


class CommandBackgroundParams(BecomeParams):
    command: CommandLine = Field(
        min_length=1, max_length=32_000, description="Command line, in the language of the account's login shell."
    )
    task_name: str | None = Field(
        default=None, pattern=TASK_NAME, description="Name to be its id. Free again once its end was told."
    )
    stdin: StdinText = None
    cwd: WorkingFolder = None
    env: Environment = None

    def time_limit_s(self) -> float:
        """Time for the input to arrive on a slow link."""
        return 45.0 + len(self.stdin or "") / 50_000


class CommandBackgroundResult(Result):
    task_id: str = Field(description="Id for command_task.")
    status: Literal["started"] = Field(description="Always `started`: the command runs.")
    start_time: float = Field(description="When, by the machine's clock, in seconds since 1970.")
    warning: str | None = Field(default=None, description="Set where something may end the task early.")


@tool(Risk.DESTROY, room="command", open_world=True, audit="started in the background: {command}")
async def background(host: Session, params: CommandBackgroundParams, call: Call) -> CommandBackgroundResult:
    """Start a command in the background and return at once; it runs on when the session, link or server ends.

    Follow it with command_task. It has no time limit; command_task_cancel ends it. Where this call fails without an
    answer, its error has the task_id to look for: never start it again without looking.
    """
    started = await engine.start(
        host,
        call.caller,
        params.command,
        name=params.task_name,
        cwd=params.cwd,
        env=params.env,
        stdin=stdin_bytes(params.stdin) or b"",
        timeout_s=params.time_limit_s() - 15.0,
    )
    host.renew_spares()
    begun = CommandBackgroundResult(task_id=started.id, status="started", start_time=started.began.at)
    if started.began.ends_with_login:
        begun.warning = (
            "this machine ends what an account runs when its last login ends (KillUserProcesses in logind.conf), unless"
            " the account lingers: run `loginctl enable-linger` there, or keep the session open"
        )
    return begun


# ---- command_task ------------------------------------------------------------------------------------------------


class CommandTaskParams(BecomeParams):
    task_id: TaskId
    output_offset: int | None = Field(
        default=None,
        ge=-LARGEST_NUMBER,
        le=LARGEST_NUMBER,
        description="First byte of output to return; negative: from its end. Omitted: on from your last look; over"
        " REST 0.",
    )
    error_offset: int | None = Field(
        default=None, ge=-LARGEST_NUMBER, le=LARGEST_NUMBER, description="The same of error."
    )
    wait_s: float | None = Field(
        default=None, ge=0, le=300, description="Seconds to wait at most. Default 0; with until end 30."
    )
    until: Literal["news", "end"] = Field(
        default="news", description="Wait for news, those of a second together, or for the end."
    )
    max_output_bytes: int | None = Field(
        default=None, ge=256, description="Bytes of each stream to return. Default 8 KiB for models, 1 MiB over REST."
    )
    encoding: Encoding = Field(default="utf-8", description="Output as text, or base64 of its exact bytes.")

    def time_limit_s(self) -> float:
        """The wait, and what the machine may take to answer."""
        return self.waits_s + 45.0

    @property
    def waits_s(self) -> float:
        """How long the machine is given."""
        return (UNTIL_END_S if self.until == "end" else 0.0) if self.wait_s is None else self.wait_s


class CommandTaskResult(Result):
    task_id: str = Field(description="The task.")
    command: str = Field(description="What it runs; the first 2000 bytes.")
    status: TaskStatus = Field(
        description="completed: it ended by itself, whatever its exit code. lost: the machine was restarted, or"
        " something ended the task and what kept it."
    )
    start_time: float | None = Field(description="By the machine's clock, in seconds since 1970.")
    end_time: float | None = Field(default=None, description="Likewise; missing while it runs.")
    exit_code: int | None = Field(default=None, description="Exit code; 128+n where signal n ended it.")
    output: str = Field(description="Standard output from output_offset on.")
    error: str = Field(description="Standard error from error_offset on.")
    output_next: int = Field(description="output_offset of the next call.")
    error_next: int = Field(description="error_offset of the next call.")
    more: bool | None = Field(default=None, description="True where more is there already.")
    output_from: int | None = Field(default=None, description="Where output starts, if not where it was asked for.")
    error_from: int | None = Field(default=None, description="The same of error.")
    dropped: bool | None = Field(default=None, description="True where a full disk made output be dropped.")
    invalid_utf8: bool | None = Field(default=None, description="True where bytes were replaced; base64 keeps them.")


@tool(Risk.READ, room="command", idempotent=False)
async def task(host: Session, params: CommandTaskParams, call: Call) -> CommandTaskResult:
    """Look at a background task: whether it runs, its exit code, and what it said since your last look.

    Without offsets each look continues where the last one ended; output_offset 0 gives all of it again. With wait_s the
    answer comes with the first news of the task, with until end once it ended or the wait is over. Only the last part
    of very long output is kept. Works after a dropped link and a restart of this server, on any session of the same
    account and machine.
    """
    async with elapsing(call, lambda: f"looking at {params.task_id}"):
        seen, output_from, error_from = await _look(host, params, call)
    if seen.status != "running":  # it may have changed what the next login finds, while a shell waited
        host.renew_spares()
    output, output_next = _decode_part(seen, seen.output, params.encoding)
    error, error_next = _decode_part(seen, seen.error, params.encoding)
    polled = CommandTaskResult(
        task_id=seen.id,
        command=seen.command,
        status=seen.status,
        start_time=seen.began_at,
        output=output,
        error=error,
        output_next=output_next,
        error_next=error_next,
    )
    _add_end(polled, seen)
    _add_marks(polled, seen, params.encoding, (output_from, error_from))
    host.tasks.looks.keep(
        call.caller.id, _name(host, params.task_id), LastLook(seen.cookie, polled.output_next, polled.error_next)
    )
    return polled


async def _look(host: Session, params: CommandTaskParams, call: Call) -> tuple[TaskSnapshot, int, int]:
    """Look once, and once more where the last look was at another task of the same name."""
    last = host.tasks.looks.find(call.caller.id, _name(host, params.task_id)) if call.door in MODEL_DOORS else None
    while True:
        output = (last.output if last else 0) if params.output_offset is None else params.output_offset
        error = (last.error if last else 0) if params.error_offset is None else params.error_offset
        seen = await engine.look(
            host,
            call.caller,
            params.task_id,
            output=output,
            error=error,
            limit=output_limit(params.max_output_bytes, call.door, host.limits.output_bytes),
            wait_s=params.waits_s,
            until_end=params.until == "end",
        )
        if last is None or last.cookie == seen.cookie:
            return seen, output, error
        last = None


def _name(host: Session, task_id: str) -> tuple[str, ...]:
    return host.name, host.acting.user if host.acting else "", task_id


def _add_end(result: "CommandTaskResult | TaskSummary | CommandTaskCancelResult", seen: TaskSnapshot) -> None:
    if seen.ended_at is not None:
        result.end_time, result.exit_code = seen.ended_at, seen.exit_code


def _add_marks(polled: CommandTaskResult, seen: TaskSnapshot, encoding: Encoding, asked: tuple[int, int]) -> None:
    if polled.output_next < seen.output.total or polled.error_next < seen.error.total:
        polled.more = True
    if seen.output.start != asked[0]:
        polled.output_from = seen.output.start
    if seen.error.start != asked[1]:
        polled.error_from = seen.error.start
    if seen.cut:
        polled.dropped = True
    shown = (
        seen.output.content[: polled.output_next - seen.output.start],
        seen.error.content[: polled.error_next - seen.error.start],
    )
    if encoding == "utf-8" and not all(map(is_utf8, shown)):
        polled.invalid_utf8 = True


def _decode_part(seen: TaskSnapshot, piece: StreamPart, encoding: Encoding) -> tuple[str, int]:
    """What a stream said, and the offset behind it. A character cut at the end is left for the next look."""
    content = piece.content
    if encoding == "utf-8" and (seen.status == "running" or piece.end < piece.total):
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(content)
        rest = len(decoder.getstate()[0])
        content = content[: len(content) - rest] or content
    return in_words(content, encoding), piece.start + len(content)


# ---- command_tasks -----------------------------------------------------------------------------------------------


class CommandTasksParams(BecomeParams):
    all_on_host: bool = Field(default=False, description="True: also tasks this server did not start or has forgotten.")


class TaskSummary(BaseModel):
    task_id: str = Field(description="The task.")
    command: str = Field(description="What it runs; the first 200 bytes.")
    status: TaskStatus = Field(description="As command_task says.")
    start_time: float | None = Field(description="Seconds since 1970.")
    end_time: float | None = Field(default=None, description="Seconds since 1970.")
    exit_code: int | None = Field(default=None, description="Exit code.")
    output_bytes: int = Field(description="Bytes of output so far.")
    error_bytes: int = Field(description="Bytes of error so far.")


class CommandTasksResult(Result):
    tasks: list[TaskSummary] = Field(description="The latest first, at most 200.")
    count: int = Field(description="How many there are.")


@tool(Risk.READ, room="command")
async def tasks(host: Session, params: CommandTasksParams, call: Call) -> CommandTasksResult:
    """List the background tasks of the session's account on this machine, running and ended.

    Tasks of another account, such as root's, need become. What has ended is kept for some days.
    """
    seen = await engine.list_tasks(host, call.caller, all_on_host=params.all_on_host)
    return CommandTasksResult(tasks=[_summary_of(each) for each in seen[:SHOWN]], count=len(seen))


def _summary_of(seen: TaskSnapshot) -> TaskSummary:
    known = TaskSummary(
        task_id=seen.id,
        command=seen.command,
        status=seen.status,
        start_time=seen.began_at,
        output_bytes=seen.output.total,
        error_bytes=seen.error.total,
    )
    _add_end(known, seen)
    return known


# ---- command_task_cancel -----------------------------------------------------------------------------------------


class CommandTaskCancelParams(BecomeParams):
    task_id: TaskId

    def time_limit_s(self) -> float:
        """Two looks, and between them the end of all processes."""
        return 90.0


class CommandTaskCancelResult(Result):
    task_id: str = Field(description="The task.")
    status: TaskStatus = Field(description="cancelled; completed where it had ended before.")
    stopped: bool | Literal["unknown"] = Field(description="Whether every process of the task has ended.")
    survivors: list[int] | None = Field(default=None, description="Process ids that could not be ended.")
    end_time: float | None = Field(default=None, description="When it ended, in seconds since 1970.")
    exit_code: int | None = Field(default=None, description="Exit code; 128+n where signal n ended it.")


@tool(
    Risk.DESTROY,
    room="command",
    idempotent=True,
    audit=(
        (may_still_run, "asked to end the task {task_id}, which may still run"),
        (lambda _, said: said.get("status") == "cancelled", "ended the task {task_id}"),
        (always, "nothing to change: the task {task_id} had ended"),
    ),
)
async def task_cancel(host: Session, params: CommandTaskCancelParams, call: Call) -> CommandTaskCancelResult:
    """End a background task with every process it started.

    They get TERM, and KILL shortly after. What they said before stays readable with command_task.
    """
    stopped, seen = await engine.cancel(host, call.caller, params.task_id)
    host.renew_spares()
    cancelled = CommandTaskCancelResult(task_id=seen.id, status=seen.status, stopped=stopped.as_field())
    if stopped.survivors:
        cancelled.survivors = stopped.survivors
    _add_end(cancelled, seen)
    return cancelled
