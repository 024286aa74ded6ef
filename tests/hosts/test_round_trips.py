"""How often a tool that reads asks the machine, on a session that has been used before."""

import pytest

from mcp_ssh.app import App
from mcp_ssh.sessions.session import Session
from mcp_ssh.tool import Risk
from mcp_ssh.tools import REGISTRY
from tests.fleet.hosts import Host
from tests.support.doors import Direct
from tests.support.machine import opened
from tests.support.matrix import STEPS, Step

READ_AS_CHANGE = {"system_service": {"service": "pinger", "action": "status"}}


def reading() -> list[Step]:
    files = ("system_head", "system_tail", "system_grep", "system_find")
    given = {"path": "/etc/passwd", "pattern": "root"}
    steps = [
        Step(each.tool, {name: given.get(name, value) for name, value in each.given.items()})
        if each.tool in files
        else each
        for each in STEPS
        if REGISTRY[each.tool].risk is Risk.READ and REGISTRY[each.tool].room in {"system", "setup", "firewall"}
    ]
    return [*steps, *(Step(tool, arguments) for tool, arguments in READ_AS_CHANGE.items())]


@pytest.mark.requirement("speed.round_trips")
async def test_a_tool_that_reads_asks_the_machine_once(app: App, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    way = Direct(app)
    on = await opened(way, app, host, "root")
    asked = 0
    sent = Session._send

    async def counted(*given: object, **more: object) -> object:
        nonlocal asked
        asked += 1
        return await sent(*given, **more)  # pyright: ignore

    monkeypatch.setattr(Session, "_send", counted)
    first: dict[str, int] = {}
    again: dict[str, int] = {}
    for step in reading():
        for counts in (first, again):
            asked = 0
            await way.call(REGISTRY[step.tool], {**on, **step.given})
            counts[step.tool] = asked
    assert {tool: count for tool, count in again.items() if count > 1} == {}
    assert {tool: count for tool, count in first.items() if count > again[tool] + 1} == {}
