"""Schemas as clients get them: every SDK converts them, every JSON reader keeps their numbers, the server checks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from google.genai._mcp_utils import mcp_to_gemini_tool
from mcp import Client, types

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config, config_schema
from mcp_ssh.mcp_server import build_server
from mcp_ssh.mcp_server.tool_listing import CHECKED
from mcp_ssh.params import LARGEST_NUMBER
from mcp_ssh.tools import REGISTRY
from mcp_ssh.toolsets import TOOLS, ToolsetSelection
from rest_bridge.docs.openapi import document
from rest_bridge.families.registry import FAMILIES
from tests.support.mcp_listing import listed_by, schemas
from tests.support.toy_kit import OWNER, error

EVERY = {**REGISTRY, **TOOLS}


@pytest.fixture
async def app(tmp_path: Path) -> Any:
    async with open_app(tmp_path, Config()) as opened:
        yield opened


@pytest.fixture
async def listed(tmp_path: Path) -> list[types.Tool]:
    return await listed_by(tmp_path, ToolsetSelection(("all",)))


@pytest.mark.requirement("fault.N16")
async def test_a_vendors_sdk_converts_every_tool_with_all_its_arguments(listed: list[types.Tool]) -> None:
    assert {tool.name for tool in listed} == set(EVERY)
    for tool in listed:
        (declared,) = mcp_to_gemini_tool(tool).function_declarations or []
        assert declared.name == tool.name
        converted = declared.parameters.properties if declared.parameters else None
        assert set(converted or {}) == set(tool.input_schema.get("properties", {})), tool.name


@pytest.mark.requirement("fault.N16")
def test_that_sdk_fails_on_a_schema_that_closes_its_object() -> None:
    """The negative control: what is off the wire is what it could not convert."""
    closed = REGISTRY["command_exec"].input_schema
    assert closed["additionalProperties"] is False
    with pytest.raises(AttributeError):
        mcp_to_gemini_tool(types.Tool(name="command_exec", input_schema=closed))


@pytest.mark.requirement("fault.N16")
async def test_no_schema_on_the_wire_says_what_the_server_checks(listed: list[types.Tool]) -> None:
    for tool in listed:
        for whole in (tool.input_schema, tool.output_schema or {}):
            for schema in schemas(whole):
                assert not CHECKED & schema.keys(), tool.name
                assert not isinstance(schema.get("additionalProperties"), bool), tool.name


@pytest.mark.requirement("fault.N16")
@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"command": "id", "comand": "id"}, "comand: is not an argument of this tool"),
        ({"command": "id", "become": {"usr": "root"}}, "become.usr: is not an argument of this tool"),
        ({"command": "id", "timeout": 100_000}, "timeout: must be at most 3600.0"),
        ({"command": ""}, "command: must not be empty"),
        ({"command": "id", "env": {"A=B": "x"}}, "env.A=B"),
    ],
)
async def test_the_server_still_refuses_what_the_schema_no_longer_rules_out(
    app: App, mode: str, arguments: dict[str, Any], rule: str
) -> None:
    async with Client(build_server(app, REGISTRY, ToolsetSelection(), caller=OWNER), mode=mode) as client:
        refused = error(await client.call_tool("command_exec", arguments))
        through = error(await client.call_tool("tool_call", {"name": "command_exec", "arguments": arguments}))
    assert refused["code"] == through["code"] == "invalid_input"
    assert refused["message"].startswith(rule)


def numbers(node: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(node, dict):
        for key, value in cast("dict[str, Any]", node).items():
            yield from numbers(value, f"{path}.{key}")
    elif isinstance(node, list):
        for each in cast("list[Any]", node):
            yield from numbers(each, path)
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield path, node


@pytest.mark.requirement("fault.R3")
async def test_every_number_in_a_schema_is_one_that_every_json_reader_keeps(listed: list[types.Tool]) -> None:
    published: dict[str, Any] = {
        "config": config_schema(),
        "openapi": document(FAMILIES, Config()),
        **{f"{tool.name} on the wire": tool.model_dump(mode="json") for tool in listed},
        **{f"{each.name} input": each.input_schema for each in EVERY.values()},
        **{f"{each.name} output": each.output_schema for each in EVERY.values()},
    }
    found = [(path, number) for name, schema in published.items() for path, number in numbers(schema, name)]
    assert len(found) > 100
    assert [(path, number) for path, number in found if abs(number) > LARGEST_NUMBER] == []
