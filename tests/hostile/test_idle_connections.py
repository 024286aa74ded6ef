"""Peers that open connections and say nothing take no place from callers, and are gone at their deadline."""

import contextlib
import os
import re
import resource
import socket
import ssl
import sys
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from mcp_ssh.cli import event_loop
from mcp_ssh.tools import REGISTRY
from rest_bridge.families.registry import FAMILIES
from rest_bridge.http import connections, middleware, protocol
from rest_bridge.http.connections import Connections, peer_of
from tests.support import cli_kit, rest_kit
from tests.support.rest_kit import Served, certificate, rest_server, serving

pytestmark = pytest.mark.requirement("fault.S6")
LOOPBACK = "127.0.0.1"
FLOOD = 1200
TOKEN = "the-token-of-this-test-0123456789"


@contextlib.contextmanager
def idle_connections(port: int, count: int, said: bytes = b"") -> Generator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        opened: list[socket.socket] = []
        for _ in range(count):
            each = stack.enter_context(socket.create_connection((LOOPBACK, port), timeout=20))
            with contextlib.suppress(OSError):
                each.sendall(said)
            opened.append(each)
        yield opened


@pytest.fixture
def descriptors() -> Generator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FLOOD + 500:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.asynccontextmanager
async def limited_server(home: Path, *command: str) -> AsyncGenerator[tuple[cli_kit.Running, httpx2.AsyncClient]]:
    """A server of its own process with 1,024 descriptors, and a client that has called it once."""
    command = command or ("-m", "mcp_ssh")
    words = ["sh", "-c", 'ulimit -n 1024; exec "$@"', "sh", sys.executable, *command, "serve", "--port", "0"]
    env = cli_kit.environment(home, MCP_SSH_TOKEN=TOKEN)
    async with await anyio.open_process(words, cwd=cli_kit.ROOT, env=env) as process:
        server = cli_kit.Running(process)
        try:
            url = (await server.until(r"serves (\S+) ")).group(1)
            async with caller(url) as client:
                assert (await client.get("/session/list")).status_code == 200
                yield server, client
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def caller(url: str, timeout_s: float = 20) -> httpx2.AsyncClient:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx2.AsyncClient(base_url=url, headers=headers, timeout=timeout_s, trust_env=False)


@cli_kit.needs_proc
@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize("said", [b"", b"POST /session/connect HTTP/1.1\r\nHost: x\r\n"])
async def test_1200_idle_connections_refuse_nobody(tmp_path: Path, said: bytes) -> None:
    async with limited_server(tmp_path) as (server, early):
        before = place(await early.get("/session/list"))
        with await in_thread(idle_connections(early.base_url.port, FLOOD, said)):
            again = await early.get("/session/list")
            assert (again.status_code, place(again)) == (200, before), "its connection was not taken from it"
            async with caller(str(early.base_url)) as late:
                assert (await late.get("/session/list")).status_code == 200
            assert len(list(Path(f"/proc/{server.pid}/fd").iterdir())) < 600, "the rest is for SSH and files"
        assert await server.end() == 0
        assert "out of system resource" not in server.said["err"]


UNBOUNDED = """
import sys
from mcp_ssh.cli import main
from rest_bridge.http.connections import Connections
Connections.admit = lambda self, connection: True
sys.exit(main())
"""


@cli_kit.needs_proc
@pytest.mark.usefixtures("descriptors")
async def test_negative_control_without_the_bound_1200_idle_connections_refuse_everybody(tmp_path: Path) -> None:
    async with limited_server(tmp_path, "-c", UNBOUNDED) as (_, early):
        with await in_thread(idle_connections(early.base_url.port, FLOOD)):
            async with caller(str(early.base_url), timeout_s=2) as late:
                with pytest.raises(httpx2.HTTPError):
                    await late.get("/session/list")


async def in_thread(opening: Any) -> Any:
    """A context manager that blocks as it is entered, entered elsewhere."""
    opened = await anyio.to_thread.run_sync(opening.__enter__)
    del opened
    return contextlib.closing(_Closing(opening))


class _Closing:
    def __init__(self, opening: Any) -> None:
        self._opening = opening

    def close(self) -> None:
        self._opening.__exit__(None, None, None)


def place(answer: httpx2.Response) -> Any:
    return answer.extensions["network_stream"].get_extra_info("client_addr")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_BYTE_S", "HEAD_S", "TAKING_S"):
        monkeypatch.setattr(protocol, name, 0.4)
    monkeypatch.setattr(middleware, "BODY_LIMIT_S", 0.4)
    monkeypatch.setattr(protocol, "BODY_GRACE_S", 0.1)


@pytest.fixture
async def served(tmp_path: Path, impatient: None) -> AsyncGenerator[Served]:
    async with serving(tmp_path) as server:
        yield server


async def until_closed(port: int, said: bytes, drip: bytes = b"") -> bytes:
    """What comes back up to the end of the connection, while a byte at a time is sent."""
    received = b""
    async with await anyio.connect_tcp(LOOPBACK, port) as stream:
        await stream.send(said)

        async def dripping() -> None:
            with contextlib.suppress(anyio.BrokenResourceError):
                for each in drip:
                    await stream.send(bytes([each]))
                    await anyio.sleep(0.05)

        async with anyio.create_task_group() as group:
            group.start_soon(dripping)
            with anyio.fail_after(10), contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    received += await stream.receive()
            group.cancel_scope.cancel()
    return received


HEAD = b"POST /session/say HTTP/1.1\r\nHost: 127.0.0.1\r\n"
ENDLESS = b"X-More: " + b"x" * 10_000


@pytest.mark.parametrize(
    ("said", "drip", "answer"),
    [
        (b"", b"", b""),
        (b"GET", b"", b"HTTP/1.1 408 "),
        (HEAD, ENDLESS, b"HTTP/1.1 408 "),
        # Without a token the answer comes before the body, which then never ends.
        (HEAD + b"Content-Length: 9000\r\n\r\n", b"x" * 10_000, b"HTTP/1.1 401 "),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET", ENDLESS, b"HTTP/1.1 200 "),
    ],
)
async def test_what_a_peer_owes_has_a_deadline_however_it_drips(
    served: Served, said: bytes, drip: bytes, answer: bytes
) -> None:
    received = await until_closed(served.port, said, drip)
    assert received.startswith(answer)
    assert bool(received) == bool(answer)


async def test_a_connection_that_ended_a_body_behind_its_answer_is_closed_when_idle(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "KEEP_ALIVE_S", 0.4)
    received = await until_closed(served.port, HEAD + b"Content-Length: 3\r\n\r\n", b"xxx")
    assert received.startswith(b"HTTP/1.1 401 ")


@cli_kit.needs_proc
async def test_a_peer_that_takes_no_answer_is_given_up(served: Served) -> None:
    asked = b"GET /redoc/redoc.standalone.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.settimeout(10)
        await anyio.to_thread.run_sync(peer.connect, (LOOPBACK, served.port))
        peer.sendall(asked * 20)
        with anyio.fail_after(10):
            while served_connections(served) > 0:
                await anyio.sleep(0.05)


async def test_a_peer_that_takes_an_answer_slowly_gets_all_of_it(served: Served) -> None:
    asked = b"GET /redoc/redoc.standalone.js HTTP/1.1\r\nHost: 127.0.0.1\r\n%b\r\n"

    def read() -> bytes:
        received = bytearray()
        with socket.socket() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.settimeout(10)
            peer.connect((LOOPBACK, served.port))
            peer.sendall(asked % b"" * 2 + asked % b"Connection: close\r\n")
            while chunk := peer.recv(48 * 1024):
                received += chunk
                time.sleep(0.4 * len(chunk) / (512 * 1024))  # 32 times as fast as it has to be
        return bytes(received)

    received = await anyio.to_thread.run_sync(read)
    assert received.count(b"HTTP/1.1 200 OK") == 3
    [size] = {int(each) for each in re.findall(rb"content-length: (\d+)", received)}
    assert len(received.rpartition(b"\r\n\r\n")[2]) == size


def served_connections(served: Served) -> int:
    """How many connections this process has at the server's port, seen from its own descriptors."""
    count = 0
    for each in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        fields = each.split()
        count += fields[1].endswith(f":{served.port:04X}") and fields[3] == "01"
    return count


async def test_a_call_may_take_longer_than_every_deadline(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = rest_kit.Hanging(anyio.Event(), anyio.Event())
    monkeypatch.setattr(rest_kit, "HANGING", hanging)
    async with served.client() as client, anyio.create_task_group() as group:
        group.start_soon(client.get, "/session/hang")
        with anyio.fail_after(10):
            await hanging.began.wait()
        with anyio.move_on_after(1.2):
            await hanging.cancelled.wait()
        assert not hanging.cancelled.is_set()
        group.cancel_scope.cancel()


async def test_a_connection_may_be_idle_between_requests(served: Served) -> None:
    async with served.client() as client:
        first = place(await client.get("/session/run?cmd=a"))
        await anyio.sleep(1)  # longer than the deadlines above, shorter than the one for the next request
        assert place(await client.get("/session/run?cmd=a")) == first


async def test_a_tls_handshake_has_a_deadline(tmp_path: Path, impatient: None) -> None:
    tls = certificate(tmp_path)
    trusted = ssl.create_default_context(cafile=str(tls.certificate))
    async with serving(tmp_path / "home", tls=tls) as served:
        assert await until_closed(served.port, b"") == b""
        assert await until_closed(served.port, b"GET / HTTP/1.1\r\n\r\n") in (b"", ALERT)
        async with served.client(verify=trusted) as client:
            assert (await client.get("/session/run?cmd=a")).status_code == 200


ALERT = b"\x15\x03\x03\x00\x02\x02\x46"
"""What OpenSSL may say to a peer that speaks no TLS."""


async def test_where_every_place_has_a_call_a_new_connection_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = rest_kit.Hanging(anyio.Event(), anyio.Event())
    monkeypatch.setattr(rest_kit, "HANGING", hanging)
    monkeypatch.setattr(connections, "LEAST", 2)
    monkeypatch.setattr(connections, "MOST", 2)
    async with serving(tmp_path) as served, served.client() as busy, anyio.create_task_group() as group:
        group.start_soon(busy.get, "/session/hang")
        with anyio.fail_after(10):
            await hanging.began.wait()
        async with served.client() as late:
            answer = await late.get("/")
        group.cancel_scope.cancel()
    assert answer.status_code == 503
    assert answer.json()["detail"] == "this server has too many open connections"
    assert answer.headers["retry-after"] == "5"


class Fake:
    def __init__(self, peer: str, *, trusted: bool = False, answering: bool = False) -> None:
        self.peer, self.trusted, self.answering, self.closed = peer, trusted, answering, False

    def give_up(self) -> None:
        self.closed = True


def test_a_peer_loses_its_own_and_first_what_showed_no_token() -> None:
    every = Connections(most=8, each_peer=4)
    calm = Fake("calm", trusted=True)
    crowd = [Fake("loud", trusted=True, answering=True), Fake("loud", trusted=True), Fake("loud"), Fake("loud")]
    assert all(every.admit(each) for each in (calm, *crowd))
    assert every.admit(Fake("loud", answering=True, trusted=True))
    assert every.admit(Fake("loud", answering=True, trusted=True))
    assert [each.closed for each in crowd] == [False, False, True, True]
    assert every.admit(Fake("loud", answering=True, trusted=True))
    assert crowd[1].closed
    assert not every.admit(Fake("loud")), "each of its connections has a call of a caller with a token"
    assert (calm.closed, crowd[0].closed) == (False, False)


def test_where_all_places_are_taken_the_peer_with_the_most_gives_one() -> None:
    every = Connections(most=4, each_peer=3)
    loud = [Fake("loud"), Fake("loud"), Fake("loud")]
    calm = Fake("calm")
    assert all(every.admit(each) for each in (calm, *loud))
    every.note_use(loud[0])
    assert every.admit(Fake("new"))
    assert (calm.closed, [each.closed for each in loud]) == (False, [False, True, False])


def test_an_ipv6_network_is_one_peer() -> None:
    assert peer_of(("2001:db8::1", 5, 0, 0)) == peer_of(("2001:db8::ffff", 6, 0, 0))
    assert peer_of(("2001:db8::1", 5, 0, 0)) != peer_of(("2001:db8:0:1::1", 5, 0, 0))
    assert peer_of(("::ffff:192.0.2.1", 5, 0, 0)) == peer_of(("192.0.2.1", 6))


def test_the_soft_limit_of_descriptors_is_raised(descriptors: None) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
    try:
        event_loop.raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, 65_536), hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def no_descriptors() -> Generator[None]:
    """Take every descriptor that this process may still open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open("/dev/null", os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 20, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in taken:
            os.close(each)


async def test_a_server_without_descriptors_says_so_and_blames_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text("Host web1\n HostName 127.0.0.1\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    login = {"host": LOOPBACK, "port": 9, "username": "u", "password": "p", "retries": 1}
    async with rest_server(tmp_path / "state", REGISTRY, FAMILIES) as rest, rest.client() as client:
        assert (await client.post("/session/connect", json=login)).status_code == 502
        with no_descriptors():
            answer = await client.post("/session/connect", json=login)
        after = await client.post("/session/connect", json=login)
    assert (answer.status_code, after.status_code) == (503, 502)
    assert answer.json()["detail"].startswith("too many open files")
    assert "permissions" not in answer.text
    assert answer.headers["retry-after"] == "5"
