"""Background tasks: once they run, they belong to their machine, and to no connection or process of this server.

A task has a folder on its machine, and everything about it is read from there; the store only remembers whose it is and
as which account it runs. Starting is one round trip, and making the folder is what can be done once only: whatever gets
lost on the way, a task is never started twice, and is found again by its id.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from mcp_ssh.errors import ConnectFailed, RemoteFailed, TimedOut, ToolError, Unsupported
from mcp_ssh.linux.tasks import requests
from mcp_ssh.linux.tasks.requests import TaskRequest, TaskSnapshot, TaskStart
from mcp_ssh.params import Become, Method
from mcp_ssh.sessions.query import ask
from mcp_ssh.sessions.session import Session
from mcp_ssh.ssh.wire import kill
from mcp_ssh.ssh.wire.command import BARE_SHELLS, COOKIE_VARIABLE
from mcp_ssh.ssh.wire.kill import KillTarget, StopResult
from mcp_ssh.store.tasks import TaskRow
from mcp_ssh.tool import Caller, Role

ANSWER_S = 20.0
"""How long the machine may take to answer, beside what it was asked to wait."""
FACTS_BYTES = 64 * 1024
LIST_BYTES = 1024 * 1024
SWEEP_S = 30.0
"""How long the end of a task's processes may take, on a machine with many of them."""
SETTLE_S = 3.0
"""How long the end of a cancelled task is waited for, once its processes are gone."""
END = 2**62
"""An offset behind everything."""


@dataclass(frozen=True)
class StartedTask:
    """A task that runs now."""

    id: str
    began: TaskStart


async def start(
    session: Session,
    caller: Caller,
    command: str,
    *,
    name: str | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout_s: float = 30.0,
) -> StartedTask:
    """Start a command that runs on when the session, the connection or this server ends.

    Raises:
        Conflict: The account has a task of this name.
        NotFound: `cwd` does not exist.
        ConnectFailed, TimedOut: Nobody knows whether it runs; `details["task_id"]` is for looking.
        Unsupported: The account has no shell, or no folder to keep tasks in.
    """
    if session.account.shell in BARE_SHELLS:
        raise Unsupported("this account has no shell, or a restricted one, so it has no background tasks")
    cookie, task_id = secrets.token_hex(16), name or f"task_{secrets.token_hex(4)}"
    acting = session.acting
    row = TaskRow(
        cookie=cookie,
        task_id=task_id,
        owner=caller.id,
        target=session.name,
        account=acting.user if acting else None,
        method=acting.method if acting else None,
    )
    task = TaskRequest(task_id, cookie, command, cwd, {**(env or {}), COOKIE_VARIABLE: cookie}, stdin)
    asked = requests.ask_start(task, session.limits.task_output_bytes, session.limits.task_keep_days)
    await session.tasks.add(row)
    try:
        said = await session.run(asked.command, timeout_s=timeout_s)
        began = requests.parse_start(asked.answer(said.stdout, said.stderr))
    except (ConnectFailed, TimedOut, RemoteFailed) as error:
        raise _uncertain(error, task_id) from error
    except ToolError:
        await session.tasks.forget(cookie)
        raise
    return StartedTask(task_id, began)


def _uncertain(error: ToolError, task_id: str) -> ToolError:
    return type(error)(
        error.message,
        hint=f"do not start it again before command_task has looked for {task_id}: it may run",
        details={**error.details, "task_id": task_id},
    )


async def look(
    session: Session,
    caller: Caller,
    task_id: str,
    *,
    output: int = 0,
    error: int = 0,
    limit: int = 0,
    wait_s: float = 0.0,
    until_end: bool = False,
) -> TaskSnapshot:
    """A task, and at most `limit` bytes of what it said from these offsets on; negative ones count from the end.

    The machine is given `wait_s` for news: output behind the offsets, or the end. News of a second come together. With
    `until_end` only the end is waited for.

    Raises:
        NotFound: The account has no such task, or it is another caller's.
    """
    place = await _place(session, caller, task_id)
    others = [] if caller.role is Role.ADMIN else await session.tasks.of_others(task_id, caller.id)
    asked = requests.ask_look(task_id, output, error, limit, wait_s, others=others, until_end=until_end)
    seen = await ask(
        place,
        asked.command,
        lambda said: requests.parse_look(task_id, asked.answer(said.stdout, said.stderr)),
        timeout_s=wait_s + ANSWER_S,
        limit=2 * limit + FACTS_BYTES,
    )
    owners = await session.tasks.owners([seen.cookie])
    if not _may_see(caller, owners.get(seen.cookie, caller.id)):
        raise requests.missing()
    return seen


async def list_tasks(session: Session, caller: Caller, *, all_on_host: bool) -> list[TaskSnapshot]:
    """The account's tasks that this caller started, the latest first; an admin sees those of all callers.

    With `all_on_host` also those that this server knows nothing of.
    """
    asked = requests.ask_list()
    seen = await ask(
        session,
        asked.command,
        lambda said: requests.parse_list(asked.answer(said.stdout, said.stderr)),
        timeout_s=ANSWER_S,
        limit=LIST_BYTES,
    )
    owners = await session.tasks.owners(each.cookie for each in seen)
    return [each for each in seen if (_may_see(caller, owners[each.cookie]) if each.cookie in owners else all_on_host)]


async def cancel(session: Session, caller: Caller, task_id: str) -> tuple[StopResult, TaskSnapshot]:
    """End every process of a task, then look at it once more.

    Raises:
        NotFound: The account has no such task, or it is another caller's.
    """
    before = await look(session, caller, task_id)
    place = await _place(session, caller, task_id)
    # That the process of this number is the task's was just seen, so no age has to prove it.
    sweep = kill.sweep(KillTarget(before.cookie, before.pid, 0.0))
    said = await place.run(requests.ask_cancel(task_id, before.cookie, sweep), timeout_s=SWEEP_S)
    stopped = kill.parse(said.stdout)[0]
    if before.status == "lost" and not before.restarted and not stopped.found:
        stopped = StopResult(ended=None)  # what kept it is gone, and nothing that was seen was ended
    wait_s = SETTLE_S if stopped.ended else 0.0
    return stopped, await look(session, caller, task_id, output=END, error=END, wait_s=wait_s)


async def _place(session: Session, caller: Caller, task_id: str) -> Session:
    """The session as the account that the task was started as, where nothing else was asked for."""
    if session.acting is not None:
        return session
    row = await session.tasks.latest(session.name, task_id, caller.id)
    if row is None or row.account is None or not _may_see(caller, row.owner):
        return session
    return session.becoming(Become(user=row.account, method=cast("Method", row.method)))


def _may_see(caller: Caller, owner: str) -> bool:
    return caller.role is Role.ADMIN or caller.id == owner
