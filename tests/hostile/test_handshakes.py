"""A machine that breaks the SSH protocol fails the call by name, and is not taken for a fault of this server."""

import asyncio
import contextlib
import os
import random
import struct
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import ToolError
from mcp_ssh.tools import hostkey, session
from tests.support.bystander import bystander
from tests.support.doors import DirectCall, caller
from tests.support.hostkeys import KEY, machine

GOOD = (
    "curve25519-sha256",
    "ssh-ed25519",
    "aes128-ctr",
    "aes128-ctr",
    "hmac-sha2-256",
    "hmac-sha2-256",
    "none",
    "none",
)


def packet(payload: bytes) -> bytes:
    padding = 16 - (len(payload) + 5) % 8
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + os.urandom(padding)


def names(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def kexinit(*lists: bytes, end: bytes = b"\0\0\0\0\0") -> bytes:
    return packet(b"\x14" + bytes(16) + b"".join(map(names, lists)) + end)


def changed(at: int, value: bytes, end: bytes = b"\0\0\0\0\0") -> bytes:
    lists = [each.encode() for each in (*GOOD, "", "")]
    lists[at] = value
    return kexinit(*lists, end=end)


CASES = {
    "an empty packet": packet(b""),
    "a short KEXINIT": packet(b"\x14\0\0"),
    "a length beyond the packet": packet(b"\x14" + bytes(16) + b"\xff\xff\xff\xffx"),
    "a key exchange that is not ASCII": changed(0, b"curve25519-sha256\xff"),
    "a host key that is not ASCII": changed(1, b"ssh-\xff"),
    "empty lists": kexinit(*[b""] * 10),
    "bytes behind the end": changed(0, GOOD[0].encode(), b"\0\0\0\0\0more"),
    "an absurd packet": b"\xff" * 64,
    "a message out of turn": packet(b"\x50abc"),
    "a disconnect that is not text": packet(b"\x01\0\0\0\2" + names(b"\xff\xfe") + names(b"")),
    "a list of 30,000 names": changed(0, b",".join(b"x%d" % each for each in range(5000))),
}


@contextlib.asynccontextmanager
async def saying(answer: bytes) -> AsyncGenerator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(b"SSH-2.0-evil\r\n" + answer)
            await writer.drain()
            writer.write_eof()
            await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[App]:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with open_app(tmp_path / "state") as app:
        yield app


async def failures(app: App, port: int) -> list[ToolError]:
    calls: list[tuple[Any, dict[str, Any]]] = [
        (session.connect, {"port": port, "username": "a", "password": "x", "retries": 1, "use_config": False}),
        (hostkey.scan, {"port": port}),
    ]
    found: list[ToolError] = []
    for tool, given in calls:
        with anyio.fail_after(20), pytest.raises(ToolError) as caught:
            await dispatch(app, tool, {"host": "127.0.0.1", "timeout": 5, **given}, DirectCall(caller()))
        found.append(caught.value)
    return found


@pytest.mark.requirement("fault.S13.kexinit")
@pytest.mark.parametrize("case", CASES)
async def test_a_malformed_key_exchange_is_the_machines_fault(app: App, case: str) -> None:
    async with saying(CASES[case]) as port, bystander():
        for error in await failures(app, port):
            assert error.code == "connect_failed", (case, error.message)
            assert str(port) in error.message
            assert len(error.message) < 2000
            assert "host:" not in error.message


@contextlib.asynccontextmanager
async def meddling(real: int, at: int, value: int) -> AsyncGenerator[int]:
    """A way to a machine on which one byte of its answer becomes another."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", real)

        async def answers() -> None:
            seen = 0
            while data := bytearray(await back.read(65536)):
                if seen <= at < seen + len(data):
                    data[at - seen] = value
                seen += len(data)
                writer.write(bytes(data))
            writer.close()

        task = asyncio.create_task(answers())
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                forth.write(data)
        forth.close()
        with contextlib.suppress(OSError):
            await task

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.requirement("fault.S13.kexinit")
async def test_a_handshake_with_any_byte_changed_is_no_fault_of_this_server(app: App) -> None:
    pick = random.Random(7)
    fine = {"connect_failed", "host_key_unconfirmed", "timed_out", "refused"}
    async with machine(KEY) as real:
        for _ in range(60):
            at, value = pick.randrange(20, 1400), pick.randrange(256)
            async with meddling(real, at, value) as port:
                given = {"host": "127.0.0.1", "port": port, "username": "a", "password": "x", "retries": 1}
                with pytest.raises(ToolError) as caught:
                    arguments = {**given, "timeout": 2, "use_config": False}
                    await dispatch(app, session.connect, arguments, DirectCall(caller()))
                assert caught.value.code in fine, (at, value)
