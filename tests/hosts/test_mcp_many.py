"""Many machines in one call: what comes out equal comes together, whatever its length."""

from typing import Any

import pytest
from mcp import Client

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.mcp_server import build_server
from mcp_ssh.tools import REGISTRY, connection
from mcp_ssh.toolsets import parse
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller
from tests.support.machine import connected, login, outside, trust


async def outcomes(app: App, deb: Host, alpine: Host, command: str) -> list[dict[str, Any]]:
    who = DirectCall(caller())
    sessions = [await connected(app, each, "dev", who) for each in (deb, alpine)]
    server = build_server(app, REGISTRY, parse("core", read_only=False), caller=caller())
    async with Client(server, read_timeout_seconds=60) as client:
        answer = await client.call_tool(
            "tool_call_many",
            {"name": "command_exec", "sessions": sessions, "arguments": {"command": command}},
        )
    assert not answer.is_error, answer.content
    assert answer.structured_content is not None
    return answer.structured_content["outcomes"]


@pytest.mark.requirement("fault.C9.collapse")
@pytest.mark.parametrize("command", ["seq 1 30000", "seq 1 30000 >&2", "seq 1 30000; seq 1 20000 >&2; exit 3"])
async def test_equal_long_outputs_come_together_and_one_blob_has_them(
    app: App, deb: Host, alpine: Host, command: str
) -> None:
    (outcome,) = await outcomes(app, deb, alpine, command)
    assert len(outcome["sessions"]) == 2
    assert outcome["result"]["truncated"] is True
    stream = "stderr" if command == "seq 1 30000 >&2" else "stdout"
    whole = "".join(f"{number}\n" for number in range(1, 30001))
    blob = app.blobs.describe(caller(), outcome["result"][f"{stream}_blob"])
    assert (blob.size_bytes, blob.complete) == (len(whole), True)


@pytest.mark.requirement("fault.C9.collapse")
async def test_outputs_that_differ_in_what_is_not_shown_do_not_come_together(app: App, deb: Host, alpine: Host) -> None:
    """The negative control: begin, end and size are equal, and the middle is each machine's own."""
    middle = "if [ -e /etc/alpine-release ]; then echo alpine; else echo debian; fi"
    found = await outcomes(app, deb, alpine, f"seq 1 9000; {middle}; seq 1 9000")
    assert [len(each["sessions"]) for each in found] == [1, 1]
    first, second = (each["result"] for each in found)
    assert (first["stdout"], first["stdout_bytes"]) == (second["stdout"], second["stdout_bytes"])


@pytest.mark.requirement("fault.C2")
async def test_a_connection_that_is_named_twice_runs_nothing(app: App, owner: DirectCall, deb: Host) -> None:
    """The negative control is in it: named once, the command runs."""
    await trust(app, deb)
    saved = await dispatch(app, connection.add, {"name": "web", **login(deb, "dev")}, owner)
    uuid = saved.model_dump()["uuid"]
    count = "echo x >>/tmp/counted"
    async with Client(build_server(app, REGISTRY, parse("all", REGISTRY), caller=owner.caller)) as client:
        for names, lines in (["web", uuid], 0), (["web"], 1), ([uuid, "web"], 1):
            given = {"name": "command_exec", "sessions": names, "arguments": {"command": count}}
            result = await client.call_tool("tool_call_many", given)
            assert bool(result.is_error) is (len(names) > 1), names
            assert await outside(deb, "wc -l </tmp/counted 2>/dev/null || echo 0") == f"{lines}\n"
    await outside(deb, "rm /tmp/counted")
