"""Looking at a task without offsets: each look goes on where the caller's last one ended."""

import time
from typing import Any

import anyio
import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.tool import Role
from mcp_ssh.tools import command as room
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller, open_way
from tests.support.machine import connected, number
from tests.support.task_kit import directly, on

pytestmark = pytest.mark.requirement("fault.N17")

LINES = "for i in 1 2 3 4 5 6 7 8; do echo line $i; echo note $i >&2; sleep 0.2; done"
SAID = "".join(f"line {each}\n" for each in range(1, 9)), "".join(f"note {each}\n" for each in range(1, 9))


async def test_looks_without_offsets_tell_everything_once_and_a_second_together(app: App, host: Host) -> None:
    async with open_way("mcp", app) as way:
        here = await on(app, way, host)
        task_id = await here.start(LINES)
        looks: list[dict[str, Any]] = []
        with anyio.fail_after(60):
            while not looks or looks[-1]["status"] == "running":
                looks.append(await here.look(task_id, wait_s=20))
        again = await here.look(task_id)
        whole = await here.look(task_id, output_offset=0, error_offset=0)
    assert ("".join(each["output"] for each in looks), "".join(each["error"] for each in looks)) == SAID
    # Eight lines in 1.6 s: one look for each line would be eight.
    assert len(looks) <= 5
    assert (again["output"], again["error"], again["status"]) == ("", "", "completed")
    assert (whole["output"], whole["error"]) == SAID


async def test_until_end_waits_for_the_end_and_no_longer_than_its_bound(app: App, host: Host) -> None:
    async with open_way("mcp", app) as way:
        here = await on(app, way, host)
        quick = await here.start(LINES)
        seen = await here.look(quick, until="end", wait_s=60)
        endless = await here.start("echo begun; sleep 300")
        began = time.monotonic()
        bounded = await here.look(endless, until="end", wait_s=1)
        waited_s = time.monotonic() - began
        await here.cancel(endless)
    assert (seen["status"], seen["exit_code"], seen["output"]) == ("completed", 0, SAID[0])
    assert (bounded["status"], bounded["output"]) == ("running", "begun\n")
    assert waited_s >= 1


async def test_a_look_with_offsets_repeats_what_is_asked_for(app: App, deb: Host) -> None:
    """The negative control: what goes on by itself is the missing offset alone, and only for models."""
    async with open_way("mcp", app) as way:
        here = await on(app, way, deb)
        task_id = await here.start("echo said")
        assert (await here.look(task_id, until="end", output_offset=0))["output"] == "said\n"
        assert (await here.look(task_id, output_offset=0))["output"] == "said\n"
    plain = await directly(app, deb)
    task_id = await plain.start("echo said")
    assert (await plain.look(task_id, until="end"))["output"] == "said\n"
    assert (await plain.look(task_id))["output"] == "said\n"


async def test_each_caller_has_its_own_last_look_and_a_name_used_again_starts_anew(app: App, deb: Host) -> None:
    app.config.security.allow_server_identities.append("*")
    owner = DirectCall(caller("one", Role.OPERATOR, owner=False), door="mcp")
    admin = DirectCall(caller("two", owner=False), door="mcp")
    on_deb = {each.caller.id: {"session_id": await connected(app, deb, "dev", each)} for each in (owner, admin)}
    name = f"report-{number()}"

    async def look(who: DirectCall) -> Any:
        given = {**on_deb[who.caller.id], "task_id": name, "until": "end"}
        return (await dispatch(app, room.task, given, who)).model_dump()["output"]

    start = {**on_deb["one"], "task_name": name}
    await dispatch(app, room.background, {**start, "command": "echo a long first report"}, owner)
    assert await look(owner) == "a long first report\n"
    assert await look(admin) == "a long first report\n"
    assert await look(owner) == ""
    await dispatch(app, room.background, {**start, "command": "echo next"}, owner)
    assert await look(owner) == "next\n"
    assert await look(admin) == "next\n"
