"""MCP behind the gate: both eras, the same tokens, and nobody in another's session."""

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from mcp_ssh.tool import Role
from tests.support import rest_kit
from tests.support.rest_kit import Served, serving

ERAS = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served]:
    async with serving(tmp_path) as server:
        yield server


@contextlib.asynccontextmanager
async def mcp(served: Served, mode: str, path: str = "/mcp", token: str | None = None) -> AsyncGenerator[Client]:
    headers = {"Authorization": f"Bearer {token or served.token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=20, trust_env=False) as http,
        Client(streamable_http_client(served.url + path, http_client=http), mode=mode) as client,
    ):
        yield client


@ERAS
async def test_a_tool_is_called_as_the_tokens_holder(served: Served, mode: str) -> None:
    token = (await served.app.store.tokens.list())[0]
    async with mcp(served, mode) as client:
        said = (await client.call_tool("rest_kit_say", {"text": "hi"})).structured_content
    assert said is not None
    assert (said["caller"], said["principal"], said["door"]) == (token.id, token.id, "mcp")


@ERAS
async def test_a_viewers_token_changes_nothing_here_either(served: Served, mode: str) -> None:
    _, viewer = await served.app.store.tokens.create("viewer", Role.VIEWER)
    async with mcp(served, mode, token=viewer) as client:
        answer = await client.call_tool("rest_kit_change", {"text": "hi"})
    assert answer.is_error
    assert "needs the role operator" in str(answer.content)


@pytest.mark.parametrize(
    ("path", "changes"), [("/mcp", True), ("/mcp/all", True), ("/mcp/readonly", False), ("/mcp/x/rest_kit", True)]
)
async def test_each_path_lists_what_it_says(served: Served, path: str, changes: bool) -> None:
    async with mcp(served, "2026-07-28", path) as client:
        names = {each.name for each in (await client.list_tools()).tools}
    assert ("rest_kit_change" in names) is changes
    assert "rest_kit_say" in names


@ERAS
async def test_a_call_that_is_given_up_is_cancelled(served: Served, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = rest_kit.Hanging(anyio.Event(), anyio.Event())
    monkeypatch.setattr(rest_kit, "HANGING", hanging)
    async with mcp(served, mode) as client, anyio.create_task_group() as group:
        group.start_soon(client.call_tool, "rest_kit_hang", {})
        with anyio.fail_after(20):
            await hanging.began.wait()
            group.cancel_scope.cancel()
        with anyio.fail_after(20), anyio.CancelScope(shield=True):
            await hanging.cancelled.wait()


def modern(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}}


async def test_what_does_not_stream_is_plain_json(served: Served) -> None:
    headers = {**ACCEPT, "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}
    async with served.client() as client:
        answer = await client.post("/mcp", json=modern("tools/list"), headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["result"]["tools"]


async def opened(client: httpx2.AsyncClient) -> str:
    """A session of the older era."""
    answer = await client.post(
        "/mcp",
        headers=ACCEPT,
        json={
            "jsonrpc": "2.0", "id": 1, "method": "initialize",
            "params": {
                "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"},
            },
        },
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store, no-transform"
    return answer.headers["mcp-session-id"]


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_a_session_of_one_token_is_unknown_to_another(served: Served, method: str) -> None:
    _, other = await served.app.store.tokens.create("other", Role.ADMIN)
    async with served.client() as client:
        headers = {**ACCEPT, "Mcp-Session-Id": await opened(client), "MCP-Protocol-Version": "2025-11-25"}
        body = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
        stranger = {**headers, "Authorization": f"Bearer {other}"}
        foreign = await client.request(method, "/mcp", json=body, headers=stranger)
        own = await client.post("/mcp", json=body, headers=headers)
    assert foreign.status_code == 404
    assert own.status_code == 200


async def test_a_session_needs_its_token_again(served: Served) -> None:
    async with served.client() as client:
        headers = {**ACCEPT, "Mcp-Session-Id": await opened(client), "Authorization": ""}
        answer = await client.post("/mcp", json={"jsonrpc": "2.0", "id": 2, "method": "tools/list"}, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["data"]["code"] == "unauthenticated"
