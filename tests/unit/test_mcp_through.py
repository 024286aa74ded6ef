"""Tools about tools, through the official client in both eras: found by words, called under their own names."""

import json
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.server import Server

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config, SecurityConfig
from mcp_ssh.mcp_server import build_server
from mcp_ssh.tool import Caller, Role
from mcp_ssh.tools import REGISTRY as REAL
from mcp_ssh.toolsets import ToolsetSelection
from mcp_ssh.toolsets.search import rank_tools
from tests.support import toys
from tests.support.toy_kit import OWNER, REGISTRY, Person, error

pytestmark = pytest.mark.usefixtures("seen")


@pytest.fixture
def server(app: App) -> Server[Any]:
    """One that lists none of the toys, for they are not of the core."""
    return build_server(app, REGISTRY, ToolsetSelection(), caller=OWNER)


async def called(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return dict(result.structured_content)


async def rows(app: App) -> list[tuple[str, str]]:
    await app.store.history.flush()
    return [(row.tool, row.outcome) for row in reversed(await app.store.history.list(50))]


@pytest.mark.requirement("mcp.search")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("run a shell command", "command_exec"),
        ("execute", "command_exec"),
        ("delete a folder", "file_rmdir"),
        ("rm", "file_remove"),
        ("ls", "file_list"),
        ("upload", "file_upload"),
        ("uplaod a file", "file_upload"),
        ("scp from the server", "file_download"),
        ("login", "session_connect"),
        ("fingerprint", "hostkey_accept"),
        ("expected_sha256", "file_write"),
        ("rename", "file_move"),
        ("save a machine with its password", "connection_add"),
        ("permissions of a file", "file_stat"),
        ("logout", "session_disconnect"),
    ],
)
def test_words_a_user_would_say_find_the_tool_among_the_first_five(query: str, expected: str) -> None:
    assert expected in [each.name for each in rank_tools(REAL, query)][:5]


@pytest.mark.requirement("mcp.search")
@pytest.mark.parametrize("query", ["", "???", "qqqqqq", "é", " "])
def test_words_that_mean_nothing_find_nothing(query: str) -> None:
    assert list(rank_tools(REAL, query)) == []


@pytest.mark.requirement("mcp.search")
async def test_a_search_answers_what_it_takes_to_choose_and_full_schemas_on_request(
    server: Server[Any], mode: str
) -> None:
    async with Client(server, mode=mode) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == {
            "tool_search", "tool_call", "tool_call_readonly", "tool_call_many",
        }  # fmt: skip
        found = await called(client, "tool_search", query="say something")
        full = await called(client, "tool_search", names=["toys_echo"])
        names = await called(client, "tool_search")
        unknown = error(await client.call_tool("tool_search", {"names": ["toys_ecko"]}))
    assert found["tools"][0] == {
        "name": "toys_echo",
        "does": "Say something back.",
        "arguments": "text, title?, times?, tags?, place?, password?",
        "call_with": "tool_call_readonly",
    }
    assert "full" not in found
    assert full["full"][0]["arguments"] == REGISTRY["toys_echo"].input_schema
    assert names == {"names": sorted(REGISTRY)}
    assert "toys_echo" in unknown["hint"]


@pytest.mark.requirement("mcp.search")
async def test_the_answer_of_a_search_over_all_real_tools_is_small(app: App) -> None:
    async with Client(build_server(app, REAL, ToolsetSelection(), caller=OWNER)) as client:
        result = await client.call_tool("tool_search", {"query": "work on files of a machine"})
    assert len((result.structured_content or {})["tools"]) == 8
    assert len(json.dumps(result.structured_content).encode()) < 2500


@pytest.mark.requirement("mcp.through")
async def test_an_inner_call_answers_and_is_on_record_as_if_it_had_been_called_itself(
    app: App, server: Server[Any], mode: str
) -> None:
    async with Client(server, mode=mode) as client:
        said = await called(client, "tool_call_readonly", name="toys_echo", arguments={"text": "x", "times": "2"})
        sent_as_text = await called(client, "tool_call", name="toys_echo", arguments='{"text": "y"}')
        wrong = error(await client.call_tool("tool_call", {"name": "toys_echo", "arguments": {"txt": "x"}}))
    assert said == {"text": "xx", "title": "", "tags": []}
    assert sent_as_text["text"] == "y"
    assert "toys_echo takes text" in wrong["hint"]
    assert await rows(app) == [("toys_echo", "ok"), ("toys_echo", "ok"), ("toys_echo", "invalid_input")]


@pytest.mark.requirement("mcp.through")
async def test_what_comes_to_no_inner_call_is_on_record_under_its_own_name(app: App, server: Server[Any]) -> None:
    async with Client(server) as client:
        refused = error(await client.call_tool("tool_call_readonly", {"name": "toys_wait"}))
        unknown = error(await client.call_tool("tool_call", {"name": "toys_ecko", "arguments": {"password": "pw-1"}}))
        direct = error(await client.call_tool("toys_echo", {"text": "x"}))
        recursive = error(await client.call_tool("tool_call", {"name": "tool_call", "arguments": {}}))
    assert "tool_call" in refused["hint"]
    assert "toys_echo" in unknown["hint"]
    assert "call it through tool_call_readonly" in direct["hint"]
    assert recursive["code"] == "not_found"
    assert [outcome for _, outcome in await rows(app)] == ["refused", "not_found", "refused", "not_found"]
    assert "pw-1" not in (await app.store.history.list(50))[2].arguments


@pytest.mark.requirement("mcp.through")
async def test_a_person_is_asked_about_the_inner_tool(
    app: App, server: Server[Any], mode: str, seen: toys.Seen
) -> None:
    person = Person(confirm=True)
    async with Client(server, mode=mode, elicitation_callback=person) as client:
        await called(client, "tool_call", name="toys_erase", arguments={"path": "/x"})
    assert seen.erased == ["/x"]
    (form,) = person.asked
    assert "toys_erase" in form.message
    async with Client(server, mode=mode) as client:
        refused = error(await client.call_tool("tool_call", {"name": "toys_erase", "arguments": {"path": "/y"}}))
        assert "confirm: true" in refused["hint"]
        await called(client, "tool_call", name="toys_erase", arguments={"path": "/y", "confirm": True})
    assert seen.erased == ["/x", "/y"]
    assert {tool for tool, _ in await rows(app)} == {"toys_erase"}


@pytest.mark.requirement("mcp.through")
async def test_a_role_that_is_too_low_stays_so_through_another_tool(app: App, mode: str) -> None:
    server = build_server(app, REGISTRY, ToolsetSelection(), caller=Caller(id="viewer", role=Role.VIEWER))
    async with Client(server, mode=mode) as client:
        refused = error(await client.call_tool("tool_call", {"name": "toys_login", "arguments": {"user": "x"}}))
        assert "needs the role operator" in refused["message"]
        assert (await called(client, "tool_call", name="toys_echo", arguments={"text": "x"}))["text"] == "x"


@pytest.mark.requirement("mcp.through", "mcp.core")
async def test_a_read_only_server_neither_lists_nor_finds_nor_calls_what_changes(app: App, mode: str) -> None:
    server = build_server(app, REGISTRY, ToolsetSelection(read_only=True), caller=OWNER)
    async with Client(server, mode=mode) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["tool_call_readonly", "tool_search"]
        assert "toys_wait" not in (await called(client, "tool_search"))["names"]
        for name in ("tool_call", "tool_call_many"):
            assert error(await client.call_tool(name, {"name": "toys_echo", "sessions": ["a"]}))["code"] == "not_found"
        hidden = error(await client.call_tool("tool_call_readonly", {"name": "toys_wait"}))
    assert hidden["code"] == "not_found"


@pytest.mark.requirement("mcp.through")
async def test_consent_that_the_config_wants_is_wanted_through_another_tool_too(tmp_path: Path) -> None:
    config = Config(security=SecurityConfig(confirm_tools=["toys_echo"]))
    async with (
        open_app(tmp_path, config) as app,
        Client(build_server(app, REGISTRY, ToolsetSelection(), caller=OWNER)) as client,
    ):
        given = {"name": "toys_echo", "arguments": {"text": "x"}}
        assert error(await client.call_tool("tool_call_readonly", given))["code"] == "refused"
        full = (await called(client, "tool_search", names=["toys_echo"]))["full"][0]
    assert "confirm" in full["arguments"]["properties"]


@pytest.mark.requirement("mcp.many")
async def test_a_tool_without_a_session_is_not_called_on_many(app: App, server: Server[Any], mode: str) -> None:
    async with Client(server, mode=mode) as client:
        given = {"name": "toys_echo", "sessions": ["a", "b"], "arguments": {"text": "x"}}
        assert "does not run on a session" in error(await client.call_tool("tool_call_many", given))["message"]


async def test_arguments_that_came_as_broken_text_are_in_no_history(app: App, server: Server[Any], mode: str) -> None:
    """Some clients send JSON text in place of values; where it is cut off, nothing says which part of it is secret."""
    cut = '{"password": "pw-of-a-cut-text"'
    async with Client(server, mode=mode) as client:
        for tool, arguments in (
            ("tool_call", {"name": "toys_echo", "arguments": cut}),
            ("tool_call_readonly", {"name": "toys_echo", "arguments": cut}),
            ("tool_call_many", {"name": "toys_echo", "sessions": ["a"], "arguments": cut}),
            ("toys_echo", {"text": "hidden here", "place": cut}),
        ):
            error(await client.call_tool(tool, arguments))
    await app.store.history.flush()
    rows = await app.store.history.list(50)
    assert len(rows) == 4
    assert "pw-of-a-cut-text" not in " ".join(row.arguments for row in rows)
    assert '"hidden here"' in rows[0].arguments, "what is no secret stays"
