"""Tens of thousands of names that do not exist, by every transport, and what another caller waits for meanwhile."""

import json
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from mcp_ssh.app import App, open_app
from mcp_ssh.config.edit import value_of
from mcp_ssh.config.models import Config, load
from mcp_ssh.dispatch import validate
from mcp_ssh.errors import InvalidInput, NotFound
from mcp_ssh.mcp_server import build_server
from mcp_ssh.messages.suggestions import LONGEST, suggest, suggest_each
from mcp_ssh.tools import REGISTRY
from mcp_ssh.toolsets import ToolsetSelection, lookup, parse
from tests.support import rest_kit, toy_kit
from tests.support.bystander import bystander
from tests.support.rest_kit import rest_server
from tests.support.toy_kit import OWNER

MANY = 40_000
UNKNOWN = {f"comand_{number}": 1 for number in range(MANY)}
LONG = "comand_exec" * 100_000


@pytest.fixture
async def app(tmp_path: Path) -> AsyncGenerator[App]:
    async with open_app(tmp_path, Config()) as opened:
        yield opened


@pytest.mark.requirement("fault.S3.suggestions")
@pytest.mark.parametrize("inside", ["arguments", "become", "env", "tool_call"])
async def test_unknown_arguments_of_mcp_keep_nobody_waiting(app: App, inside: str) -> None:
    name, arguments = {
        "arguments": ("command_exec", UNKNOWN),
        "become": ("command_exec", {"command": "id", "become": UNKNOWN}),
        "env": ("command_exec", {"command": "id", "env": UNKNOWN}),
        "tool_call": ("tool_call", {"name": "command_exec", "arguments": UNKNOWN}),
    }[inside]
    server = build_server(app, REGISTRY, ToolsetSelection(("all",)), caller=OWNER)
    async with Client(server) as client, bystander():
        refused = toy_kit.error(await client.call_tool(name, arguments))
    assert refused["code"] == "invalid_input"
    assert len(refused["details"]["errors"]) == 8
    assert " more" in refused["message"]
    assert len(json.dumps(refused)) < 4000


@pytest.mark.requirement("fault.S3.suggestions")
async def test_unknown_fields_of_a_body_keep_nobody_waiting(tmp_path: Path) -> None:
    async with rest_server(tmp_path) as rest, rest.client() as client, bystander():
        answer = await client.post("/session/say", json={"text": "hi", **UNKNOWN})
    assert answer.status_code == 400
    assert len(answer.json()["details"]["errors"]) == 8
    assert f"and {MANY - 8} more" in answer.json()["detail"]


@pytest.mark.requirement("fault.S3.suggestions")
async def test_an_unknown_path_of_any_length_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with rest_server(tmp_path) as rest, rest.client() as client, bystander():
        answer = await client.get("/" + "session/sya" * 5000)
    assert answer.status_code == 404
    assert "did you mean" not in answer.json()["hint"]


SUGGESTING: dict[str, Callable[[], Any]] = {
    "a tool": lambda: lookup(REGISTRY, LONG),
    "an argument": lambda: validate(REGISTRY["command_exec"], {"command": "id", LONG: 1}),
    "a key of the config": lambda: value_of(Config(), LONG),
    "a toolset": lambda: parse(",".join([LONG, *(f"comand{number}" for number in range(MANY))]), REGISTRY),
}


@pytest.mark.requirement("fault.S3.suggestions")
@pytest.mark.parametrize("what", SUGGESTING)
async def test_an_endless_name_gets_no_suggestion_and_keeps_nobody_waiting(what: str) -> None:
    async with bystander():
        with pytest.raises((NotFound, InvalidInput)) as refused:
            SUGGESTING[what]()
    assert len(refused.value.message) < 1000
    assert LONG[: LONGEST + 1] not in f"{refused.value.message}{refused.value.hint}"


@pytest.mark.requirement("fault.S3.suggestions")
async def test_a_config_of_unknown_keys_keeps_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"ssh": UNKNOWN}))
    async with bystander():
        with pytest.raises(InvalidInput, match=f"and {MANY - 8} more"):
            load(tmp_path)


@pytest.mark.requirement("fault.S3.suggestions")
def test_the_first_eight_names_get_suggestions_and_names_over_eighty_characters_none() -> None:
    assert len(suggest_each([f"comman{letter}" for letter in "abcdefghijkl"], ["command"])) == 8
    assert suggest("a" * LONGEST, ["a" * LONGEST + "b"]) == ["a" * LONGEST + "b"]
    assert suggest("a" * (LONGEST + 1), ["a" * LONGEST + "b"]) == []


@pytest.mark.requirement("fault.S3.suggestions")
def test_only_one_module_compares_spellings() -> None:
    root = Path(rest_kit.__file__).parents[2]
    using = {
        path.relative_to(root).as_posix()
        for folder in ("mcp_ssh", "rest_bridge")
        for path in (root / folder).rglob("*.py")
        if "difflib" in path.read_text("utf-8")
    }
    assert using == {"mcp_ssh/messages/suggestions.py"}
