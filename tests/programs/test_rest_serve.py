"""The server on a real socket: it listens where it may, notices who leaves, and stops in order."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from anyio.abc import SocketStream
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from mcp_ssh.app import open_app
from mcp_ssh.config.models import Config
from mcp_ssh.errors import Conflict, InvalidInput
from rest_bridge.api import endpoint as binding
from rest_bridge.http import middleware
from rest_bridge.server import Tls, listen, serve
from tests.support import rest_kit
from tests.support.rest_kit import FAMILIES, REGISTRY, Served, certificate, serving


@pytest.fixture(autouse=True)
def hanging(monkeypatch: pytest.MonkeyPatch) -> rest_kit.Hanging:
    fresh = rest_kit.Hanging(anyio.Event(), anyio.Event())
    monkeypatch.setattr(rest_kit, "HANGING", fresh)
    return fresh


@pytest.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served]:
    async with serving(tmp_path) as server:
        yield server


async def raw(served: Served, text: str) -> SocketStream:
    stream = await anyio.connect_tcp("127.0.0.1", served.port)
    await stream.send(text.replace("\n", "\r\n").format(port=served.port, token=served.token).encode())
    return stream


REQUESTS = {
    "get": "GET /session/hang HTTP/1.1\nHost: 127.0.0.1:{port}\nAuthorization: Bearer {token}\n\n",
    "post": "POST /session/hang HTTP/1.1\nHost: 127.0.0.1:{port}\nAuthorization: Bearer {token}\n"
    "Content-Type: application/json\nContent-Length: 2\n\n{{}}",
}


async def test_a_free_port_is_taken_and_told(served: Served) -> None:
    assert served.url.startswith("http://127.0.0.1:")
    async with served.client() as client:
        answer = await client.get("/")
    assert answer.json()["status"] == "running"
    assert "server" not in answer.headers


@pytest.mark.parametrize("method", sorted(REQUESTS))
async def test_a_client_that_leaves_cancels_its_call(served: Served, hanging: rest_kit.Hanging, method: str) -> None:
    stream = await raw(served, REQUESTS[method])
    with anyio.fail_after(20):
        await hanging.began.wait()
        assert not hanging.cancelled.is_set()
        await stream.aclose()
        await hanging.cancelled.wait()
    with anyio.fail_after(20):
        while not (rows := await served.app.store.history.list(1)):
            await served.app.store.history.flush()
    assert (rows[0].tool, rows[0].outcome) == ("rest_kit_hang", "cancelled")


async def test_negative_control_without_the_watch_a_call_goes_on_for_a_client_that_left(
    served: Served, hanging: rest_kit.Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binding, "UNWATCHED_S", 3600)
    stream = await raw(served, REQUESTS["get"])
    with anyio.fail_after(20):
        await hanging.began.wait()
    await stream.aclose()
    with anyio.move_on_after(0.5):
        await hanging.cancelled.wait()
    assert not hanging.cancelled.is_set()


async def test_a_connection_serves_many_requests(served: Served) -> None:
    ports: set[Any] = set()
    async with served.client() as client:
        for _ in range(20):
            answer = await client.get("/session/run?cmd=a")
            assert answer.status_code == 200
            ports.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
    assert len(ports) == 1


PACKETS_IN = slice(152, 156)
"""tcpi_data_segs_in of struct tcp_info (linux/tcp.h)."""


@pytest.mark.requirement("speed.coalesce")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts packets")
async def test_the_head_of_an_answer_leaves_with_its_body(served: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    with contextlib.closing(writer):
        writer.write(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(20):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        seen = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert json.loads(body)["status"] == "running"
    assert int.from_bytes(seen[PACKETS_IN], sys.byteorder) == 1


async def test_a_body_that_does_not_arrive_is_408(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "BODY_LIMIT_S", 0.2)
    head = REQUESTS["post"].partition("{{}}")[0].replace("Content-Length: 2", "Content-Length: 20")
    stream = await raw(served, head + "{{")
    with anyio.fail_after(20):
        answer = await stream.receive()
    await stream.aclose()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in answer


async def test_a_client_that_leaves_during_its_body_is_forgotten(
    served: Served, hanging: rest_kit.Hanging, caplog: pytest.LogCaptureFixture
) -> None:
    head = REQUESTS["post"].partition("{{}}")[0].replace("Content-Length: 2", "Content-Length: 20")
    stream = await raw(served, head + "{{")
    await stream.aclose()
    async with served.client() as client:
        assert (await client.get("/session/run?cmd=a")).status_code == 200
    assert not hanging.began.is_set()
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


async def test_commands_in_a_query_are_not_logged(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with served.client() as client:
        await client.get("/session/run?cmd=the-secret-word")
        await client.post("/session/fail", json={"kind": "crash"})
    # The client of this test logs its requests itself, and pytest listens even to a logger that is cut off.
    assert not logging.getLogger("uvicorn.access").propagate
    heard = [each.getMessage() for each in caplog.records if each.name not in {"httpx2", "uvicorn.access"}]
    assert any("reference" in each for each in heard)
    assert not [each for each in heard if "the-secret-word" in each or served.token in each]


async def test_stopping_ends_calls_first_and_tells_their_callers(
    served: Served, hanging: rest_kit.Hanging, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[httpx2.Response] = []

    async def call() -> None:
        async with served.client() as client:
            answers.append(await client.get("/session/hang"))

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        with anyio.fail_after(20):
            await hanging.began.wait()
            served.stop()
            await served.ended.wait()
    assert hanging.cancelled.is_set()
    assert answers[0].status_code == 503
    assert answers[0].json()["code"] == "shutting_down"
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_an_open_stream_does_not_hold_the_stop_up(
    served: Served, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    left = anyio.Event()

    async def stay() -> None:
        # The server goes away under it.
        with contextlib.suppress(Exception):
            async with (
                served.client() as http,
                Client(streamable_http_client(f"{served.url}/mcp", http_client=http), mode=mode) as client,
            ):
                assert (await client.list_tools()).tools
                connected.set()
                await left.wait()

    connected = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(stay)
        with anyio.fail_after(10):
            await connected.wait()
        with anyio.fail_after(2.5):
            served.stop()
            await served.ended.wait()
        left.set()
        group.cancel_scope.cancel()
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_server(tmp_path: Path, number: int) -> None:
    async with serving(tmp_path, signals=True) as served:
        os.kill(os.getpid(), number)
        with anyio.fail_after(20):
            await served.ended.wait()
        with pytest.raises(OSError, match="connection attempts failed"):
            await anyio.connect_tcp("127.0.0.1", served.port)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_an_open_address_is_refused_before_it_is_bound(tmp_path: Path, host: str) -> None:
    async with open_app(tmp_path, Config()) as app:
        with pytest.raises(InvalidInput, match="can be reached from other machines"):
            await serve(app, REGISTRY, FAMILIES, host=host, port=0, signals=False)


async def test_an_open_address_is_served_behind_a_proxy(tmp_path: Path) -> None:
    config = Config.model_validate({"server": {"behind_proxy": True}})
    anywhere = "0.0.0.0"
    async with serving(tmp_path, config=config, host=anywhere) as served, httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{served.port}/")
        wildcard = await client.get(f"http://127.0.0.1:{served.port}/", headers={"Host": anywhere})
    assert (answer.status_code, wildcard.status_code) == (200, 421)


async def test_a_taken_port_is_said_in_one_sentence(served: Served) -> None:
    with pytest.raises(Conflict, match=f"port {served.port} of 127.0.0.1 is taken"):
        await listen("127.0.0.1", served.port, open_to_all=False)


async def test_a_name_without_an_address_is_said_in_one_sentence() -> None:
    with pytest.raises(InvalidInput, match=r"there is no address for 'no-such-name\.invalid'"):
        await listen("no-such-name.invalid", 0, open_to_all=False)


async def test_a_name_listens_on_all_its_addresses_at_one_port() -> None:
    sockets = await listen("localhost", 0, open_to_all=False)
    try:
        assert len({each.getsockname()[1] for each in sockets}) == 1
        assert {each.family for each in sockets} <= {socket.AF_INET, socket.AF_INET6}
        # Without it asyncio would leave Nagle's algorithm on, and each answer would take 40 ms.
        assert {each.proto for each in sockets} == {socket.IPPROTO_TCP}
    finally:
        for each in sockets:
            each.close()


async def test_a_certificate_makes_it_https(tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    trusted = ssl.create_default_context(cafile=str(tls.certificate))
    async with serving(tmp_path / "home", tls=tls) as served, served.client(verify=trusted) as client:
        assert served.url.startswith("https://127.0.0.1:")
        own_page = await client.get("/session/run?cmd=a", headers={"Origin": served.url})
        downgraded = await client.get("/session/run?cmd=a", headers={"Origin": served.url.replace("https", "http")})
    assert (own_page.status_code, downgraded.status_code) == (200, 403)


async def test_a_bad_certificate_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    async with open_app(tmp_path, Config()) as app:
        for wrong in (tmp_path / "bad.pem", tmp_path / "missing.pem"):
            with pytest.raises(InvalidInput, match="the certificate or its key cannot be used"):
                await serve(app, REGISTRY, FAMILIES, host="127.0.0.1", port=0, tls=Tls(wrong), signals=False)


async def test_a_server_without_tokens_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = Config.model_validate({"server": {"auth_mode": "none"}})
    async with serving(tmp_path, config=config) as served, httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{served.url}/session/run?cmd=a")
    assert answer.json()["caller"] == "local"
    assert "every program on this machine is admin" in caplog.text
