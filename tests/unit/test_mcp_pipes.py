"""Messages as lines on pipes, in one process."""

import json
import os
import select
import threading
import time
import tracemalloc
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp import types
from mcp.shared.message import SessionMessage

from mcp_ssh.mcp_server.stdio_transport import Pipes


class Ends:
    """A client's ends of the pipes."""

    def __init__(self) -> None:
        self.theirs_in, self.write_end = os.pipe()
        self.read_end, self.theirs_out = os.pipe()
        self.pipes = Pipes(self.theirs_in, self.theirs_out)

    def write(self, *messages: dict[str, Any]) -> None:
        os.write(self.write_end, b"".join(json.dumps(each).encode() + b"\n" for each in messages))

    async def end_of_input(self) -> None:
        """Close the pipe, and see that whoever reads it has heard of that."""
        os.close(self.write_end)
        self.write_end = os.dup(self.theirs_in)
        await anyio.wait_readable(self.write_end)
        await anyio.wait_all_tasks_blocked()

    def close(self) -> None:
        for each in (self.theirs_in, self.write_end, self.read_end, self.theirs_out):
            os.close(each)


@pytest.fixture
def ends() -> Iterator[Ends]:
    opened = Ends()
    yield opened
    opened.close()


class Serving:
    """Both directions at work, for a test that plays the server."""

    def __init__(self, ends: Ends) -> None:
        self.received, self.inbox = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        self.outbox, self.to_send = anyio.create_memory_object_stream[SessionMessage](0)
        self.ends = ends
        self.over = anyio.Event()

    async def receive(self) -> None:
        await self.ends.pipes.receive(self.received, self.outbox.clone())
        self.over.set()

    async def answer(self, number: int, **result: Any) -> None:
        await self.outbox.send(SessionMessage(types.JSONRPCResponse(jsonrpc="2.0", id=number, result=result)))


@asynccontextmanager
async def serving(ends: Ends) -> AsyncGenerator[Serving]:
    server = Serving(ends)
    with anyio.fail_after(20):
        async with server.inbox, server.outbox, anyio.create_task_group() as group:
            group.start_soon(server.receive)
            group.start_soon(ends.pipes.send, server.to_send)
            yield server
            group.cancel_scope.cancel()


def request(number: int) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": "ping"}


async def test_the_end_of_input_waits_for_answers_and_no_longer(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_ssh.mcp_server.stdio_transport.SETTLE_LIMIT_S", 60)
    async with serving(ends) as server:
        ends.write(request(0), request(1))
        await server.inbox.receive()
        await server.inbox.receive()
        await ends.end_of_input()
        await server.answer(0)
        await anyio.wait_all_tasks_blocked()
        assert not server.over.is_set()
        await server.answer(1)
        await server.over.wait()


async def test_the_end_of_input_does_not_wait_for_ever(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_ssh.mcp_server.stdio_transport.SETTLE_LIMIT_S", 0.05)
    async with serving(ends) as server:
        ends.write(request(0))
        await server.inbox.receive()
        await ends.end_of_input()
        await server.over.wait()


async def test_the_errors_a_client_answers_with_are_messages_like_others(ends: Ends) -> None:
    async with serving(ends) as server:
        ends.write({"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "no window"}})
        received = await server.inbox.receive()
    assert isinstance(received, SessionMessage)
    assert isinstance(received.message, types.JSONRPCError)
    assert received.message.error.message == "no window"


async def test_a_line_without_end_takes_no_more_memory_than_the_limit(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_ssh.mcp_server.stdio_transport.MAX_LINE_BYTES", 64 * 1024)
    async with serving(ends) as server:
        await server.answer(1)
        tracemalloc.start()
        for _ in range(100):
            # As much as an empty pipe takes at once, so that this never waits for the reader in the same loop.
            await anyio.wait_writable(ends.write_end)
            os.write(ends.write_end, b"x" * select.PIPE_BUF * 8)
            await anyio.wait_all_tasks_blocked()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        os.write(ends.write_end, b"\n" + json.dumps(request(2)).encode() + b"\n")
        received = await server.inbox.receive()
    assert peak < 1024 * 1024
    assert isinstance(received, SessionMessage)
    assert isinstance(received.message, types.JSONRPCRequest)
    assert received.message.id == 2


async def test_a_reader_that_stands_still_does_not_hold_the_loop(ends: Ends) -> None:
    lines: list[bytes] = []
    reader = threading.Timer(1, lambda: lines.append(_read_line(ends.read_end)))
    reader.start()
    async with serving(ends) as server:
        began = time.monotonic()
        await server.answer(1, text="x" * 1_000_000)
        await anyio.wait_all_tasks_blocked()
        held_s = time.monotonic() - began
        await anyio.to_thread.run_sync(reader.join)
    assert held_s < 0.9
    assert len(json.loads(lines[0])["result"]["text"]) == 1_000_000


def _read_line(descriptor: int) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(descriptor, 65536)
    return line


async def test_an_answer_that_cannot_be_written_becomes_an_error_and_the_next_goes_out(ends: Ends) -> None:
    async with serving(ends) as server:
        await server.answer(1, text="\ud800")
        await server.answer(2, text="fine")
        await anyio.wait_all_tasks_blocked()
    first, second = (json.loads(line) for line in os.read(ends.read_end, 65536).splitlines())
    assert (first["id"], first["error"]["code"]) == (1, types.INTERNAL_ERROR)
    assert (second["id"], second["result"]) == (2, {"text": "fine"})
