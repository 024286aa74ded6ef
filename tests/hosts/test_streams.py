"""A log that is followed over HTTP by server-sent events, on GNU and BusyBox, through a real server."""

import contextlib
import signal
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config, SecurityConfig
from mcp_ssh.linux.files import follow as probe
from mcp_ssh.sessions import follow
from mcp_ssh.ssh.connection.connection import Connection
from mcp_ssh.ssh.wire.kill import StopResult
from mcp_ssh.store.history import HistoryRow
from mcp_ssh.tool import Role
from rest_bridge.api import endpoint as binding
from rest_bridge.http import sse
from tests.fleet.hosts import Host
from tests.support.machine import SOAK, login, number, outside, processes, trust
from tests.support.servers import TOKEN, resident_kib, serve
from tests.support.streams import PATH, Reader, Server, served, stream

MEBIBYTES = 200 if SOAK else 64
HELD_MIB = 16
"""What may be on its way to a reader that takes nothing: windows, socket buffers, pipes. All of it is far less."""


class On:
    """A session of dev's over HTTP, and a log on the machine."""

    def __init__(self, client: httpx2.AsyncClient, host: Host, session_id: str, log: str) -> None:
        self.client, self.host, self.session_id, self.log = client, host, session_id, log

    @property
    def where(self) -> dict[str, Any]:
        return {"session_id": self.session_id, "path": self.log}

    def stream(self, last: str = "", **more: Any) -> contextlib.AbstractAsyncContextManager[Reader]:
        return stream(self.client, last, **self.where, **more)

    async def do(self, command: str) -> None:
        await outside(self.host, f"log={self.log}; {command}", "dev")

    async def alone(self) -> None:
        """Wait until nothing on the machine has to do with the log any more."""
        with anyio.fail_after(10):
            while await processes(self.host, self.log):
                await anyio.sleep(0.05)


async def opened(client: httpx2.AsyncClient, host: Host, **more: Any) -> On:
    answer = await client.post("/session/connect", json={**login(host, "dev"), **more})
    assert answer.status_code == 200, answer.text
    log = f"/tmp/stream-{number()}"
    await outside(host, f"seq 1 9 >{log}", "dev")
    return On(client, host, answer.json()["session_id"], log)


async def recorded(app: App) -> HistoryRow:
    """The one row of the one stream."""
    with anyio.fail_after(10):
        while not (rows := await app.store.history.list(10, tool="system_tail")):
            await anyio.sleep(0.05)
    (row,) = rows
    return row


@pytest.fixture
async def server(app: App) -> AsyncGenerator[Server]:
    async with served(app) as running:
        yield running


@pytest.fixture
async def on(server: Server, host: Host) -> AsyncGenerator[On]:
    await trust(server.app, host)
    async with server.client(await server.token(Role.ADMIN)) as client:
        yield await opened(client, host)


@pytest.mark.requirement("stream.tail")
async def test_a_log_is_followed_over_rotation_and_truncation(on: On) -> None:
    async with on.stream(lines=2) as reader:
        await reader.text("8\n9\n")
        await on.do("echo ten >>$log; printf elev >>$log")
        await reader.text("ten\nelev")
        await on.do("printf 'en\\n' >>$log; mv $log $log.1; echo of old >>$log.1; echo twelve >$log")
        await reader.text("en\nof old\n")
        moved = await reader.next()
        assert (moved.name, moved.data) == ("reset", {"reason": "moved"})
        await reader.text("twelve\n")
        await on.do(": >$log")
        emptied = await reader.next()
        assert (emptied.name, emptied.data) == ("reset", {"reason": "truncated"})
        await on.do("echo thirteen >>$log")
        await reader.text("thirteen\n")
    await on.alone()


@pytest.mark.requirement("stream.tail")
async def test_bytes_that_are_no_text_are_replaced_and_no_character_is_split(on: On) -> None:
    await on.do(": >$log")
    async with on.stream() as reader:
        await on.do(r"printf 'a\377b\303' >>$log")
        await reader.text("a\ufffdb")
        before = reader.last_id
        await on.do(r"printf '\251\n' >>$log")
        await reader.text("é\n")
        assert [each.rpartition(":")[2] for each in (before, reader.last_id)] == ["3", "6"]
    async with on.stream(before) as again:
        await again.text("é\n")


@pytest.mark.requirement("stream.resume")
async def test_a_stream_goes_on_where_it_ended_and_says_so_where_it_cannot(on: On) -> None:
    async with on.stream(lines=1) as reader:
        await reader.text("9\n")
        last = reader.last_id
    await on.do("echo meanwhile >>$log")
    async with on.stream(last) as reader:
        await reader.text("meanwhile\n")
    async with on.stream(since=last) as reader:
        await reader.text("meanwhile\n")
        last = reader.last_id
    async with on.stream(last) as reader:
        await on.do("echo new >>$log")
        await reader.text("new\n")
    await on.do("echo cut >$log")
    async with on.stream(last) as reader:
        assert (await reader.next()).data == {"reason": "truncated"}
        await reader.text("cut\n")
    await on.do("cp $log $log.new; mv $log.new $log")
    async with on.stream(last) as reader:
        assert (await reader.next()).data == {"reason": "replaced"}
        await reader.text("cut\n")
    wrong = await on.client.get(PATH, params=on.where, headers={"last-event-id": "7"})
    assert (wrong.status_code, wrong.json()["details"]["errors"][0]["field"]) == (400, "since")


@pytest.mark.requirement("stream.tail")
async def test_nothing_is_left_on_the_machine_when_the_client_goes_and_it_is_on_record(on: On, app: App) -> None:
    async with on.stream() as reader:
        await reader.next()
        assert await processes(on.host, on.log)
    await on.alone()
    row = await recorded(app)
    assert (row.outcome, row.door, row.target) == ("cancelled", "rest", f"dev@{on.host.ip}")
    assert row.duration_ms > 0


async def test_the_negative_control_that_ends_nothing_leaves_it_there(on: On, monkeypatch: pytest.MonkeyPatch) -> None:
    done = anyio.Event()

    async def stop(*arguments: Any, **more: Any) -> StopResult:
        done.set()
        return StopResult(ended=True)

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "stop", stop)
        async with on.stream() as reader:
            await reader.next()
        with anyio.fail_after(10):
            await done.wait()
        assert await processes(on.host, on.log)


@pytest.mark.requirement("stream.ends")
async def test_a_stream_ends_at_its_time_and_says_so(on: On, app: App) -> None:
    async with on.stream(lines=1, max_s=1) as reader:
        await reader.text("9\n")
        end = await reader.next()
        assert (end.name, end.data) == ("end", {"reason": "max_s"})
        assert await reader.over()
    await on.alone()
    assert (await recorded(app)).outcome == "ok"


async def error(reader: Reader) -> str:
    """The code of the error that ends the stream now."""
    told = await reader.next()
    assert (told.name, told.id) == ("error", None)
    assert {"code", "detail"} <= told.data.keys()
    assert await reader.over()
    return told.data["code"]


@pytest.mark.requirement("stream.ends")
async def test_a_closed_session_ends_its_stream(on: On) -> None:
    async with on.stream(lines=1) as reader:
        await reader.text("9\n")
        await on.client.post(f"/session/disconnect/{on.session_id}")
        assert await error(reader) == "conflict"
    await on.alone()


@pytest.mark.requirement("stream.ends")
async def test_a_lost_link_ends_its_streams_and_a_quiet_log_does_not(on: On, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "BEAT_S", 1)
    monkeypatch.setattr(follow, "SILENT_S", 4)
    async with on.stream(lines=1, max_s=6) as reader:
        await reader.text("9\n")
        assert (await reader.next()).name == "end"
    async with on.stream(lines=1) as reader:
        await reader.text("9\n")
        await anyio.to_thread.run_sync(on.host.cut)
        assert await error(reader) == "connect_failed"


@pytest.mark.requirement("stream.ends")
async def test_a_revoked_token_ends_its_stream_although_the_session_is_anothers(
    on: On, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binding, "ADMITTED_S", 0.2)
    another = await server.token(Role.ADMIN, "another")
    async with server.client(another) as client, stream(client, **on.where, lines=1) as reader:
        await reader.text("9\n")
        await server.app.store.tokens.revoke("another")
        assert await error(reader) == "unauthenticated"
    await on.alone()
    assert (await on.client.get("/system/head", params=on.where)).status_code == 200


@pytest.mark.requirement("stream.ends")
async def test_what_fails_before_a_stream_is_an_answer_like_any_other(on: On) -> None:
    for path, status in (("/tmp/none", 404), ("/tmp", 400), ("/etc/shadow", 403), ("/dev/null", 400)):
        answer = await on.client.get(PATH, params={**on.where, "path": path})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), path
    assert (await on.client.get(PATH, params={**on.where, "lines": 0})).status_code == 400
    assert (await on.client.get(PATH, params={"session_id": "0" * 12, "path": on.log})).status_code == 404


@pytest.mark.requirement("stream.alive")
async def test_a_quiet_stream_says_that_it_is_there(on: On, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "QUIET_S", 0.2)
    async with on.stream(lines=1, max_s=2) as reader:
        while (await reader.next()).name != "end":
            pass
    assert reader.comments.count(": alive") > 2


@pytest.mark.requirement("stream.token")
async def test_a_stream_takes_a_token_in_its_address_and_nothing_else_does(server: Server, deb: Host) -> None:
    await trust(server.app, deb)
    given = await server.token(Role.VIEWER)
    by_password = {"host": deb.ip, "username": "ops", "password": deb.password}
    async with server.client(given) as client, server.client(None) as bare:
        session_id = (await client.post("/session/connect", json=by_password)).json()["session_id"]
        where = {"session_id": session_id, "path": "/etc/passwd", "max_s": 1}
        async with stream(bare, token=given, **where) as reader:
            assert (await reader.next()).name == "content"
        for params, headers in (
            ({}, {}),
            ({"token": "wrong"}, {}),
            ({"token": ""}, {}),
            ({"token": given}, {"authorization": f"Bearer {given}"}),
        ):
            assert (await bare.get(PATH, params={**where, **params}, headers=headers)).status_code == 401, params
        assert (await bare.get("/system/tail", params={"token": given})).status_code == 401
        assert (await client.get("/system/tail", params={"token": given})).status_code == 400
    async with server.client(await server.token(Role.ADMIN, "bound", (deb.ip,))) as client:
        own = (await client.post("/session/connect", json=by_password)).json()["session_id"]
        for session, status in ((own, 200), (session_id, 404)):
            answer = await client.get(PATH, params={**where, "session_id": session, "lines": 1})
            assert answer.status_code == status, answer.text


@pytest.mark.requirement("policy.limits")
async def test_a_stream_is_one_of_its_callers_calls_for_as_long_as_it_runs(mcp_home: Path, deb: Host) -> None:
    config = Config(security=SecurityConfig(max_calls_at_once=1))
    async with open_app(mcp_home, config) as app, served(app) as server:
        await trust(app, deb)
        async with server.client(await server.token(Role.ADMIN)) as client:
            on = await opened(client, deb)
            async with on.stream(lines=1) as reader:
                await reader.text("9\n")
                refused = await client.get(PATH, params=on.where)
                assert (refused.status_code, refused.json()["code"]) == (429, "too_many")
            await on.alone()


@pytest.fixture
async def home(mcp_home: Path, host: Host) -> Path:
    async with open_app(mcp_home, Config()) as app:
        await trust(app, host)
    return mcp_home


@pytest.mark.requirement("stream.token", "server.stop")
async def test_a_stopping_server_ends_its_streams_in_time_and_has_logged_no_token(home: Path, host: Host) -> None:
    async with serve(home, "-v") as running:
        on = await opened(running.client, host)
        del running.client.headers["authorization"]
        async with on.stream(token=TOKEN) as reader:
            await reader.next()
            running.process.send_signal(signal.SIGTERM)
            assert await error(reader) == "shutting_down"
        with anyio.fail_after(10):
            await anyio.to_thread.run_sync(running.process.wait)
        await on.alone()
    log = home.with_name(f"{home.name}.log").read_text()
    assert "stopping" in log
    assert TOKEN not in log


@pytest.mark.requirement("stream.slow")
async def test_a_reader_that_takes_nothing_holds_up_the_machine_and_fills_no_memory(home: Path, host: Host) -> None:
    async with serve(home) as running:
        on = await opened(running.client, host)
        async with on.stream(lines=1) as reader:
            await reader.next()
        before = resident_kib(running.process.pid)
        with socket.create_connection(("127.0.0.1", running.client.base_url.port or 0)) as lazy:
            lazy.sendall(
                f"GET {PATH}?session_id={on.session_id}&path={on.log}&lines=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()
            )
            await anyio.to_thread.run_sync(lazy.recv, 1)
            await on.do(f"yes | head -c {MEBIBYTES * 1024 * 1024} >>$log")
            read = [await position(on)]
            with anyio.fail_after(60):
                while not 0 < read[-1] == read[-5 % len(read)] or len(read) < 5:
                    await anyio.sleep(0.2)
                    read.append(await position(on))
            assert read[-1] / 1024**2 < HELD_MIB
            assert (resident_kib(running.process.pid) - before) / 1024 < 40
            # Once the reader takes it, all of it comes; in JSON a line `y` is three bytes instead of two.
            size = MEBIBYTES * 1024**2
            await anyio.to_thread.run_sync(take, lazy, size * 3 // 2)
            with anyio.fail_after(30):
                while await position(on) < size:
                    await anyio.sleep(0.1)
        await on.alone()


def take(reader: socket.socket, size: int) -> None:
    reader.settimeout(60)
    while size > 0:
        taken = len(reader.recv(1024 * 1024))
        assert taken
        size -= taken


async def position(on: On) -> int:
    """Up to where the machine has read the log."""
    script = f"""
for each in /proc/[0-9]*/fd/3; do
    [ "$(readlink $each)" != {on.log} ] || sed -n 's/^pos:[^0-9]*//p' "${{each%/fd/3}}/fdinfo/3" 2>/dev/null
done
true  # who read it may have ended meanwhile
"""
    said = (await outside(on.host, script)).split()
    return max((int(each) for each in said), default=0)
