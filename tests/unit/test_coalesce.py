"""Writes that leave together, over real sockets: what arrives, what a close and an abort leave, who hears of an end."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_ssh.ssh.dial import write_coalescing as coalesce
from mcp_ssh.ssh.dial.write_coalescing import READ_BYTES, Connector, Joined

pytestmark = pytest.mark.requirement("speed.coalesce")


class Near(asyncio.Protocol):
    """Our end, as asyncssh would be it."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.ends: list[Exception | None] = []
        self.ended = asyncio.Event()
        self.arrived = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Joined)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)
        self.arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ends.append(exc)
        self.ended.set()


@contextlib.asynccontextmanager
async def connected() -> AsyncGenerator[tuple[Near, asyncio.StreamReader, asyncio.StreamWriter]]:
    come: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    server = await asyncio.start_server(lambda reader, writer: come.put_nowait((reader, writer)), "127.0.0.1", 0)
    async with server:
        _, protocol = await Connector(addresses=["127.0.0.1"]).create_connection(Near, *server.sockets[0].getsockname())
        assert isinstance(protocol, Near)
        reader, writer = await come.get()
        try:
            yield protocol, reader, writer
        finally:
            protocol.transport.abort()
            with anyio.fail_after(20):
                await protocol.ended.wait()
            writer.close()


PIECES = st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.booleans()), max_size=40)


@settings(max_examples=60, deadline=None)
@given(pieces=PIECES)
def test_all_bytes_arrive_in_order_whatever_turns_they_were_written_in(pieces: list[tuple[bytes, bool]]) -> None:
    async def play() -> None:
        async with connected() as (near, reader, _):
            for piece, turn_ends in pieces:
                near.transport.write(bytearray(piece))
                if turn_ends:
                    await asyncio.sleep(0)
            near.transport.close()
            near.transport.close()
            assert near.transport.is_closing()
            with anyio.fail_after(20):
                assert await reader.read() == b"".join(piece for piece, _ in pieces)

    asyncio.run(play())


class Counted:
    """A transport, and how much each write was. uvloop's cannot be patched."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.writes: list[int] = []

    def write(self, data: bytes) -> None:
        self.writes.append(len(data))
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@pytest.mark.parametrize("joined", [True, False])
async def test_what_is_written_in_one_turn_leaves_as_one_and_without_us_as_many(
    joined: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected() as (near, reader, _):
        plain = Counted(near.transport._transport)
        monkeypatch.setattr(near.transport, "_transport", plain)
        transport = near.transport if joined else plain
        for _ in range(10):
            transport.write(b"0123456789")
        with anyio.fail_after(20):
            await reader.readexactly(100)
        assert plain.writes == ([100] if joined else [10] * 10)


async def test_what_was_written_before_an_abort_has_its_chance_to_leave() -> None:
    async with connected() as (near, reader, _):
        near.transport.write(b"good-bye")
        near.transport.abort()
        with anyio.fail_after(20):
            assert await reader.read() == b"good-bye"
            await near.ended.wait()
        near.transport.write(b"too late")
        await asyncio.sleep(0)
    assert near.ends == [None]


async def test_a_reset_is_told_once_and_what_is_written_afterwards_is_dropped() -> None:
    async with connected() as (near, _, writer):
        near.transport.write(b"x")
        there: socket.socket = writer.get_extra_info("socket")
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        with anyio.fail_after(20):
            await near.ended.wait()
        for _ in range(3):
            near.transport.write(b"y")
            await asyncio.sleep(0)
    assert len(near.ends) == 1
    assert near.transport.get_write_buffer_size() == 0


async def test_much_that_arrives_at_once_is_handed_on_in_parts_and_whole() -> None:
    sent = bytes(range(256)) * 4096
    async with connected() as (near, _, writer):
        near.transport.pause_reading()
        writer.write(sent)
        near.transport.resume_reading()
        with anyio.fail_after(20):
            while sum(map(len, near.heard)) < len(sent):
                near.arrived.clear()
                await near.arrived.wait()
    assert b"".join(near.heard) == sent
    assert max(map(len, near.heard)) <= READ_BYTES


async def test_an_address_where_nobody_listens_is_an_error_of_the_network() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await Connector(addresses=["127.0.0.1"]).create_connection(Near, *taken.getsockname())


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="the kernel does not tell")
@pytest.mark.requirement("speed.prompt")
@pytest.mark.parametrize("bound", [coalesce.PROMPT_BYTES, 0])
async def test_a_login_is_acknowledged_at_once_and_without_us_the_kernel_waits_to_see_what_we_say(
    bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coalesce, "PROMPT_BYTES", bound)
    async with connected() as (near, reader, writer):
        with anyio.fail_after(20):
            for _ in range(40):  # question and answer, as in a handshake: that is when a kernel begins to wait
                near.arrived.clear()
                writer.write(b"question")
                await near.arrived.wait()
                near.transport.write(b"answer")
                await reader.readexactly(6)
            near.arrived.clear()
            writer.write(b"no question")
            await near.arrived.wait()
            await asyncio.sleep(0)
        ours = near.transport.get_extra_info("socket")
        assert bool(ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)) is bool(bound)
