"""Null for an argument that is not required means that it is left out, over every transport, at any depth."""

from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config
from mcp_ssh.dispatch import validate
from mcp_ssh.mcp_server import build_server
from mcp_ssh.messages.validation import without_nulls
from mcp_ssh.tool import Registry
from mcp_ssh.tools import REGISTRY as ALL
from mcp_ssh.toolsets import TOOLS, ToolsetSelection, argument_schema
from tests.support.rest_kit import rest_server
from tests.support.toy_kit import OWNER, REGISTRY, error

pytestmark = pytest.mark.requirement("fault.R5")

EVERY = Registry([*ALL.values(), *TOOLS.values()])
UNSET = {"times": None, "title": None, "tags": None, "place": None, "password": None}


@pytest.mark.parametrize("name", EVERY)
def test_every_tool_takes_null_for_each_argument_that_is_not_required(name: str) -> None:
    schema = argument_schema(EVERY[name], [name])
    optional = [each for each in schema["properties"] if each not in schema.get("required", ())]
    assert "confirm" in optional
    assert without_nulls(schema, dict.fromkeys(optional)) == {}


def test_null_inside_an_object_or_a_list_of_objects_is_left_out_too() -> None:
    schema = ALL["command_exec"].input_schema
    given = {"command": "id", "become": {"user": "root", "method": None, "password": None}, "env": None}
    assert without_nulls(schema, given) == {"command": "id", "become": {"user": "root"}}
    inner = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["b"]}
    listed = {"type": "object", "properties": {"all": {"type": "array", "items": inner}}}
    assert without_nulls(listed, {"all": [{"a": None, "b": None}, None, {"a": 1, "b": 2}]}) == {
        "all": [{"b": None}, None, {"a": 1, "b": 2}]
    }


def test_null_stays_where_it_is_a_value_or_an_unknown_name() -> None:
    for name, given in (
        ("config_set", {"key": "x", "value": None}),
        ("command_exec", {"commnad": None}),
        ("command_exec", {"command": "id", "env": {"A": None}}),
    ):
        assert without_nulls(ALL[name].input_schema, given) == given


@pytest.fixture
async def app(tmp_path: Path) -> Any:
    async with open_app(tmp_path, Config()) as opened:
        yield opened


async def test_a_client_that_sends_every_property_can_call_a_tool(app: App, mode: str) -> None:
    server = build_server(app, REGISTRY, ToolsetSelection(("all",)), caller=OWNER)
    async with Client(server, mode=mode) as client:
        itself = await client.call_tool("toys_echo", {"text": "x", **UNSET})
        through = await client.call_tool("tool_call", {"name": "toys_echo", "arguments": {"text": "x", **UNSET}})
        neither = error(await client.call_tool("toys_echo", {"text": None, **UNSET}))
    assert itself.structured_content == through.structured_content == {"text": "x", "title": "", "tags": []}
    assert neither["message"].startswith("text: must be text")


async def test_arguments_of_many_calls_may_be_null(app: App) -> None:
    server = build_server(app, ALL, ToolsetSelection(("all",)), caller=OWNER)
    given = {"name": "command_exec", "sessions": ["nosuch"], "at_once": None, "arguments": {"command": "id"}}
    nulls = {"timeout": None, "cwd": None, "env": None, "become": None, "session_id": None, "exact": None}
    async with Client(server) as client:
        plain = await client.call_tool("tool_call_many", given)
        filled = await client.call_tool("tool_call_many", {**given, "arguments": {"command": "id", **nulls}})
    assert plain.structured_content is not None
    assert plain.structured_content["failed"] == 1
    assert filled.structured_content == plain.structured_content


def test_every_call_takes_null_whatever_its_transport() -> None:
    given = {"command": "id", "timeout": None, "become": {"user": "ops", "method": None}}
    assert validate(ALL["command_exec"], given) == validate(
        ALL["command_exec"], {"command": "id", "become": {"user": "ops"}}
    )


async def test_rest_takes_null_for_what_is_left_out(tmp_path: Path) -> None:
    async with rest_server(tmp_path / "rest") as rest, rest.client() as client:
        plain = await client.post("/session/say", json={"text": "x"})
        nulls = await client.post("/session/say", json={"text": "x", "ratio": None, "count": None})
        needed = await client.post("/session/say", json={"text": None})
    assert (plain.status_code, nulls.status_code, needed.status_code) == (200, 200, 400)
    assert nulls.json() == plain.json()
    assert needed.json()["detail"].startswith("text: must be text")
