"""Many callers of one connection: those that give up, and those that end together."""

import functools

import anyio
import anyio.abc
import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import ToolError
from mcp_ssh.ssh.connection.limits import CALLS
from mcp_ssh.tools import command, session
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller
from tests.support.machine import SOAK, connected, in_thread, number, processes

WHO = DirectCall(caller())
CALLERS = 50
TOGETHER = 3 * CALLS
ONE_WAY_MS = 100
LOAD_S = 40 if SOAK else 5


@pytest.mark.requirement("fault.C1")
async def test_fifty_callers_with_short_deadlines_lose_no_place(app: App, deb: Host) -> None:
    session_id = await connected(app, deb, "dev", WHO)
    codes: set[str] = set()
    until = anyio.current_time() + LOAD_S

    async def impatient() -> None:
        arguments = {"session_id": session_id, "command": "sleep 0.05; echo well", "timeout": 0.1}
        while anyio.current_time() < until:
            try:
                result = await dispatch(app, command.run_command, arguments, WHO)
                assert result.status == "timed_out" or result.stdout == "well\n"
            except ToolError as error:
                codes.add(error.code)

    async with anyio.create_task_group() as group:
        for _ in range(CALLERS):
            group.start_soon(impatient)
    assert codes == set()
    answers: list[str] = []

    async def patient(word: int) -> None:
        arguments = {"session_id": session_id, "command": f"sleep 0.2; echo {word}", "timeout": 30}
        answers.append((await dispatch(app, command.run_command, arguments, WHO)).stdout)

    async with anyio.create_task_group() as group:
        for word in range(8):
            group.start_soon(functools.partial(patient, word))
    assert sorted(answers) == [f"{word}\n" for word in range(8)]


async def begun(app: App, host: Host, session_id: str, group: anyio.abc.TaskGroup, ends: list[object]) -> int:
    """Start `TOGETHER` endless commands on a session, and wait until all of them run; the number that marks them."""
    mark = number()

    async def run() -> None:
        arguments = {"session_id": session_id, "command": f"exec sleep {mark}", "timeout": 120}
        try:
            ends.append(await dispatch(app, command.run_command, arguments, WHO))
        except ToolError as error:
            ends.append(error)

    for wave in range(TOGETHER // CALLS):  # the link gets another connection for each
        for _ in range(CALLS):
            group.start_soon(run)
        with anyio.fail_after(30):
            while len(await processes(host, f"sleep {mark}")) < (wave + 1) * CALLS:
                await anyio.sleep(0.1)
    return mark


@pytest.mark.requirement("fault.C5")
async def test_many_commands_that_end_together_far_away_are_all_ended(app: App, deb: Host) -> None:
    session_id = await connected(app, deb, "dev", WHO)
    await in_thread(deb.delay, ONE_WAY_MS)
    async with anyio.create_task_group() as group:
        mark = await begun(app, deb, session_id, group, [])
        group.cancel_scope.cancel()
    assert await processes(deb, f"sleep {mark}") == []


@pytest.mark.requirement("fault.C5")
async def test_disconnect_ends_many_commands_far_away_and_says_so(app: App, deb: Host) -> None:
    session_id = await connected(app, deb, "dev", WHO)
    await in_thread(deb.delay, ONE_WAY_MS)
    ends: list[object] = []
    async with anyio.create_task_group() as group:
        mark = await begun(app, deb, session_id, group, ends)
        said = await dispatch(app, session.disconnect, {"session_id": session_id}, WHO)
    assert said.model_dump(exclude_unset=True)["stopped"] is True
    assert await processes(deb, f"sleep {mark}") == []
    assert {getattr(each, "details", {}).get("stopped") for each in ends} == {True}


@pytest.mark.requirement("fault.C5", "fault.C2")
async def test_disconnect_on_a_dead_link_says_that_nobody_knows_and_so_does_each_call(app: App, deb: Host) -> None:
    session_id = await connected(app, deb, "dev", WHO)
    ends: list[object] = []
    async with anyio.create_task_group() as group:
        mark = await begun(app, deb, session_id, group, ends)
        await in_thread(deb.cut)
        with anyio.fail_after(25):
            said = await dispatch(app, session.disconnect, {"session_id": session_id}, WHO)
    assert said.model_dump(exclude_unset=True)["stopped"] == "unknown"
    assert {getattr(each, "details", {}).get("stopped") for each in ends} == {"unknown"}
    assert all("may still run" in str(each) for each in ends)
    await in_thread(deb.restore)
    assert len(await processes(deb, f"sleep {mark}")) == TOGETHER  # nothing else was true
    await in_thread(deb.console, ["pkill", "-KILL", "-f", f"[s]leep {mark}"])


async def test_disconnect_of_an_idle_session_says_nothing_of_processes(app: App, deb: Host) -> None:
    session_id = await connected(app, deb, "dev", WHO)
    said = await dispatch(app, session.disconnect, {"session_id": session_id}, WHO)
    assert said.model_dump(exclude_unset=True) == {"status": "disconnected", "session_id": session_id}
