"""A client that never ends its MCP sessions loses its own, and nobody else notices."""

from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import httpx2
import pytest

from mcp_ssh.tool import Role
from rest_bridge.http import mcp as mcp_endpoints
from rest_bridge.http.mcp_sessions import McpSessions
from tests.support import rest_kit
from tests.support.rest_kit import Served, serving

pytestmark = pytest.mark.requirement("fault.S7.mcp", "fault.R17")
FLOOD = 1000
ACCEPT = {"Accept": "application/json, text/event-stream"}
INITIALIZE = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}  # fmt: skip
LIST = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served]:
    async with serving(tmp_path) as server:
        yield server


async def opened(client: httpx2.AsyncClient, path: str = "/mcp") -> str:
    answer = await client.post(path, json=INITIALIZE, headers=ACCEPT)
    assert answer.status_code == 200, answer.text
    return answer.headers["mcp-session-id"]


async def status(client: httpx2.AsyncClient, session: str, path: str = "/mcp") -> int:
    headers = {**ACCEPT, "Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25"}
    return (await client.post(path, json=LIST, headers=headers)).status_code


async def another(served: Served) -> httpx2.AsyncClient:
    _, secret = await served.app.store.tokens.create("another", Role.VIEWER)
    headers = {"Authorization": f"Bearer {secret}"}
    return httpx2.AsyncClient(base_url=served.url, headers=headers, timeout=20, trust_env=False)


async def test_1000_sessions_without_an_end_cost_their_own_client_its_oldest(served: Served) -> None:
    async with served.client() as loud, await another(served) as calm:
        kept = await opened(calm)
        made = [await opened(loud, ("/mcp", "/mcp/all")[number % 2]) for number in range(FLOOD)]
        assert await status(calm, kept) == 200
        assert await opened(calm)
        paths = ("/mcp", "/mcp/all")
        left = [await status(loud, made[number], paths[number % 2]) for number in (0, FLOOD - 200, FLOOD - 1)]
        assert left == [404, 404, 200]
        assert await opened(loud), "its client begins again"


async def test_negative_control_with_one_bound_for_all_everybody_is_locked_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mcp_endpoints, "McpSessions", lambda: McpSessions(share=FLOOD, most=FLOOD))
    managers = mcp_endpoints.StreamableHTTPSessionManager
    monkeypatch.setattr(
        mcp_endpoints,
        "StreamableHTTPSessionManager",
        lambda *given, **options: managers(*given, **{**options, "max_sessions": 20}),
    )
    async with serving(tmp_path) as server, server.client() as loud, await another(server) as calm:
        for _ in range(20):
            await opened(loud)
        answer = await calm.post("/mcp", json=INITIALIZE, headers=ACCEPT)
    assert answer.status_code == 503


def bound(monkeypatch: pytest.MonkeyPatch, share: int, most: int) -> None:
    monkeypatch.setattr(mcp_endpoints, "McpSessions", lambda: McpSessions(share, most))


async def test_the_longest_idle_goes_and_one_with_a_call_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound(monkeypatch, share=3, most=100)
    hanging = rest_kit.Hanging(anyio.Event(), anyio.Event())
    monkeypatch.setattr(rest_kit, "HANGING", hanging)
    async with serving(tmp_path) as served, served.client() as client, anyio.create_task_group() as group:
        works, used, idle = [await opened(client) for _ in range(3)]
        call = {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "rest_kit_hang", "arguments": {}}}
        headers = {**ACCEPT, "Mcp-Session-Id": works, "MCP-Protocol-Version": "2025-11-25"}

        async def work() -> None:
            await client.post("/mcp", json=call, headers=headers)

        group.start_soon(work)
        with anyio.fail_after(20):
            await hanging.began.wait()
        assert await status(client, used) == 200
        await opened(client)
        assert [await status(client, each) for each in (idle, used, works)] == [404, 200, 200]
        assert not hanging.cancelled.is_set()
        group.cancel_scope.cancel()


async def test_at_the_bound_of_all_the_caller_with_the_most_gives_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound(monkeypatch, share=10, most=4)
    async with serving(tmp_path) as served, served.client() as loud, await another(served) as calm:
        first, second = await opened(calm), [await opened(loud) for _ in range(3)]
        fifth = await opened(calm)
        assert [await status(calm, first), await status(calm, fifth)] == [200, 200]
        assert [await status(loud, each) for each in second] == [404, 200, 200]


async def test_an_ended_session_counts_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound(monkeypatch, share=2, most=100)
    async with serving(tmp_path) as served, served.client() as client:
        first, second = await opened(client), await opened(client)
        ended = await client.delete("/mcp", headers={**ACCEPT, "Mcp-Session-Id": second})
        assert ended.status_code == 200
        await opened(client)
        assert await status(client, first) == 200
