"""Questions to a person through MCP: answers count once and for what was asked, and are kept nowhere."""

from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError, types
from mcp.server import Server
from starlette.requests import Request

from mcp_ssh.app import App
from mcp_ssh.mcp_server import CALLER_KEY, build_server
from mcp_ssh.mcp_server.elicitation import McpCall
from mcp_ssh.tool import Caller, Question, Role
from mcp_ssh.toolsets import ToolsetSelection
from tests.support import toys
from tests.support.toy_kit import OWNER, REGISTRY, Person, error, history

pytestmark = pytest.mark.usefixtures("seen")


@pytest.fixture
def server(app: App) -> Server[Any]:
    return build_server(app, REGISTRY, ToolsetSelection(("toys",)), caller=OWNER)


async def test_a_person_who_agrees_is_asked_once_and_it_is_done(
    app: App, server: Server[Any], mode: str, seen: toys.Seen
) -> None:
    person = Person(confirm=True)
    async with Client(server, mode=mode, elicitation_callback=person) as client:
        result = await client.call_tool("toys_erase", {"path": "/x"})
    assert result.structured_content == {"done": True}
    assert seen.erased == ["/x"]
    (form,) = person.asked
    assert "toys_erase" in form.message
    assert "/x" in form.message
    assert form.requested_schema["required"] == ["confirm"]
    outcomes = [row.outcome for row in reversed(await history(app))]
    assert outcomes == (["ok"] if mode == "legacy" else ["asked", "ok"])


@pytest.mark.parametrize("person", [Person("decline"), Person(confirm=False)], ids=["declines", "says no"])
async def test_a_person_who_declines_is_obeyed(server: Server[Any], mode: str, seen: toys.Seen, person: Person) -> None:
    async with Client(server, mode=mode, elicitation_callback=person) as client:
        refused = error(await client.call_tool("toys_erase", {"path": "/x"}))
    assert refused["code"] == "refused"
    assert "declined" in refused["message"]
    assert seen.erased == []


async def test_a_form_that_is_dismissed_is_no_consent(server: Server[Any], mode: str, seen: toys.Seen) -> None:
    async with Client(server, mode=mode, elicitation_callback=Person("cancel")) as client:
        refused = error(await client.call_tool("toys_erase", {"path": "/x"}))
    assert refused["code"] == "refused"
    assert "confirm: true" in refused["hint"]
    assert seen.erased == []


async def test_a_client_that_cannot_ask_is_told_to_confirm_and_then_may(
    server: Server[Any], mode: str, seen: toys.Seen
) -> None:
    async with Client(server, mode=mode) as client:
        refused = error(await client.call_tool("toys_erase", {"path": "/x"}))
        assert refused["code"] == "refused"
        assert "confirm: true" in refused["hint"]
        assert seen.erased == []
        agreed = await client.call_tool("toys_erase", {"path": "/x", "confirm": True})
    assert agreed.structured_content == {"done": True}
    assert seen.erased == ["/x"]


async def test_a_legacy_client_whose_asking_fails_counts_as_one_that_cannot(
    server: Server[Any], seen: toys.Seen
) -> None:
    async def fail(context: Any, params: types.ElicitRequestParams) -> types.ErrorData:
        return types.ErrorData(code=types.INTERNAL_ERROR, message="no window")

    async with Client(server, mode="legacy", elicitation_callback=fail) as client:
        refused = error(await client.call_tool("toys_erase", {"path": "/x"}))
    assert "confirm: true" in refused["hint"]
    assert seen.erased == []


async def test_answers_reach_the_tool_and_neither_history_nor_the_log(
    app: App, server: Server[Any], mode: str, seen: toys.Seen, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "mcp_ssh")
    person = Person(name="ada", secret="hunter2", extra="unasked")
    async with Client(server, mode=mode, elicitation_callback=person) as client:
        result = await client.call_tool("toys_login", {"user": "ada"})
    assert result.structured_content == {"done": True}
    assert seen.answers == [({"name": "ada"}, {"secret": "hunter2"})]
    assert len(person.asked) == 2
    rows = await history(app)
    assert rows[0].outcome == "ok"
    assert all("hunter2" not in row.model_dump_json() for row in rows)
    assert "hunter2" not in caplog.text


def _modern(client: Client) -> Any:
    """The session, on which each round of a call can be driven by hand."""
    return client.session


async def _ask(client: Client, tool: str, arguments: Mapping[str, Any], **more: Any) -> types.InputRequiredResult:
    result = await _modern(client).call_tool(tool, dict(arguments), allow_input_required=True, **more)
    assert isinstance(result, types.InputRequiredResult)
    return result


def _yes(key: str, **content: Any) -> dict[str, types.ElicitResult]:
    return {key: types.ElicitResult(action="accept", content=content)}


async def test_the_state_of_a_question_shows_nothing_to_the_client(server: Server[Any]) -> None:
    async with Client(server, elicitation_callback=Person()) as client:
        first = await _ask(client, "toys_login", {"user": "ada"})
        second = await _ask(
            client, "toys_login", {"user": "ada"}, input_responses=_yes("name", name="hunter2"),
            request_state=first.request_state,
        )  # fmt: skip
    assert second.input_requests is not None
    assert list(second.input_requests) == ["secret"]
    assert "hunter2" not in str(second.request_state)


async def test_an_answer_to_what_was_never_asked_is_no_consent(server: Server[Any], seen: toys.Seen) -> None:
    async with Client(server, elicitation_callback=Person()) as client:
        asked = await _ask(client, "toys_erase", {"path": "/x"}, input_responses=_yes("confirm", confirm=True))
    assert asked.input_requests is not None
    assert seen.erased == []


async def test_an_answer_counts_only_for_the_call_it_was_asked_for(server: Server[Any], seen: toys.Seen) -> None:
    async with Client(server, elicitation_callback=Person()) as client:
        asked = await _ask(client, "toys_erase", {"path": "/x"})
        with pytest.raises(MCPError, match="requestState"):
            await _modern(client).call_tool(
                "toys_erase", {"path": "/etc"}, input_responses=_yes("confirm", confirm=True),
                request_state=asked.request_state, allow_input_required=True,
            )  # fmt: skip
        with pytest.raises(MCPError, match="requestState"):
            await _modern(client).call_tool(
                "toys_erase", {"path": "/x"}, input_responses=_yes("confirm", confirm=True),
                request_state="v1.forged", allow_input_required=True,
            )  # fmt: skip
    assert seen.erased == []


async def test_an_answer_counts_only_for_the_caller_who_was_asked(app: App, seen: toys.Seen) -> None:
    callers = [Caller(id="t-1", role=Role.OPERATOR), Caller(id="t-2", role=Role.OPERATOR)]

    async def gate(ctx: Any, call_next: Any) -> Any:
        ctx.request = Request({"type": "http", CALLER_KEY: callers[0]})
        return await call_next(ctx)

    server = build_server(app, REGISTRY, ToolsetSelection(("toys",)))
    server.middleware.insert(0, gate)
    async with Client(server, elicitation_callback=Person()) as client:
        asked = await _ask(client, "toys_erase", {"path": "/x"})
        callers.pop(0)
        with pytest.raises(MCPError, match="requestState"):
            await _modern(client).call_tool(
                "toys_erase", {"path": "/x"}, input_responses=_yes("confirm", confirm=True),
                request_state=asked.request_state, allow_input_required=True,
            )  # fmt: skip
    assert seen.erased == []


async def test_an_answer_does_not_count_when_the_question_changed_meanwhile(
    server: Server[Any], seen: toys.Seen
) -> None:
    seen.fingerprints.extend(["SHA256:aaa", "SHA256:bbb"])
    person = Person(trust=True)
    async with Client(server, elicitation_callback=person) as client:
        await client.call_tool("toys_trust", {})
    assert [form.message for form in person.asked] == ["Trust SHA256:aaa?", "Trust SHA256:bbb?"]
    assert seen.answers == [("SHA256:bbb", {"trust": True})]


async def test_a_client_that_shows_only_web_pages_is_not_sent_a_form(app: App) -> None:
    class Session:
        client_capabilities = types.ClientCapabilities(
            elicitation=types.ElicitationCapability(url=types.UrlElicitationCapability())
        )

    class Context:
        session = Session()
        protocol_version = "2026-07-28"

    params = types.CallToolRequestParams(name="x")
    call = McpCall(Context(), params, OWNER, "stdio")  # pyright: ignore[reportArgumentType]
    assert await call.need(Question("confirm", "Really?", {"confirm": {"type": "boolean"}})) is None


async def test_a_person_who_never_answers_does_not_hold_the_call_for_ever(
    server: Server[Any], monkeypatch: pytest.MonkeyPatch, seen: toys.Seen
) -> None:
    monkeypatch.setattr("mcp_ssh.mcp_server.elicitation.ANSWER_LIMIT_S", 0.05)

    async def think(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        await anyio.sleep_forever()
        raise AssertionError

    with anyio.fail_after(20):
        async with Client(server, mode="legacy", elicitation_callback=think) as client:
            refused = error(await client.call_tool("toys_erase", {"path": "/x"}))
    assert refused["code"] == "refused"
    assert seen.erased == []


async def test_progress_to_a_client_that_reads_nothing_does_not_hold_the_tool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mcp_ssh.mcp_server.elicitation.PROGRESS_LIMIT_S", 0.05)
    sent: list[float] = []

    class Session:
        async def report_progress(self, done: float, *_: object) -> None:
            sent.append(done)
            await anyio.sleep_forever()

    class Context:
        session = Session()

    params = types.CallToolRequestParams(name="x")
    call = McpCall(Context(), params, OWNER, "stdio")  # pyright: ignore[reportArgumentType]
    with anyio.fail_after(20):
        await call.progress(1)
        await call.progress(2)
    assert sent == [1]


@pytest.mark.parametrize(
    "gone", [anyio.ClosedResourceError(), anyio.BrokenResourceError(), MCPError(code=-32000, message="closed")]
)
async def test_progress_to_a_client_that_left_is_no_error(gone: Exception) -> None:
    class Session:
        async def report_progress(self, *_: object) -> None:
            raise gone

    class Context:
        session = Session()

    params = types.CallToolRequestParams(name="x")
    call = McpCall(Context(), params, OWNER, "stdio")  # pyright: ignore[reportArgumentType]
    await call.progress(1)
