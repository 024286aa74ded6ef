"""What goes wrong with machines and links: every call ends within its deadline, and what it says of its end is true."""

import contextlib
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config, SshConfig
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import ToolError
from mcp_ssh.ssh.connection.connection import Connection
from mcp_ssh.tools import command, session
from mcp_ssh.tools.file import content
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller
from tests.support.machine import SOAK, connected, in_thread, login, number, processes, started, trust
from tests.support.servers import Http, serve
from tests.support.ssh_home import know

ROUNDS = 20 if SOAK else 2
CLEAN_UP_S = 15.0
"""What a call may take beyond its own timeout, as `CommandExecParams.time_limit_s` promises."""

WHO = DirectCall(caller())
LENGTHS = {"brief": "0.0", "short": "0.", "endless": ""}
"""What is put before a number of its own to make the seconds that a command sleeps."""


class Told:
    """A command that leaves a trace where it began and where it ended, and what its call said of it."""

    def __init__(self, app: App, host: Host, session_id: str, length: str, timeout_s: float = 20.0) -> None:
        self.app, self.host, self.session_id, self.timeout_s = app, host, session_id, timeout_s
        self.number = number()
        self.sleep = f"sleep {LENGTHS[length]}{self.number}"
        self.trace = f"/var/tmp/fault-{self.number}"
        self.text = f"echo began >>{self.trace}; {self.sleep}; echo ended >>{self.trace}; echo out"
        self.end = "none"
        self.stopped: Any = None

    async def run(self) -> None:
        arguments = {"session_id": self.session_id, "command": self.text, "timeout": self.timeout_s}
        with anyio.fail_after(self.timeout_s + CLEAN_UP_S):
            try:
                result = await dispatch(self.app, command.run_command, arguments, WHO)
            except ToolError as error:
                self.end = error.code
            else:
                self.end, self.stopped = result.status, result.stopped
                assert (result.stdout == "out\n") == (result.status == "completed")

    async def started(self) -> None:
        with anyio.fail_after(20):
            while (await in_thread(self.host.console, ["test", "-e", self.trace])).returncode:
                await anyio.sleep(0.02)

    async def is_true(self) -> None:
        """Compare what the call said with what the machine's console shows."""
        ask = ["sh", "-c", f"cat {self.trace}; rm -f {self.trace}"]
        lines = (await in_thread(self.host.console, ask)).stdout.split()
        assert lines.count("began") <= 1, "it ran twice"
        if self.end == "completed":
            assert lines == ["began", "ended"]
        if self.stopped is True:
            assert "ended" not in lines
            assert await processes(self.host, self.number) == []

    async def tidy_up(self) -> None:
        """End on the console what nobody else could end."""
        await in_thread(self.host.console, ["pkill", "-KILL", "-f", f"[s]{self.sleep[1:]}"])


@contextlib.asynccontextmanager
async def running(*commands: Told) -> AsyncGenerator[None]:
    """Commands that run while something happens to the machine; at the end all have ended, and have told the truth."""
    async with anyio.create_task_group() as group:
        for each in commands:
            group.start_soon(each.run)
        for each in commands:
            await each.started()
        yield
    for each in commands:
        await each.is_true()


async def works(app: App, host: Host) -> str:
    """A new session does what it is asked."""
    session_id = await connected(app, host, "dev", WHO)
    arguments = {"session_id": session_id, "command": "echo well", "timeout": 20}
    assert (await dispatch(app, command.run_command, arguments, WHO)).stdout == "well\n"
    return session_id


@pytest.fixture
async def watchful(mcp_home: Path) -> AsyncGenerator[App]:
    """An app that finds dead links within seconds."""
    async with open_app(mcp_home, Config(ssh=SshConfig(keepalive_interval=1, max_concurrent_connections=100))) as app:
        yield app


@pytest.mark.requirement("faults.link")
async def test_calls_outlast_a_link_that_is_cut_for_a_moment(app: App, deb: Host) -> None:
    session_id = await works(app, deb)
    for _ in range(ROUNDS):
        lasting = Told(app, deb, session_id, "short")
        ended = Told(app, deb, session_id, "endless", timeout_s=0.7)
        async with running(lasting, ended):
            await in_thread(deb.cut)
            await anyio.sleep(0.8)  # past the deadline of one of them
            await in_thread(deb.restore)
        assert (lasting.end, ended.end, ended.stopped) == ("completed", "timed_out", True)


async def test_the_look_from_outside_sees_a_false_word(app: App, deb: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a call that claims what did not happen is found out."""
    from mcp_ssh.ssh.wire.kill import StopResult

    async def claimed(*_: object, **__: object) -> StopResult:
        return StopResult(ended=True)

    monkeypatch.setattr(Connection, "stop", claimed)
    told = Told(app, deb, await works(app, deb), "endless", timeout_s=0.5)
    with pytest.raises(AssertionError):
        async with running(told):
            pass
    await told.tidy_up()


@pytest.mark.requirement("faults.link")
async def test_calls_end_when_the_link_stays_cut_and_the_machine_is_reached_again_after(
    watchful: App, deb: Host
) -> None:
    for _ in range(ROUNDS if SOAK else 1):
        session_id = await works(watchful, deb)
        waiting = Told(watchful, deb, session_id, "endless", timeout_s=50)
        async with running(waiting):
            await in_thread(deb.cut)
            with anyio.fail_after(30), pytest.raises(ToolError) as error:
                await dispatch(watchful, content.read, {"session_id": session_id, "path": "/etc/hosts"}, WHO)
        assert (waiting.end, error.value.code) == ("connect_failed", "connect_failed")
        assert (await dispatch(watchful, session.status, {"session_id": session_id}, WHO)).connected is False
        await in_thread(deb.restore)
        await waiting.tidy_up()


# systemd counts restarts, and after a few in a row refuses the next.
RESTART = {"deb": "systemctl reset-failed ssh; systemctl restart ssh", "alpine": "rc-service sshd restart"}
START = {
    "deb": "until systemctl restart ssh; do systemctl reset-failed ssh; sleep 0.1; done",
    "alpine": "until /usr/sbin/sshd; do sleep 0.1; done",
}


@pytest.mark.requirement("faults.sshd")
async def test_commands_outlast_a_restart_of_sshd_and_end_with_their_connection(app: App, host: Host) -> None:
    session_id = await works(app, host)
    for _ in range(ROUNDS):
        lasting = Told(app, host, session_id, "short")
        async with running(lasting):
            done = await in_thread(host.console, ["sh", "-c", RESTART[host.name]])
            assert done.returncode == 0, done.stderr
        assert lasting.end == "completed"
        lost = Told(app, host, session_id, "endless")
        async with running(lost):
            await in_thread(host.console, ["pkill", "-KILL", "-f", "[s]shd"])
            done = await in_thread(host.console, ["sh", "-c", START[host.name]])
            assert done.returncode == 0, done
        assert lost.end == "connect_failed"
        await lost.tidy_up()
        session_id = await works(app, host)


@pytest.mark.requirement("faults.reboot")
async def test_calls_end_with_the_machine_and_it_is_reached_again_after(watchful: App, host: Host) -> None:
    for _ in range(ROUNDS if SOAK else 1):
        session_id = await works(watchful, host)
        told = [Told(watchful, host, session_id, "endless") for _ in range(3)]
        async with running(*told):
            await in_thread(host.reboot)
        assert {each.end for each in told} == {"connect_failed"}
        with pytest.raises(ToolError) as error:
            await dispatch(watchful, command.run_command, {"session_id": session_id, "command": "true"}, WHO)
        assert error.value.code == "connect_failed"
        await works(watchful, host)


async def cut_off(server: Http, session_id: str, text: str) -> None:
    """A call whose server dies under it: its client hears so at once."""
    with anyio.fail_after(10), pytest.raises(httpx2.TransportError):
        await server.client.post("/command/exec", params={"session_id": session_id}, json={"command": text})


@pytest.mark.requirement("faults.killed_server")
async def test_a_killed_server_is_followed_by_one_that_knows_what_it_must(mcp_home: Path, deb: Host) -> None:
    async with open_app(mcp_home, Config()) as app:
        await trust(app, deb)
    ids: set[str] = set()
    for _ in range(ROUNDS):
        async with serve(mcp_home) as server:
            assert (await server.call("GET", "/session/list"))["sessions"] == {}
            session_id = (await server.call("POST", "/session/connect", json=login(deb, "dev")))["session_id"]
            assert session_id not in ids
            ids.add(session_id)
            where = {"session_id": session_id}
            assert (await server.call("GET", "/command/run", params={**where, "cmd": "echo well"}))[
                "stdout"
            ] == "well\n"
            n = number()
            async with anyio.create_task_group() as group:
                group.start_soon(cut_off, server, session_id, f"sleep {n}")
                await started(deb, n)
                server.process.kill()
        await in_thread(deb.console, ["pkill", "-KILL", "-f", f"[s]leep {n}"])


def on(host: Host, server: str) -> dict[str, Any]:
    return {"host": host.ip, "port": host.ports[server], "username": "dev", "key_path": str(host.key_path)}


@pytest.mark.requirement("faults.max_sessions")
async def test_commands_share_a_connection_that_takes_two_at_a_time(app: App, auth: Host) -> None:
    know(auth)
    session_id = (await dispatch(app, session.connect, on(auth, "two_sessions"), WHO)).session_id
    for _ in range(ROUNDS):
        all_told = [Told(app, auth, session_id, "brief") for _ in range(6)]
        ended = Told(app, auth, session_id, "endless", timeout_s=0.6)
        async with anyio.create_task_group() as group:
            for each in (ended, *all_told):
                group.start_soon(each.run)
        for each in (ended, *all_told):
            await each.is_true()
        assert [each.end for each in all_told] == ["completed"] * 6
        assert ended.end == "timed_out"


@pytest.mark.requirement("faults.max_startups")
async def test_a_login_ends_where_a_server_takes_no_more_of_them(app: App, auth: Host) -> None:
    know(auth)
    for _ in range(ROUNDS):
        held = [socket.create_connection((auth.ip, auth.ports["limits"])) for _ in range(2)]
        try:
            for each in held:
                each.settimeout(10)
                assert await in_thread(each.recv, 8)
            wish = {**on(auth, "limits"), "retries": 3, "retry_delay": 0.1, "timeout": 5}
            with anyio.fail_after(5 + CLEAN_UP_S), pytest.raises(ToolError) as error:
                await dispatch(app, session.connect, wish, WHO)
            assert error.value.code == "connect_failed"
            assert error.value.hint
        finally:
            for each in held:
                each.close()
        opened = await dispatch(app, session.connect, {**on(auth, "limits"), "retries": 5, "retry_delay": 0.2}, WHO)
        await dispatch(app, session.disconnect, {"session_id": opened.session_id}, WHO)
