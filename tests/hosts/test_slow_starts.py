"""A deadline that comes before the command has begun on its machine."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import anyio
import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.ssh.connection.connection import Connection
from mcp_ssh.tools import command, session
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall
from tests.support.machine import connected, number, outside, processes

SLOW = "~/slow-start"
STALLED = "/tmp/stalled"


@pytest.fixture
def slow(deb: Host) -> Iterator[Host]:
    """A machine on which sshd takes the seconds that a file names, once, before it starts an account's shell."""
    rc = f"[ ! -e {SLOW} ] || {{ mv {SLOW} {SLOW}.taken; sleep $(cat {SLOW}.taken); }}"
    assert deb.ssh(f"cat > ~/.ssh/rc; rm -f {SLOW} {SLOW}.taken", user="dev", stdin=rc).returncode == 0
    yield deb
    assert deb.ssh(f"rm -f ~/.ssh/rc {SLOW} {SLOW}.taken", user="dev").returncode == 0


@pytest.fixture
def stalls(deb: Host) -> Iterator[Host]:
    """A machine on which no shell of an account starts as long as a file is there."""
    rc = f"while [ -e {STALLED} ]; do sleep 0.1; done"
    assert deb.ssh("cat > ~/.ssh/rc", user="dev", stdin=rc).returncode == 0
    yield deb
    assert deb.ssh(f"rm -f ~dev/.ssh/rc {STALLED}").returncode == 0


async def timed_out(app: App, owner: DirectCall, host: Host, seconds: float) -> tuple[str, int, bool | str | None]:
    """A session, the number of its command that the machine begins so late, and what its caller heard of its end."""
    mark = number()
    session_id = await connected(app, host, "dev", owner)
    await outside(host, f"echo {seconds} > {SLOW}", user="dev")
    arguments = {"session_id": session_id, "command": text(mark), "timeout": 0.3, "exact": True}
    result = await dispatch(app, command.run_command, arguments, owner)
    assert result.status == "timed_out"
    return session_id, mark, result.stopped


@pytest.mark.requirement("fault.C2")
async def test_a_command_that_begins_after_its_deadline_is_ended(app: App, owner: DirectCall, slow: Host) -> None:
    _, mark, stopped = await timed_out(app, owner, slow, 1)
    assert stopped is True
    assert await processes(slow, mark) == []


@pytest.mark.requirement("fault.C2")
async def test_of_a_command_that_does_not_begin_for_long_the_end_is_unknown(
    app: App, owner: DirectCall, slow: Host
) -> None:
    session_id, mark, stopped = await timed_out(app, owner, slow, 6)
    assert stopped == "unknown"
    link = app.sessions.find(owner.caller, session_id).link
    await eventually(partial(is_free, link))
    assert await has_ended(slow, mark)


@pytest.mark.requirement("fault.C5")
async def test_commands_that_could_not_be_ended_are_ended_when_the_machine_answers_again(
    app: App, owner: DirectCall, stalls: Host
) -> None:
    session_id = await connected(app, stalls, "dev", owner)
    link = app.sessions.find(owner.caller, session_id).link
    marks = await not_ended(app, owner, stalls, session_id)
    await outside(stalls, f"rm {STALLED}")
    for mark in marks:
        await eventually(partial(has_ended, stalls, mark))
    await eventually(partial(is_free, link))


@pytest.mark.requirement("fault.C5")
async def test_a_closed_session_leaves_no_task_that_would_end_its_commands(
    app: App, owner: DirectCall, stalls: Host
) -> None:
    before = asyncio.all_tasks()
    session_id = await connected(app, stalls, "dev", owner)
    link = app.sessions.find(owner.caller, session_id).link
    marks = await not_ended(app, owner, stalls, session_id)
    assert len(link.later) == len(marks)
    ended = await dispatch(app, session.disconnect, {"session_id": session_id}, owner)
    assert ended.model_dump()["stopped"] == "unknown"
    assert not len(link.later)
    await eventually(partial(no_more_tasks, before))


@pytest.mark.requirement("fault.C5")
async def test_a_session_that_closes_ends_what_it_can_end_by_then(app: App, owner: DirectCall, stalls: Host) -> None:
    session_id = await connected(app, stalls, "dev", owner)
    marks = await not_ended(app, owner, stalls, session_id)
    await outside(stalls, f"rm {STALLED}")
    ended = await dispatch(app, session.disconnect, {"session_id": session_id}, owner)
    gone = [await has_ended(stalls, mark) for mark in marks]
    assert (ended.model_dump().get("stopped") in {None, True}) is all(gone)
    assert all(gone)


async def not_ended(app: App, owner: DirectCall, host: Host, session_id: str) -> list[int]:
    """Numbers of commands that were cancelled, and go on because the machine started no shell that could end them."""
    marks = [number() for _ in range(4)]
    async with anyio.create_task_group() as group:
        for mark in marks:
            given = {"session_id": session_id, "command": text(mark), "timeout": 600, "exact": True}
            group.start_soon(dispatch, app, command.run_command, given, owner)
        for mark in marks:
            await eventually(partial(has_begun, host, mark))
        await outside(host, f"touch {STALLED}")
        group.cancel_scope.cancel()
    assert [mark for mark in marks if await has_ended(host, mark)] == []
    return marks


async def no_more_tasks(before: set[asyncio.Task[Any]]) -> bool:
    return asyncio.all_tasks() <= before


def text(mark: int) -> str:
    return f"touch /tmp/began-{mark}; sleep {mark}"


async def has_begun(host: Host, mark: int) -> bool:
    return (await outside(host, f"ls /tmp/began-{mark} 2>&1 || true")).strip() == f"/tmp/began-{mark}"


async def has_ended(host: Host, mark: int) -> bool:
    return await processes(host, mark) == []


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(60):
        while not await holds():
            await anyio.sleep(0.2)


async def is_free(link: Connection) -> bool:
    """Whether nothing is left to end, and no more channels are open than spares wait on."""
    return not len(link.later) and all(strand.open <= len(link.spares) for strand in link._strands)
