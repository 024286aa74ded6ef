"""What `tools/list` says of this program's own tools: rules that hold for each of them."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from mcp import Client, types

from mcp_ssh.app import open_app
from mcp_ssh.server import build_server
from mcp_ssh.server.endpoint import INSTRUCTIONS
from mcp_ssh.surface import Surface
from mcp_ssh.tool import Caller, Risk, Role
from mcp_ssh.tools import REGISTRY

OWNER = Caller(id="stdio", role=Role.ADMIN, owner=True)


@pytest.fixture
async def listed(tmp_path: Path) -> AsyncIterator[list[types.Tool]]:
    async with open_app(tmp_path) as app, Client(build_server(app, REGISTRY, Surface(), caller=OWNER)) as client:
        yield (await client.list_tools()).tools


def schemas(node: Any) -> Iterator[dict[str, Any]]:
    """Every schema within one, itself included."""
    if isinstance(node, list):
        for each in cast("list[Any]", node):
            yield from schemas(each)
    if not isinstance(node, dict):
        return
    schema = cast("dict[str, Any]", node)
    yield schema
    for key, value in schema.items():
        if key in {"properties", "patternProperties"}:
            for each in value.values():
                yield from schemas(each)
        elif key not in {"default", "enum", "const", "examples", "required"}:
            yield from schemas(value)


async def test_names_are_short_and_start_with_their_room(listed: list[types.Tool]) -> None:
    assert listed
    for tool in listed:
        assert re.fullmatch(r"[a-z][a-z0-9_]{2,47}", tool.name)
        assert tool.name.startswith(REGISTRY[tool.name].room + "_")


async def test_each_tool_has_a_title_and_a_description_that_stands_alone_and_is_under_a_kib(
    listed: list[types.Tool],
) -> None:
    for tool in listed:
        assert tool.title
        assert tool.description
        assert len(tool.description.encode()) < 1024, tool.name
        assert tool.description.partition("\n")[0].endswith("."), tool.name


async def test_each_tool_says_all_four_hints_as_declared(listed: list[types.Tool]) -> None:
    for tool in listed:
        declared, hints = REGISTRY[tool.name], tool.annotations
        assert hints is not None
        assert hints.read_only_hint is (declared.risk is Risk.READ), tool.name
        assert hints.destructive_hint is (declared.risk is Risk.DESTROY), tool.name
        assert hints.idempotent_hint is declared.idempotent, tool.name
        assert hints.open_world_hint is declared.open_world, tool.name
        assert not (hints.read_only_hint and hints.destructive_hint), tool.name


async def test_arguments_are_closed_and_each_is_described(listed: list[types.Tool]) -> None:
    for tool in listed:
        assert tool.input_schema["type"] == "object"
        for schema in schemas(tool.input_schema):
            if "properties" in schema:
                assert schema["additionalProperties"] is False, tool.name
            for name, each in schema.get("properties", {}).items():
                assert each.get("description"), f"{tool.name}: {name}"


async def test_schemas_have_no_noise_and_no_references(listed: list[types.Tool]) -> None:
    for tool in listed:
        assert tool.output_schema is not None
        for whole in (tool.input_schema, tool.output_schema):
            assert not {"anyOf", "oneOf", "allOf"} & whole.keys(), tool.name
            for schema in schemas(whole):
                assert not {"title", "$ref", "$defs"} & schema.keys(), tool.name


async def test_the_list_stays_within_its_budget(listed: list[types.Tool]) -> None:
    shown = [tool.model_dump(by_alias=True, exclude_none=True, mode="json") for tool in listed]
    size = len(json.dumps(shown, separators=(",", ":")).encode())
    print(f"\ntools/list: {len(listed)} tools, {size} bytes, {size // len(listed)} a tool")
    # With `tool_search` the core list shrinks to 30 tools and 32 KiB; until then it holds every tool there is.
    assert len(listed) <= 30
    assert size <= 64 * 1024


def test_the_instructions_name_only_tools_that_exist() -> None:
    named = set(re.findall(r"\b(?:session|command|file|hostkey|blob)_[a-z]+\b", INSTRUCTIONS)) - {"session_id"}
    assert named
    assert named <= set(REGISTRY)
