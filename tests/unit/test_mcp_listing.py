"""What `tools/list` says of this program's own tools: rules that hold for each of them."""

import json
import re
from pathlib import Path

import pytest
from mcp import types

from mcp_ssh.mcp_server.handlers import INSTRUCTIONS
from mcp_ssh.tool import Risk
from mcp_ssh.tools import REGISTRY
from mcp_ssh.toolsets import CORE, TOOLS, ToolsetSelection
from tests.support.mcp_listing import listed_by, schemas

EVERY = {**REGISTRY, **TOOLS}


@pytest.fixture
async def listed(tmp_path: Path) -> list[types.Tool]:
    return await listed_by(tmp_path, ToolsetSelection(("all",)))


async def test_names_are_short_and_start_with_their_room(listed: list[types.Tool]) -> None:
    assert listed
    for tool in listed:
        assert re.fullmatch(r"[a-z][a-z0-9_]{2,47}", tool.name)
        assert tool.name.startswith(EVERY[tool.name].room + "_")


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
        declared, hints = EVERY[tool.name], tool.annotations
        assert hints is not None
        assert hints.read_only_hint is (declared.risk is Risk.READ), tool.name
        assert hints.destructive_hint is (declared.risk is Risk.DESTROY), tool.name
        assert hints.idempotent_hint is declared.idempotent, tool.name
        assert hints.open_world_hint is declared.open_world, tool.name
        assert not (hints.read_only_hint and hints.destructive_hint), tool.name


async def test_arguments_are_described(listed: list[types.Tool]) -> None:
    for tool in listed:
        assert tool.input_schema["type"] == "object"
        for schema in schemas(tool.input_schema):
            for name, each in schema.get("properties", {}).items():
                assert each.get("description"), f"{tool.name}: {name}"


async def test_schemas_have_no_noise_and_no_references(listed: list[types.Tool]) -> None:
    for tool in listed:
        assert tool.output_schema is not None
        for whole in (tool.input_schema, tool.output_schema):
            assert not {"anyOf", "oneOf", "allOf"} & whole.keys(), tool.name
            for schema in schemas(whole):
                assert not {"title", "$ref", "$defs"} & schema.keys(), tool.name


def bytes_of(tools: list[types.Tool]) -> int:
    answer = types.ListToolsResult(tools=tools).model_dump(by_alias=True, exclude_none=True, mode="json")
    return len(json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode())


@pytest.mark.requirement("mcp.core")
async def test_core_stays_within_30_tools_and_32_kib_and_reaches_the_others(tmp_path: Path) -> None:
    core = await listed_by(tmp_path, ToolsetSelection())
    print(f"\ntools/list of core: {len(core)} tools, {bytes_of(core)} bytes, {bytes_of(core) // len(core)} a tool")
    assert {each.name for each in core} == CORE | set(TOOLS)
    assert set(TOOLS) == {"tool_search", "tool_call_readonly", "tool_call", "tool_call_many"}
    assert len(core) <= 30
    assert bytes_of(core) <= 32 * 1024


async def test_the_negative_control_all_tools_together_do_not_fit_there(listed: list[types.Tool]) -> None:
    assert bytes_of(listed) > 32 * 1024


@pytest.mark.requirement("mcp.core")
async def test_a_read_only_server_lists_no_tool_that_could_change_anything(tmp_path: Path) -> None:
    shown = await listed_by(tmp_path, ToolsetSelection(read_only=True))
    assert {each.name for each in shown} >= {"tool_search", "tool_call_readonly", "file_read"}
    assert [each.name for each in shown if not (each.annotations and each.annotations.read_only_hint)] == []


def test_the_instructions_name_only_tools_that_exist() -> None:
    named = set(re.findall(r"\b(?:session|command|file|hostkey|blob|tool)_[a-z_]+\b", INSTRUCTIONS)) - {"session_id"}
    assert named
    assert named <= set(EVERY)
