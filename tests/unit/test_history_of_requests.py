"""What the history keeps of requests over MCP: no value that no tool has a field for, and a row of every kind."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError, types

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config, SecurityConfig
from mcp_ssh.mcp_server import build_server
from mcp_ssh.tools import REGISTRY
from mcp_ssh.toolsets import ToolsetSelection
from tests.support.toy_kit import OWNER, history

SAID = "hunter2"


@pytest.fixture
async def app(tmp_path: Path) -> AsyncGenerator[App]:
    async with open_app(tmp_path, Config(security=SecurityConfig(max_calls_per_minute=4))) as opened:
        yield opened


def client_of(app: App, mode: str) -> Any:
    return Client(build_server(app, REGISTRY, ToolsetSelection(("all",)), caller=OWNER), mode=mode)


@pytest.mark.requirement("fault.S13.history")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("command_run", {"command": SAID, "host": SAID}),
        ("command_exec", {"command": "id", "comand": SAID}),
        ("command_exec", {"command": "id", "confirm": SAID}),
        ("command_exec", {"command": "id", "become": {"user": "root", "pwd": SAID}}),
        ("command_exec", {"command": "id", "become": json.dumps({"pwd": SAID})}),
        ("tool_call", {"name": "command_run", "arguments": {"command": SAID}}),
        ("tool_call", {"name": "command_exec", "arguments": {"comand": SAID}, "more": SAID}),
        ("tool_call", {"name": SAID * 100, "arguments": {"a": SAID}, "extra": {"b": SAID}}),
        ("tool_call_many", {"name": "command_exec", "sessions": ["a"], "arguments": {"comand": SAID}}),
        ("tool_call_many", {"name": "command_run", "sessions": ["a"], "arguments": json.dumps({"a": SAID})}),
        ("tool_search", {"querry": SAID}),
    ],
)
async def test_no_value_of_an_unknown_argument_or_tool_is_kept(
    app: App, mode: str, name: str, arguments: dict[str, Any]
) -> None:
    async with client_of(app, mode) as client:
        assert (await client.call_tool(name, arguments)).is_error
    rows = await history(app)
    assert len(rows) == 1
    kept = json.loads(rows[0].arguments)
    if name == "tool_call" and isinstance(kept.get("name"), str):
        kept.pop("name")  # a field of the tool, whose value stays
    assert SAID not in json.dumps(kept)
    assert set(kept) <= set(arguments)


@pytest.mark.requirement("fault.S13.history")
async def test_values_of_the_arguments_that_a_tool_has_are_kept(app: App) -> None:
    """The negative control: what was asked for stays on record, also where the call failed."""
    async with client_of(app, "auto") as client:
        await client.call_tool("command_exec", {"command": "uptime", "session_id": "nosuch", "comand": SAID})
        await client.call_tool("tool_call", {"name": "command_exec", "arguments": {"command": "uptime", "x": SAID}})
    rows = await history(app)
    assert [json.loads(row.arguments)["command"] for row in rows] == ["uptime", "uptime"]


async def complete(client: Any, typed: str) -> Any:
    ref = types.ResourceTemplateReference(uri="ssh://{session}/{+path}")
    return await client.complete(ref, {"name": "session", "value": typed})


@pytest.mark.requirement("fault.S13.limits")
async def test_completions_count_as_calls_and_leave_a_row_each(app: App, mode: str) -> None:
    async with client_of(app, mode) as client:
        for _ in range(4):
            await complete(client, SAID)
        with pytest.raises(MCPError, match="you made 4 calls within a minute"):
            await complete(client, SAID)
    rows = await history(app)
    assert [(row.tool, row.outcome) for row in rows] == [
        ("completion/complete", outcome) for outcome in ("too_many", "ok", "ok", "ok", "ok")
    ]
    assert {row.caller for row in rows} == {OWNER.id}
    assert json.loads(rows[-1].arguments) == {"about": "ssh://{session}/{+path}", "argument": "session"}


@pytest.mark.requirement("fault.S13.limits", "fault.S13.history")
async def test_prompts_count_as_calls_and_leave_a_row_each(app: App, mode: str) -> None:
    async with client_of(app, mode) as client:
        listed: list[types.Prompt] = (await client.list_prompts()).prompts
        name = listed[0].name
        given: dict[str, str] = {str(each.name): "web1" for each in listed[0].arguments or []}
        await client.get_prompt(name, given)
        for wrong in ({SAID: SAID, "other": SAID}, {**given, "other": SAID}):
            with pytest.raises(MCPError, match="has no such argument"):
                await client.get_prompt(name, wrong)
        with pytest.raises(MCPError, match="no prompt"):
            await client.get_prompt("nosuch", {"user": SAID})
        with pytest.raises(MCPError, match="you made 4 calls within a minute"):
            await client.get_prompt(name, given)
    rows = [row for row in reversed(await history(app)) if row.tool == "prompts/get"]
    outcomes = ["ok", "invalid_input", "invalid_input", "not_found", "too_many"]
    assert [row.outcome for row in rows] == outcomes
    kept = [json.loads(row.arguments) for row in rows]
    assert kept[0] == {"name": name, "arguments": given}
    assert kept[2] == {"name": name, "arguments": {**given, "other": "***"}}
    assert kept[3] == {"name": "nosuch", "arguments": {"user": "***"}}


@pytest.mark.requirement("fault.S13.limits")
async def test_listing_needs_no_call(app: App) -> None:
    """The negative control: what every client does at start takes nothing from a caller's calls."""
    async with client_of(app, "auto") as client:
        for _ in range(6):
            await client.list_prompts()
            await client.list_tools()
        assert (await client.call_tool("session_list", {})).is_error is False
