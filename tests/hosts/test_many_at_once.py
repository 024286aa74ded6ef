"""Many callers of one connection: those that give up, and those that end together."""

import functools

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import ToolError
from mcp_ssh.tools import command
from tests.doors import DirectCall, caller
from tests.fleet.hosts import Host
from tests.hosts.machine import SOAK, connected

WHO = DirectCall(caller())
CALLERS = 50
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
                result = await dispatch(app, command.exec_, arguments, WHO)
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
        answers.append((await dispatch(app, command.exec_, arguments, WHO)).stdout)

    async with anyio.create_task_group() as group:
        for word in range(8):
            group.start_soon(functools.partial(patient, word))
    assert sorted(answers) == [f"{word}\n" for word in range(8)]
