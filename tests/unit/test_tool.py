"""What a declaration makes of a function: names it has now, and names it had before."""

import pytest

from mcp_ssh.app import App
from mcp_ssh.config.models import SecurityConfig
from mcp_ssh.errors import Refused
from mcp_ssh.params import Params, Result
from mcp_ssh.policy import expect_tools, needs_confirmation
from mcp_ssh.policy.rules import Rules
from mcp_ssh.tool import Call, Registry, Risk, tool


class Nothing(Params):
    pass


class Done(Result):
    pass


@tool(Risk.CHANGE, room="lamp", name="set", aliases=("lamp_switch",))
async def turn(app: App, params: Nothing, call: Call) -> Done:
    """Turn a lamp on."""
    return Done()


@tool(Risk.CHANGE, room="lamp")
async def switch(app: App, params: Nothing, call: Call) -> Done:
    """Turn a lamp off."""
    return Done()


def test_a_tool_is_called_by_its_room_and_its_own_name_wherever_its_function_stands() -> None:
    assert [each.name for each in (turn, switch)] == ["lamp_set", "lamp_switch"]
    assert turn.title == "Lamp: set"


def test_a_name_that_a_tool_had_before_finds_it_and_is_not_listed() -> None:
    registry = Registry([turn])
    assert registry["lamp_switch"] is turn
    assert list(registry) == ["lamp_set"]
    with pytest.raises(TypeError, match="two tools are called lamp_switch"):
        Registry([turn, switch])


@pytest.mark.parametrize("name", ["lamp_set", "lamp_switch"])
def test_policy_that_names_a_tool_as_it_was_called_before_holds(name: str) -> None:
    security = SecurityConfig(confirm_tools=[name])
    expect_tools(security, Registry([turn]))
    assert needs_confirmation(turn, security, Nothing(), door_confirms=False)
    with pytest.raises(Refused, match="denied"):
        Rules(denied=(name,)).expect_call(turn, Nothing())
    Rules(allow_lists=((name,),)).expect_call(turn, Nothing())


@pytest.mark.parametrize("rules", [Rules(allow_lists=(("uptime",),)), Rules(allow_lists=(("lamp_set",), ("uptime",)))])
def test_a_tool_that_is_on_no_list_by_any_of_its_names_is_refused(rules: Rules) -> None:
    with pytest.raises(Refused, match="not on the list"):
        rules.expect_call(turn, Nothing())
