"""Which tools an endpoint lists."""

import pytest

from mcp_ssh.errors import InvalidInput
from mcp_ssh.surface import Surface, parse, toolsets
from mcp_ssh.tool import Registry, Risk, tools_of
from tests.unit import toys

REGISTRY = tools_of(toys)


def test_core_is_every_room_there_is() -> None:
    assert list(parse("core", REGISTRY).tools(REGISTRY)) == sorted(REGISTRY)


def test_all_and_a_room_by_name_list_it() -> None:
    assert list(parse("all", REGISTRY).tools(REGISTRY)) == sorted(REGISTRY)
    assert list(parse("toys", REGISTRY).tools(REGISTRY)) == sorted(REGISTRY)


def test_a_room_that_is_not_named_is_hidden() -> None:
    assert len(Surface(toolsets=("file",)).tools(REGISTRY)) == 0


def test_read_only_shows_tools_that_read_and_no_others() -> None:
    shown = parse("core", REGISTRY, read_only=True).tools(REGISTRY)
    assert set(shown) == {name for name, tool in REGISTRY.items() if tool.risk is Risk.READ}
    assert 0 < len(shown) < len(REGISTRY)


def test_order_and_repetition_of_the_names_make_no_difference() -> None:
    assert parse(" Toys, core,toys,", REGISTRY) == parse("core,toys", REGISTRY) == Surface(("core", "toys"))


def test_the_list_does_not_depend_on_the_order_of_declaration() -> None:
    backwards = Registry(reversed(list(REGISTRY.values())))
    assert list(Surface().tools(backwards)) == list(Surface().tools(REGISTRY))


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
    assert parse("core") == Surface()
