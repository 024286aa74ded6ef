"""A person is asked by the official client, on every transport and in both eras; the model's side sees no secret."""

import json
from pathlib import Path

import anyio
import pytest
from mcp import types

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.tools import command
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller
from tests.support.machine import connected, number, outside, processes
from tests.support.mcp_client import ERAS, Model, Person, beside, client_of, kept


@ERAS
@pytest.mark.parametrize("transport", ["stdio", "http"])
@pytest.mark.requirement("mcp.secrets", "mcp.asking", "mcp.asking_hostkey", "mcp.asking_become")
async def test_a_whole_job_with_asked_secrets_leaves_none_of_them_behind(
    mcp_home: Path, deb: Host, transport: str, mode: str
) -> None:
    person = Person(trust=True, password=deb.password, remember=True)
    logs = mcp_home.with_name(f"{mcp_home.name}.log")
    mark = number()
    async with client_of(transport, mode, mcp_home, person, logs) as client:
        model = Model(client)
        opened = await model.call("session_connect", host=deb.ip, port=deb.port, username="ops")
        job = f"id -un; sleep 0.3{mark}"
        seen: list[str] = []
        async with anyio.create_task_group() as group:

            async def look() -> None:
                while not any(str(mark) in line for line in seen):
                    listed = await anyio.to_thread.run_sync(deb.console, ["ps", "-eo", "args"])
                    seen.extend(listed.stdout.splitlines())

            group.start_soon(look)
            for _ in range(2):
                ran = await model.call("command_exec", command=job, become={"user": "root"})
                assert (ran["stdout"], ran["exit_code"]) == ("root\n", 0)
        assert opened["username"] == "ops"
    assert person.asked == ["password", "trust", "password"]
    assert deb.password not in "\n".join(model.log)
    assert deb.password not in "\n".join(seen)
    assert deb.password not in kept(mcp_home, logs)
    assert str(mark) in kept(mcp_home, logs), "the negative control: what was sent as an argument is there"


@pytest.fixture
async def ops(app: App, deb: Host) -> str:
    return await connected(app, deb, "ops", DirectCall(caller()))


@ERAS
@pytest.mark.requirement("mcp.asking_become")
async def test_a_command_that_waited_for_a_password_ran_once(app: App, deb: Host, ops: str, mode: str) -> None:
    place = f"/root/asked-{number()}"
    person = Person(password=deb.password)
    async with beside(app, mode, person) as client:
        model = Model(client)
        for become in ({"user": "root"}, {"user": "root"}, {"method": "su"}):
            person.answers["remember"] = False
            await model.call("command_exec", session_id=ops, command=f"echo once >> {place}", become=become)
    assert person.asked == ["password"] * 3
    assert await outside(deb, f"cat {place}; rm {place}") == "once\n" * 3


@ERAS
@pytest.mark.requirement("mcp.asking_become", "mcp.asking_once")
async def test_a_wrong_or_missing_password_runs_nothing_and_is_tried_once(
    app: App, deb: Host, ops: str, mode: str
) -> None:
    mark = number()
    answers = ((f"wrong-{mark}", "permission_denied"), ("", "refused"), (f"{deb.password}\nid", "refused"))
    for person, code in ((Person(password=password), code) for password, code in answers):
        async with beside(app, mode, person) as client:
            given = {"session_id": ops, "command": f"sleep 5{mark}", "become": {"user": "root"}, "timeout": 20}
            result = await client.call_tool("command_exec", given)
        assert result.is_error
        assert isinstance(result.content[0], types.TextContent)
        assert json.loads(result.content[0].text)["code"] == code
        assert person.asked == ["password"]
        assert f"wrong-{mark}" not in result.model_dump_json()
    assert await processes(deb, mark) == []


@ERAS
@pytest.mark.requirement("mcp.many")
async def test_one_call_on_two_machines_answers_for_each_and_equal_outcomes_come_together(
    app: App, deb: Host, alpine: Host, mode: str
) -> None:
    who = DirectCall(caller())
    first, second = await connected(app, deb, "dev", who), await connected(app, alpine, "dev", who)
    place = f"/tmp/many-{number()}"
    async with beside(app, mode) as client:
        model = Model(client)
        same = await model.call(
            "tool_call_many", name="command_exec", sessions=[first, second],
            arguments={"command": f"echo once >> {place}; cat {place}"},
        )  # fmt: skip
        differ = await model.call(
            "tool_call_many", name="file_read", sessions=[first, second, "nobody"], arguments={"path": "/etc/hostname"}
        )
        twice = await client.call_tool(
            "tool_call_many",
            {"name": "command_exec", "sessions": [first, f"dev@{deb.ip}"], "arguments": {"command": "true"}},
        )
    assert same["outcomes"][0]["sessions"] == [first, second]
    assert same["outcomes"][0]["result"]["stdout"] == "once\n"
    assert (same["succeeded"], same["failed"], len(same["outcomes"])) == (2, 0, 1)
    assert (differ["succeeded"], differ["failed"], len(differ["outcomes"])) == (2, 1, 3)
    assert differ["outcomes"][2]["error"]["code"] == "not_found"
    assert twice.is_error
    for host in (deb, alpine):
        assert await outside(host, f"cat {place}; rm {place}", user="dev") == "once\n"
    await app.store.history.flush()
    tools = [(row.tool, row.outcome) for row in await app.store.history.list(50) if row.tool != "session_connect"]
    assert sorted(tools) == sorted(
        [("command_exec", "ok")] * 2
        + [("file_read", "ok")] * 2
        + [("file_read", "not_found"), ("tool_call_many", "invalid_input")]
    )


@ERAS
@pytest.mark.requirement("mcp.small_answers", "fault.N15")
async def test_a_long_output_costs_24_kib_and_all_of_it_can_be_had_from_the_text_alone(
    app: App, deb: Host, mode: str
) -> None:
    session = await connected(app, deb, "dev", DirectCall(caller()))
    async with beside(app, mode) as client:
        result = await client.call_tool("command_exec", {"session_id": session, "command": "seq 1 200000"})
        shown = json.loads(said(result))
        blob = {"blob_id": shown["stdout_blob"]}
        page = json.loads(said(await client.call_tool("blob_read", {**blob, "tail": 7})))
        read, offset = "", 0
        while offset is not None:
            part = json.loads(said(await client.call_tool("blob_read", {**blob, "offset": offset, "length": 300_000})))
            read, offset = read + part["text"], part.get("next_offset")
    assert len(result.model_dump_json(by_alias=True, exclude_none=True).encode()) <= 24 * 1024
    assert shown == result.structured_content
    assert shown["stdout_bytes"] == 1_288_895
    assert shown["stdout"].startswith("1\n2\n")
    assert shown["stdout"].endswith("199999\n200000\n")
    assert page["text"] == "200000\n"
    assert read == "".join(f"{number}\n" for number in range(1, 200_001))


@pytest.mark.requirement("fault.N15")
async def test_a_client_that_reads_only_text_sees_every_line_of_a_file(app: App, deb: Host) -> None:
    session = await connected(app, deb, "dev", DirectCall(caller()))
    lines = [f"line {number} of three hundred" for number in range(1, 301)]
    place = f"/tmp/lines-{number()}"
    async with beside(app) as client:
        given = {"session_id": session, "path": place}
        await client.call_tool("file_write", {**given, "content": "\n".join(lines)})
        shown = json.loads(said(await client.call_tool("file_read", given)))
    await outside(deb, f"rm -f {place}", user="dev")
    assert shown["content"].split("\n") == lines


def said(result: types.CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, types.TextContent)
    return content.text


@ERAS
@pytest.mark.requirement("mcp.progress")
async def test_a_long_command_tells_how_long_it_has_run_and_how_much_it_said(
    app: App, deb: Host, ops: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_ssh.tools.heartbeat.TELL_EVERY_S", 0.1)
    place, told = f"/tmp/go-{number()}", list[tuple[float, str | None]]()
    heard = anyio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message))
        if "12 bytes of output" in str(message):
            heard.set()

    async def let_go() -> None:
        await heard.wait()
        await outside(deb, f"touch {place}")

    wait = f"echo hello world; until [ -e {place} ]; do sleep 0.1; done"
    async with beside(app, mode) as client, anyio.create_task_group() as group:
        group.start_soon(let_go)
        ran = await client.call_tool("command_exec", {"session_id": ops, "command": wait}, progress_callback=hear)
    assert not ran.is_error
    assert [each for each, _ in told] == sorted(each for each, _ in told)
    assert str(told[0][1]).startswith("running for 0.")
    await outside(deb, f"rm -f {place}")


async def test_no_door_but_mcp_is_asked(app: App, deb: Host, ops: str) -> None:
    from mcp_ssh.errors import PermissionDenied

    given = {"session_id": ops, "command": "true", "become": {"user": "root"}}
    with pytest.raises(PermissionDenied) as refused:
        await dispatch(app, command.run_command, given, DirectCall(caller()))
    assert "become.password" in str(refused.value.hint)
