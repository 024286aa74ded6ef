"""A dry run asks nobody for consent: it is what a person is shown before they agree."""

from pathlib import Path
from typing import Any

import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config, SecurityConfig
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import Refused
from mcp_ssh.params import DryRunParams, Result
from mcp_ssh.policy import needs_confirmation
from mcp_ssh.tool import Call, Registry, Risk, tool
from mcp_ssh.tools import REGISTRY
from mcp_ssh.toolsets.meta_tools import MetaToolContext, Several, call_many
from tests.support.doors import DirectCall
from tests.support.toy_kit import OWNER

PLANNED = [each.name for each in REGISTRY.values() if "dry_run" in each.input_schema.get("properties", {})]
ASKING = DirectCall(OWNER, confirms=True)


class Dropped(Result):
    shown: bool


@tool(Risk.DESTROY, room="lamp", confirm=True)
async def drop(app: App, params: DryRunParams, call: Call) -> Dropped:
    """Drop a lamp."""
    return Dropped(shown=params.dry_run)


@pytest.fixture
async def app(tmp_path: Path) -> Any:
    async with open_app(tmp_path, Config()) as opened:
        opened.live.tools = Registry([*REGISTRY.values(), drop])
        yield opened


def test_there_are_tools_that_show_what_they_would_do() -> None:
    assert len(PLANNED) > 15


@pytest.mark.parametrize("name", PLANNED)
def test_no_dry_run_needs_consent(name: str) -> None:
    each, security = REGISTRY[name], SecurityConfig(confirm_tools=[name])
    for look in (False, True):
        params = each.params.model_construct(dry_run=look)
        assert needs_confirmation(each, security, params, door_confirms=True) is not look


async def test_only_the_change_itself_asks(app: App) -> None:
    assert await dispatch(app, drop, {"dry_run": True}, ASKING) == Dropped(shown=True)
    with pytest.raises(Refused, match="consent"):
        await dispatch(app, drop, {}, ASKING)


async def test_a_dry_run_on_many_machines_asks_nobody(app: App) -> None:
    async def many(**given: Any) -> int:
        arguments = {"path": "/srv/x", **given}
        params = Several(name="system_rmrf", sessions=["nosuch"], arguments=arguments)
        return (await call_many(MetaToolContext(app, REGISTRY), params, ASKING)).failed

    assert await many(dry_run=True) == 1
    with pytest.raises(Refused, match="consent"):
        await many()
