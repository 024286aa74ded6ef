"""Requests that two servers may read in two ways are refused; those that RFC 9112 allows are answered."""

import re
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import httpx2
import pytest

from rest_bridge.http import middleware
from tests.support.cli_kit import running
from tests.support.rest_kit import Served, serving

pytestmark = pytest.mark.requirement("fault.S12")

SMUGGLED = "0\n\nGET /session/run?cmd=smuggled HTTP/1.1\nHost: 127.0.0.1:{port}\nAuthorization: Bearer {token}\n\n"
POST = "POST /session/say HTTP/{version}\nHost: 127.0.0.1:{{port}}\nAuthorization: Bearer {{token}}\n"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served]:
    async with serving(tmp_path) as server:
        yield server


async def answers(served: Served, text: str, *, closes: bool) -> str:
    """What comes back, up to the end of the connection where it must close."""
    filled = text.format(port=served.port, token=served.token).replace("\n", "\r\n")
    received = b""
    async with await anyio.connect_tcp("127.0.0.1", served.port) as stream:
        await stream.send(filled.encode())
        with anyio.fail_after(20):
            try:
                while closes or b"\r\n\r\n" not in received:
                    received += await stream.receive()
            except anyio.EndOfStream:
                pass
    return received.decode()


@pytest.mark.parametrize(
    ("version", "framing"),
    [
        ("1.1", "Content-Length: 6\nTransfer-Encoding: chunked\n"),
        ("1.1", "Transfer-Encoding: chunked\nContent-Length: 6\n"),
        ("1.0", "Transfer-Encoding: chunked\n"),
    ],
)
async def test_a_request_with_two_ends_is_refused_and_its_connection_closed(
    served: Served, version: str, framing: str
) -> None:
    received = await answers(served, POST.format(version=version) + framing + "\n" + SMUGGLED, closes=True)
    assert received.startswith("HTTP/1.1 400 ")
    assert '"code":"malformed"' in received
    assert len(re.findall(r"HTTP/1\.1 \d", received)) == 1, "what is behind it is not read as a request"
    await served.app.store.history.flush()
    assert not await served.app.store.history.list(5)


async def test_negative_control_either_of_the_two_alone_is_answered(served: Served) -> None:
    for framing, body in (
        ("Content-Length: 12", '{{"text":"a"}}'),
        ("Transfer-Encoding: chunked", 'c\n{{"text":"a"}}\n0\n\n'),
    ):
        text = POST.format(version="1.1") + f"Content-Type: application/json\n{framing}\n\n{body}"
        assert (await answers(served, text, closes=False)).startswith("HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://127.0.0.1:{port}/session/run?cmd=a", "127.0.0.1:{port}", 200),
        ("HTTP://localhost:{port}/session/run?cmd=a", "127.0.0.1:{port}", 200),
        ("http://127.0.0.1:{port}", "127.0.0.1:{port}", 200),
        ("http://127.0.0.1:{port}/session/run?cmd=a", "evil.example", 200),  # the target counts, as the RFC says
        ("http://evil.example/session/run?cmd=a", "127.0.0.1:{port}", 421),
        ("http://127.0.0.1@evil.example/session/run?cmd=a", "127.0.0.1:{port}", 400),
        ("http:///session/run?cmd=a", "127.0.0.1:{port}", 400),
        ("ftp://127.0.0.1/session/run?cmd=a", "127.0.0.1:{port}", 404),
    ],
)
async def test_a_target_in_absolute_form_means_its_path_at_its_host(
    served: Served, target: str, host: str, status: int
) -> None:
    text = f"GET {target} HTTP/1.1\nHost: {host}\nAuthorization: Bearer {{token}}\n\n"
    assert (await answers(served, text, closes=False)).startswith(f"HTTP/1.1 {status} ")


async def test_an_absolute_target_needs_the_token_of_its_path(served: Served) -> None:
    text = "GET http://127.0.0.1:{port}/session/run?cmd=a HTTP/1.1\nHost: 127.0.0.1:{port}\n\n"
    assert (await answers(served, text, closes=False)).startswith("HTTP/1.1 401 ")


INITIALIZE = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}  # fmt: skip


@pytest.mark.parametrize("path", ["/mcp/", "/mcp/all/", "/mcp/x/rest_kit/"])
async def test_a_final_slash_behind_an_mcp_path_makes_no_difference(served: Served, path: str) -> None:
    async with served.client() as client:
        headers = {"Accept": "application/json, text/event-stream"}
        answer = await client.post(path, json=INITIALIZE, headers=headers)
        foreign = await client.post(path, json=INITIALIZE, headers={**headers, "Authorization": ""})
        page = await client.get("/docs/")
        twice = await client.post(f"{path}/", json=INITIALIZE, headers=headers)
    assert (answer.status_code, foreign.status_code, page.status_code, twice.status_code) == (200, 401, 200, 404)


@pytest.mark.parametrize(
    "address",
    ["/session/run?cmd=%ff", "/session/run?cmd=%zz", "/session/run?cmd=50%", "/session/run?%c3=a", "/mcp?a=%ff",
     "/?a=%", "/session/heard/%ff", "/session/heard/%2"],
)  # fmt: skip
async def test_a_badly_encoded_address_is_400(served: Served, address: str) -> None:
    async with served.client() as client:
        answer = await client.request("GET", httpx2.URL(served.url), extensions={"target": address.encode()})
    assert answer.status_code == 400, answer.text
    assert "not well encoded" in answer.text


@pytest.mark.parametrize("path", ["/mcp", "/mcp/all", "/session/say", "/nowhere", "/"])
async def test_a_body_that_stops_ends_with_its_deadline_on_every_path(
    served: Served, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(middleware, "BODY_LIMIT_S", 0.3)
    head = f"POST {path} HTTP/1.1\nHost: 127.0.0.1:{{port}}\nAuthorization: Bearer {{token}}\n"
    text = (
        f"{head}Content-Type: application/json\nAccept: application/json, text/event-stream\nContent-Length: 50\n\n{{{{"
    )
    if path in {"/", "/nowhere"}:  # these answer before they read
        assert (await answers(served, text, closes=False)).startswith("HTTP/1.1 4")
        return
    received = await answers(served, text, closes=True)
    assert received.startswith("HTTP/1.1 408 ")
    assert "did not arrive within 0.3 s" in received
    assert not [each for each in caplog.records if each.levelname in {"WARNING", "ERROR"}]


async def test_malformed_requests_do_not_flood_the_log(tmp_path: Path) -> None:
    async with running("serve", "--port", "0", home=tmp_path, env={"MCP_SSH_TOKEN": "t" * 32}) as server:
        url = (await server.until(r"serves (\S+) ")).group(1)
        port = int(url.rpartition(":")[2])
        for _ in range(200):
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                await stream.send(b"nonsense\r\n\r\n")
                with anyio.fail_after(20):
                    assert (await stream.receive()).startswith(b"HTTP/1.1 400 ")
        assert await server.end() == 0
        lines = [each for each in server.said["err"].splitlines() if "Invalid HTTP request" in each]
    assert len(lines) <= 2
