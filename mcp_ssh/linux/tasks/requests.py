"""Background tasks in words: what is asked of the machine, and what its answers mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mcp_ssh.errors import Conflict, NotFound, RemoteFailed, ToolError, Unsupported
from mcp_ssh.linux.framing import WORDS, ErrorMapping, PathQuery, ScriptAnswer, ask, failure
from mcp_ssh.linux.tasks.scripts import CANCEL, KEEPER, LIST, LOOK, START
from mcp_ssh.shell_command import Command, quote

TaskStatus = Literal["running", "completed", "cancelled", "lost"]


@dataclass(frozen=True)
class TaskRequest:
    """What is to run. `cookie` stands in `env` too, so that each of its processes bears it."""

    id: str
    cookie: str
    command: str
    cwd: str | None
    env: Mapping[str, str] = field(repr=False)
    stdin: bytes = field(repr=False)


@dataclass(frozen=True)
class TaskStart:
    """A task that has begun, by the machine's clock in seconds since 1970."""

    at: float
    ends_with_login: bool


@dataclass(frozen=True)
class StreamPart:
    """Some bytes of a stream: from which offset on, and how many the stream has had in all."""

    start: int
    total: int
    content: bytes = field(default=b"", repr=False)

    @property
    def end(self) -> int:
        """Offset of the byte behind it."""
        return self.start + len(self.content)


@dataclass(frozen=True)
class TaskSnapshot:
    """A task as its folder on the machine shows it.

    Attributes:
        status: `lost` where it did not end by itself, was not cancelled and does not run: the machine was restarted, or
            its keeper killed.
        pid: Of the command, while it runs.
        open: Whether a process may still write to one of the streams.
        cut: Whether output was dropped because the disk was full.
        restarted: Whether the machine was restarted since it began, so that nothing of it runs.
    """

    id: str
    cookie: str
    command: str
    status: TaskStatus
    began_at: float | None
    ended_at: float | None
    exit_code: int | None
    pid: int | None
    open: bool
    cut: bool
    restarted: bool
    output: StreamPart
    error: StreamPart


def _exists(_: ScriptAnswer) -> ToolError:
    return Conflict(
        "task_name: the account has a task of this name, which runs or whose end nobody has asked for",
        hint="look at it with command_task; once it has ended the name is free",
    )


def missing(_: ScriptAnswer | None = None) -> NotFound:
    """There is no such task."""
    return NotFound("Task not found", hint="command_tasks lists this account's tasks; another account's need `become`")


def _elsewhere(answer: ScriptAnswer) -> ToolError:
    return Conflict(
        f"the task was started on {answer.path}, which shares this home folder",
        hint="look at it on a session of that machine",
    )


def _unsafe(answer: ScriptAnswer) -> ToolError:
    return Unsupported(
        "there is no folder for tasks: the home folder cannot be written, and"
        f" /var/tmp/mcp-ssh-{answer.path} is not a folder of this account alone",
        hint="make the home folder writable, or look who made that folder in /var/tmp",
    )


_WORDS: ErrorMapping = {
    **WORDS,
    "lacks": lambda answer: Unsupported(
        f"the machine has no `{answer.path}`, which tasks need", hint="install it there"
    ),
    "exists": _exists,
    "missing": missing,
    "elsewhere": _elsewhere,
    "unsafe": _unsafe,
    "cwd": lambda _: NotFound("the working folder does not exist or may not be entered", hint="check `cwd`"),
    "failed": lambda answer: failure("task folder", answer.path.encode()),
}


def ask_start(task: TaskRequest, keep_bytes: int, keep_days: int) -> PathQuery:
    """Start it. `parse_start` reads the answer."""
    settings = "".join(f"export {name}={quote(value)}\n" for name, value in task.env.items()).encode()
    command = task.command.encode()
    half = len(task.cookie) // 2
    numbers = [str(len(settings)), str(len(command))]
    words = [str(keep_bytes), str(keep_days), task.cwd or "", *numbers, task.cookie[:half], task.cookie[half:], KEEPER]
    return ask(START, task.id, words, words=_WORDS, stdin=settings + command + task.stdin)


def parse_start(answer: ScriptAnswer) -> TaskStart:
    """When it began."""
    at, *notes = answer.path.split()
    return TaskStart(float(at), "ends_with_login" in notes)


def ask_look(
    task_id: str,
    output: int,
    error: int,
    limit: int,
    wait_s: float = 0.0,
    *,
    others: Sequence[str] = (),
    until_end: bool = False,
) -> PathQuery:
    """How is it, and what has it said from these offsets on? Negative ones count from the end.

    The machine waits for news, or with `until_end` for the end, at most `wait_s`.
    A task with one of the cookies in `others` is missing: it is not to be taken for one whose end was told.
    """
    # Of a cookie one half, so that this script is not among the processes that bear it.
    halves = " ".join(each[: len(each) // 2] for each in others)
    words = [str(output), str(error), str(limit), str(round(wait_s * 10)), halves, "end" if until_end else "news"]
    return ask(LOOK, task_id, words, words=_WORDS)


def parse_look(task_id: str, answer: ScriptAnswer) -> TaskSnapshot:
    """The task and what it said."""
    return _parse_snapshot(task_id, answer.path, answer.body, answer.trailer)


def ask_list() -> PathQuery:
    """Which tasks does the account have? `parse_list` reads the answer."""
    return ask(LIST, "", words=_WORDS)


def parse_list(answer: ScriptAnswer) -> list[TaskSnapshot]:
    """The tasks, the latest first."""
    told = [each.partition("\n") for each in answer.text.split("\0")[:-1]]
    seen = [_parse_snapshot(task_id, facts) for task_id, _, facts in told]
    return sorted(seen, key=lambda each: each.began_at or 0.0, reverse=True)


def ask_cancel(task_id: str, cookie: str, sweep: Command) -> Command:
    """Run the sweep, unless the task of this name is another one by now; remember that it was cancelled."""
    asked = ask(CANCEL, task_id, sweep.argv, words=_WORDS)
    return Command(asked.command.argv, f"{cookie}\n".encode())


def _parse_snapshot(task_id: str, facts: str, output: bytes = b"", error: bytes = b"") -> TaskSnapshot:
    try:
        numbers, run, end, flags, cookie, command = facts.split("\n", 5)
        word, *offsets = numbers.split()
        out_start, out_total, err_start, err_total = map(int, offsets)
        pid, began_at = _run(run)
        exit_code, ended_at = _end(end)
    except ValueError as error_:
        raise RemoteFailed("the task's folder on the machine holds something else than a task") from error_
    said = flags.split()
    return TaskSnapshot(
        id=task_id,
        cookie=cookie,
        command=command,
        status=_status(word, cancelled="cancelled" in said),
        began_at=began_at,
        ended_at=ended_at,
        exit_code=exit_code,
        pid=pid if word == "running" else None,
        open=any(each.endswith(".open") for each in said),
        cut=any(each.endswith(".cut") for each in said),
        restarted="restarted" in said,
        output=StreamPart(out_start, out_total, output),
        error=StreamPart(err_start, err_total, error),
    )


def _status(word: str, *, cancelled: bool) -> TaskStatus:
    if word == "running":
        return "running"
    if cancelled:  # its keeper may have been killed before it could write the end down
        return "cancelled"
    return "completed" if word == "ended" else "lost"


def _run(line: str) -> tuple[int | None, float | None]:
    words = line.split()
    return (int(words[0]), float(words[5])) if len(words) == 7 else (None, None)


def _end(line: str) -> tuple[int | None, float | None]:
    words = line.split()
    return (int(words[0]), float(words[1])) if words else (None, None)
