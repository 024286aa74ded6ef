"""The MCP door in memory, in both eras of the protocol: what it lists, what calls answer, what never leaks."""

import json
import re
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError, types
from mcp.server import Server
from starlette.requests import Request

from mcp_ssh import __version__
from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config, SecurityConfig
from mcp_ssh.mcp_server import CALLER_KEY, build_server
from mcp_ssh.mcp_server.handlers import INSTRUCTIONS
from mcp_ssh.tool import Caller, Role
from mcp_ssh.toolsets import ToolsetSelection
from tests.support import toys
from tests.support.toy_kit import OWNER, REGISTRY, error, history, text

pytestmark = pytest.mark.usefixtures("seen")


@pytest.fixture
def server(app: App) -> Server[Any]:
    return build_server(app, REGISTRY, ToolsetSelection(("toys",)), caller=OWNER)


# What is listed


async def test_the_list_shows_every_tool_sorted_and_the_same_each_time(server: Server[Any], mode: str) -> None:
    async with Client(server, mode=mode, cache=None) as client:
        first, second = await client.list_tools(), await client.list_tools()
    assert [tool.name for tool in first.tools] == sorted(REGISTRY)
    assert first == second
    assert first.next_cursor is None


async def test_the_list_may_be_kept_for_five_minutes(server: Server[Any]) -> None:
    async with Client(server, cache=None) as client:
        listed = await client.list_tools()
    assert (listed.ttl_ms, listed.cache_scope) == (300_000, "public")


async def test_hints_follow_from_the_declaration(server: Server[Any], mode: str) -> None:
    async with Client(server, mode=mode) as client:
        hints = {tool.name: tool.annotations for tool in (await client.list_tools()).tools}
    assert hints["toys_echo"] == types.ToolAnnotations(
        read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    )
    assert hints["toys_wait"] == types.ToolAnnotations(
        read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
    )
    assert hints["toys_erase"] == types.ToolAnnotations(
        read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=True
    )


async def test_schemas_are_lean_and_keep_a_field_called_title(server: Server[Any]) -> None:
    async with Client(server) as client:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
    schema = listed["toys_echo"].input_schema
    assert "additionalProperties" not in schema
    assert schema["properties"]["title"]["type"] == "string"
    assert "title" not in schema
    assert "title" not in schema["properties"]["text"]
    assert listed["toys_echo"].output_schema is not None
    assert "title" in listed["toys_echo"].output_schema["properties"]
    assert "confirm" in listed["toys_erase"].input_schema["properties"]
    assert listed["toys_erase"].description == "Erase something, if a person agrees.\n\nIt is gone afterwards."
    assert listed["toys_erase"].title == "Toys: erase"


async def test_a_read_only_surface_neither_lists_nor_calls_what_changes(app: App, mode: str) -> None:
    server = build_server(app, REGISTRY, ToolsetSelection(("toys",), read_only=True), caller=OWNER)
    async with Client(server, mode=mode) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        refused = error(await client.call_tool("toys_wait", {}))
    assert "toys_echo" in names
    assert "toys_wait" not in names
    assert refused["code"] == "refused"
    assert "read-only" in refused["message"]


async def test_a_tool_outside_the_toolsets_is_refused_with_the_way_to_get_it(app: App) -> None:
    server = build_server(app, REGISTRY, ToolsetSelection(toolsets=("file",)), caller=OWNER)
    async with Client(server) as client:
        assert (await client.list_tools()).tools == []
        refused = error(await client.call_tool("toys_echo", {"text": "x"}))
    assert refused["code"] == "refused"
    assert "--toolsets file,toys" in refused["hint"]


async def test_the_server_says_who_it_is_and_how_it_is_used(server: Server[Any], mode: str) -> None:
    async with Client(server, mode=mode) as client:
        await client.list_tools()
        if mode == "legacy":
            assert client.server_info
            assert client.server_info.name == "ssh-steward"
            assert client.server_info.version == __version__
        if mode != "2026-07-28":  # a pinned version asks nothing first
            assert client.instructions == INSTRUCTIONS
    assert len(INSTRUCTIONS.encode()) < 1024


# What calls answer


async def test_a_call_answers_text_and_structure_alike(server: Server[Any], mode: str) -> None:
    async with Client(server, mode=mode) as client:
        result = await client.call_tool("toys_echo", {"text": "hé", "times": 2, "tags": ["a"]})
    assert not result.is_error
    assert result.structured_content == {"text": "héhé", "title": "", "tags": ["a"]}
    assert text(result) == '{"text":"héhé","title":"","tags":["a"]}'


async def test_missing_arguments_are_none_given(server: Server[Any], mode: str) -> None:
    async with Client(server, mode=mode) as client:
        assert (await client.call_tool("toys_steps")).structured_content == {"done": True}
        assert error(await client.call_tool("toys_echo"))["message"] == "text: is required"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"times": "2"}, {"text": "xx", "title": "", "tags": []}),
        ({"tags": '["a","b"]'}, {"text": "x", "title": "", "tags": ["a", "b"]}),
        ({"place": '{"x": 4}'}, {"text": "x", "title": "", "tags": [], "place": {"x": 4}}),
        ({"place": "null"}, {"text": "x", "title": "", "tags": []}),
        ({"title": '{"x": 4}'}, {"text": "x", "title": '{"x": 4}', "tags": []}),
        ({"title": "null"}, {"text": "x", "title": "null", "tags": []}),
    ],
)
async def test_arguments_sent_as_json_text_are_understood_where_no_text_is_taken(
    server: Server[Any], given: dict[str, Any], expected: dict[str, Any]
) -> None:
    async with Client(server) as client:
        result = await client.call_tool("toys_echo", {"text": "x", **given})
    assert result.structured_content == expected


@pytest.mark.parametrize("wrong", ["[1,", '"text"', '["a"', "[" * 100_000, "\ud800"])
async def test_text_that_is_no_fitting_json_is_a_wrong_argument(app: App, wrong: str) -> None:
    async with Client(build_server(app, REGISTRY, ToolsetSelection(("toys",)), caller=OWNER), mode="auto") as client:
        refused = error(await client.call_tool("toys_echo", {"text": "x", "tags": wrong}))
    assert refused["code"] == "invalid_input"
    assert refused["message"].startswith("tags: ")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ({"text": "x", "tiems": 2}, "tiems: is not an argument of this tool", "did you mean tiems → times?"),
        ({"text": "x", "times": 99}, "times: must be at most 9", "toys_echo takes text"),
        ({"text": 5}, 'text: must be text, such as "value"', "toys_echo takes text"),
        ({}, "text: is required", "toys_echo takes text"),
    ],
)
async def test_bad_arguments_name_field_and_rule(
    server: Server[Any], mode: str, arguments: dict[str, Any], message: str, hint: str
) -> None:
    async with Client(server, mode=mode) as client:
        refused = error(await client.call_tool("toys_echo", arguments))
    assert refused["code"] == "invalid_input"
    assert refused["message"] == message
    assert hint in refused["hint"]


async def test_an_unknown_tool_is_an_error_with_near_names_and_on_record(
    app: App, server: Server[Any], mode: str
) -> None:
    async with Client(server, mode=mode) as client:
        refused = error(await client.call_tool("toys_ecko", {"password": "hunter2"}))
    assert refused["code"] == "not_found"
    assert "toys_echo" in refused["hint"]
    (row,) = await history(app)
    assert (row.tool, row.outcome, row.caller, row.door) == ("toys_ecko", "not_found", "stdio", "stdio")
    assert "hunter2" not in row.arguments


async def test_an_error_carries_code_message_hint_and_details(app: App, server: Server[Any], mode: str) -> None:
    async with Client(server, mode=mode) as client:
        assert error(await client.call_tool("toys_absent", {"text": "é"})) == {
            "code": "not_found",
            "message": "no such thing: é",
            "hint": "try another",
            "details": {"near": ["thing"]},
        }
    assert [(row.tool, row.outcome) for row in await history(app)] == [("toys_absent", "not_found")]


async def test_a_mistake_of_ours_shows_a_reference_and_nothing_else(
    server: Server[Any], mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Client(server, mode=mode) as client:
        result = await client.call_tool("toys_crash", {})
    failed = error(result)
    assert failed["code"] == "internal"
    assert "/etc/x" not in result.model_dump_json()
    assert failed["details"]["reference"] in caplog.text
    assert "/etc/x" in caplog.text


async def test_a_mistake_outside_the_tool_leaks_no_more(
    server: Server[Any], mode: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(result: object, limit_bytes: int) -> types.CallToolResult:
        raise ValueError("the secret lies in /etc/x")

    monkeypatch.setattr("mcp_ssh.mcp_server.handlers.success_result", wrong)
    async with Client(server, mode=mode) as client:
        result = await client.call_tool("toys_echo", {"text": "x"})
    assert error(result)["code"] == "internal"
    assert "/etc/x" not in result.model_dump_json()
    assert "/etc/x" in caplog.text


async def test_an_error_of_the_protocol_passes(server: Server[Any], mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise MCPError(code=-32021, message="the client lacks something")

    monkeypatch.setattr("mcp_ssh.mcp_server.handlers.dispatch", refuse)
    async with Client(server, mode=mode) as client:
        with pytest.raises(MCPError, match="lacks something"):
            await client.call_tool("toys_echo", {"text": "x"})


@pytest.mark.requirement("fault.N15")
async def test_a_result_within_the_output_cap_is_whole_in_both_halves(server: Server[Any], mode: str) -> None:
    async with Client(server, mode=mode) as client:
        for size, lines in ((10, 3), (8192, 0), (300_000, 5000), (2 * 1024 * 1024, 0)):
            result = await client.call_tool("toys_large", {"size": size, "lines": lines})
            assert len(result.content) == 1
            assert json.loads(text(result)) == result.structured_content


@pytest.mark.requirement("fault.N15")
async def test_a_result_beyond_the_output_cap_is_short_in_the_text_and_says_where_the_rest_is(
    tmp_path: Path, mode: str
) -> None:
    config = Config(security=SecurityConfig(max_output_kb=1))
    async with (
        open_app(tmp_path / "short", config) as app,
        Client(build_server(app, REGISTRY, ToolsetSelection(("toys",)), caller=OWNER), mode=mode) as client,
    ):
        result = await client.call_tool("toys_large", {"size": 300_000, "lines": 5000})
    assert result.structured_content is not None
    whole = result.structured_content["text"]
    assert len(whole) == 300_000
    assert len(result.structured_content["lines"]) == 5000
    assert 8192 < len(text(result).encode()) <= 66 * 1024
    short = json.loads(text(result))
    assert short["exit_code"] == 3
    head, tail = re.split(r"…\[\d+ characters left out\]…", short["text"])
    assert whole.startswith(head)
    assert whole.endswith(tail)
    assert head
    assert tail
    assert short["lines"][0] == "line 0"
    assert re.fullmatch(r"…\[\d+ more\]", short["lines"][-1])
    assert "structuredContent has the whole result" in result.content[1].text  # pyright: ignore[reportAttributeAccessIssue]


async def test_text_that_cannot_be_written_is_replaced_not_fatal(server: Server[Any], mode: str) -> None:
    async with Client(server, mode=mode) as client:
        result = await client.call_tool("toys_broken_text", {})
        assert (await client.call_tool("toys_echo", {"text": "x"})).structured_content is not None
    assert result.structured_content == {"text": "a?b", "exit_code": 0}


# Progress and cancelling


async def test_progress_arrives_and_only_grows(server: Server[Any], mode: str) -> None:
    reported: list[tuple[float, float | None, str | None]] = []
    all_there = anyio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        reported.append((progress, total, message))
        if len(reported) == 3:
            all_there.set()

    async with Client(server, mode=mode) as client:
        await client.call_tool("toys_steps", {}, progress_callback=hear)
        with anyio.fail_after(20):
            await all_there.wait()
    assert reported == [(1, 3, "step 1"), (2, 3, "step 2"), (3, 3, "step 3")]


async def test_cancelling_reaches_the_tool_and_waits_for_its_clean_up(
    app: App, server: Server[Any], mode: str, seen: toys.Seen
) -> None:
    async with Client(server, mode=mode) as client:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(client.call_tool, "toys_wait")
                await seen.started.wait()
                group.cancel_scope.cancel()
            await seen.cancelled.wait()
        assert (await client.call_tool("toys_echo", {"text": "x"})).structured_content is not None
    assert (app.home / "cleaned").exists()
    assert ("toys_wait", "cancelled") in [(row.tool, row.outcome) for row in await history(app)]


async def test_a_client_that_leaves_cancels_its_calls(server: Server[Any], mode: str, seen: toys.Seen) -> None:
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:

            async def call() -> None:
                async with Client(server, mode=mode) as client, anyio.create_task_group() as calls:
                    calls.start_soon(client.call_tool, "toys_wait")
                    await seen.started.wait()
                    calls.cancel_scope.cancel()

            group.start_soon(call)
        await seen.cancelled.wait()


# Who calls


class _Gate:
    """What rest_bridge's gate does: names the caller in the request's scope."""

    def __init__(self, caller: Caller | None) -> None:
        self.caller = caller

    async def __call__(self, ctx: Any, call_next: Any) -> Any:
        scope: dict[str, Any] = {"type": "http", CALLER_KEY: self.caller} if self.caller else {"type": "http"}
        ctx.request = Request(scope)
        return await call_next(ctx)


async def test_over_http_the_caller_is_the_one_the_gate_named(app: App, mode: str) -> None:
    server = build_server(app, REGISTRY, ToolsetSelection(("toys",)))
    server.middleware.insert(0, _Gate(Caller(id="t-1", role=Role.VIEWER)))
    async with Client(server, mode=mode) as client:
        assert (await client.list_tools()).tools
        assert not (await client.call_tool("toys_echo", {"text": "x"})).is_error
        refused = error(await client.call_tool("toys_login", {"user": "x"}))
    assert refused["code"] == "refused"
    assert "needs the role operator" in refused["message"]
    assert {(row.caller, row.door) for row in await history(app)} == {("t-1", "mcp")}


@pytest.mark.parametrize("gate", [True, False], ids=["gate names nobody", "no gate"])
async def test_a_request_that_names_no_caller_is_refused(app: App, mode: str, gate: bool, seen: toys.Seen) -> None:
    server = build_server(app, REGISTRY, ToolsetSelection(("toys",)))
    if gate:
        server.middleware.insert(0, _Gate(None))
    async with Client(server, mode=mode) as client:
        assert error(await client.call_tool("toys_erase", {"path": "/x", "confirm": True}))["code"] == "unauthenticated"
        with pytest.raises(MCPError, match="names no caller"):
            await client.list_tools()
    assert seen.erased == []


async def test_a_tool_that_the_config_wants_confirmed_lists_confirm(tmp_path: Path) -> None:
    config = Config(security=SecurityConfig(confirm_tools=["toys_echo"]))
    async with open_app(tmp_path, config) as app:
        server = build_server(app, REGISTRY, ToolsetSelection(("toys",)), caller=OWNER)
        async with Client(server) as client:
            listed = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert "confirm" in listed["toys_echo"].input_schema["properties"]
            assert "confirm" not in listed["toys_large"].input_schema["properties"]
            assert error(await client.call_tool("toys_echo", {"text": "x"}))["code"] == "refused"
            agreed = await client.call_tool("toys_echo", {"text": "x", "confirm": "true"})
    assert not agreed.is_error
