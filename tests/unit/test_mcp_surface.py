"""Which tools an endpoint lists, and which it reaches."""

import pytest

from mcp_ssh.errors import InvalidInput
from mcp_ssh.tool import Registry, Risk, tools_of
from mcp_ssh.tools import REGISTRY as REAL
from mcp_ssh.toolsets import CORE, TOOLS, ToolsetSelection, brought, parse, toolsets
from tests.support import toys

REGISTRY = tools_of(toys)


def test_core_is_a_part_of_the_real_rooms_and_reaches_all_of_them() -> None:
    assert set(parse("core").tools(REAL)) == set(CORE)
    assert set(parse("core").reachable(REAL)) == set(REAL)
    assert set(REAL) > CORE


def test_all_and_a_room_by_name_list_it() -> None:
    assert list(parse("all", REGISTRY).tools(REGISTRY)) == sorted(REGISTRY)
    assert list(parse("toys", REGISTRY).tools(REGISTRY)) == sorted(REGISTRY)


def test_a_room_that_is_not_named_is_hidden_and_out_of_reach() -> None:
    surface = ToolsetSelection(toolsets=("file",))
    assert len(surface.tools(REGISTRY)) == 0
    assert len(surface.reachable(REGISTRY)) == 0
    assert len(brought(surface)) == 0


def test_both_presets_bring_the_tools_about_tools() -> None:
    assert set(brought(parse("core"))) == set(brought(parse("all"))) == set(TOOLS)


def test_read_only_shows_and_reaches_tools_that_read_and_no_others() -> None:
    surface = parse("all", REGISTRY, read_only=True)
    reading = {name for name, tool in REGISTRY.items() if tool.risk is Risk.READ}
    assert set(surface.tools(REGISTRY)) == set(surface.reachable(REGISTRY)) == reading
    assert 0 < len(reading) < len(REGISTRY)
    assert set(brought(surface)) == {"tool_search", "tool_call_readonly"}


def test_order_and_repetition_of_the_names_make_no_difference() -> None:
    assert parse(" Toys, core,toys,", REGISTRY) == parse("core,toys", REGISTRY) == ToolsetSelection(("core", "toys"))


def test_the_list_does_not_depend_on_the_order_of_declaration() -> None:
    backwards = Registry(reversed(list(REGISTRY.values())))
    assert list(ToolsetSelection(("all",)).tools(backwards)) == list(ToolsetSelection(("all",)).tools(REGISTRY))


def test_an_unknown_toolset_is_refused_with_near_names() -> None:
    with pytest.raises(InvalidInput, match="no toolset 'toyz'") as raised:
        parse("core,toyz", REGISTRY)
    assert raised.value.hint == "did you mean toys? there are all, core, toys"


@pytest.mark.parametrize("text", ["", " , "])
def test_no_toolset_at_all_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="no toolset is named"):
        parse(text, REGISTRY)


def test_the_rooms_of_this_program_are_toolsets() -> None:
    assert {"all", "core", "session", "command"} <= set(toolsets())
    assert parse("core") == ToolsetSelection()
