"""A command that is ended early is really ended: with all it started, for root and for others."""

import functools

import anyio
import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.ssh.connection.connection import Connection
from mcp_ssh.ssh.connection.warm_shells import WarmShell
from mcp_ssh.ssh.wire.kill import StopResult
from mcp_ssh.tools import command, session
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller
from tests.support.machine import SOAK, connected, number, processes, started

ROUNDS = 20 if SOAK else 2

SHAPES = {
    "simple": "sleep {n}",
    "sequence": "sleep {n}; sleep {n}",
    "pipeline": "sleep {n} | cat | sleep {n}",
    "background child": "sleep {n} & wait",
    "child that outlives its shell": "sleep {n} & exit 0",
    "setsid child": "setsid sleep {n}",
    "double fork": "(setsid sh -c 'sleep {n} & sleep {n} &' &); sleep {n}",
    "ignores TERM": "trap '' TERM; while :; do sleep {n}; done",
    "stopped": "sh -c 'kill -STOP $$; sleep {n}' & kill -STOP $$; wait",
    "never execs": "sleep {n} & (while :; do :; done) & while :; do :; done",
}


WAYS = [("root", "warm"), ("dev", "plain"), *([("root", "plain"), ("dev", "warm")] if SOAK else [])]


@pytest.fixture(params=WAYS, ids="-".join)
async def on(request: pytest.FixtureRequest, app: App, host: Host) -> "On":
    who = DirectCall(caller())
    user, way = request.param
    return On(app, host, who, await connected(app, host, user, who), exact=way == "plain")


class On:
    """A session, and the two ways to end a command on it."""

    def __init__(self, app: App, host: Host, who: DirectCall, session_id: str, *, exact: bool = False) -> None:
        self.app, self.host, self.who, self.session_id, self.exact = app, host, who, session_id, exact
        self.used: list[WarmShell] = []

    async def warm(self) -> None:
        """Have as many shells wait as may, unless commands shall do without."""
        spares = self.app.sessions.find(self.who.caller, self.session_id).link.spares
        with anyio.fail_after(10):
            while not self.exact and len(spares.ready) < 4:
                await self.exec("true")
        self.used = list(spares.ready)

    async def left(self) -> list[str]:
        """What is left of the shells that waited: a child that never execs shows their command line."""
        return [line for each in self.used for line in await processes(self.host, each.cookie)]

    async def exec(self, text: str, timeout: float = 30) -> command.CommandExecResult:
        arguments = {"session_id": self.session_id, "command": text, "timeout": timeout, "exact": self.exact}
        return await dispatch(self.app, command.run_command, arguments, self.who)

    async def time_out(self, shape: str) -> None:
        n = number()
        result = await self.exec(SHAPES[shape].format(n=n), timeout=0.4)
        assert (result.status, result.exit_code, result.stopped) == ("timed_out", None, True), shape
        assert await processes(self.host, n) == [], shape

    async def cancel(self, shape: str) -> None:
        n = number()
        async with anyio.create_task_group() as group:
            group.start_soon(functools.partial(self.exec, SHAPES[shape].format(n=n)))
            await started(self.host, n)
            group.cancel_scope.cancel()
        assert await processes(self.host, n) == [], shape


@pytest.mark.requirement("exec.timeout.kills", "exec.timeout.result")
async def test_nothing_survives_a_timeout(on: On) -> None:
    for _ in range(ROUNDS):
        for some in (list(SHAPES)[:5], list(SHAPES)[5:]):
            await on.warm()
            async with anyio.create_task_group() as group:
                for shape in some:
                    group.start_soon(on.time_out, shape)
            assert await on.left() == []
    assert (await on.exec("echo usable")).stdout == "usable\n"


@pytest.mark.requirement("exec.cancel.kills")
async def test_nothing_survives_a_cancelled_call(on: On) -> None:
    for _ in range(ROUNDS):
        for some in (list(SHAPES)[:5], list(SHAPES)[5:]):
            await on.warm()
            async with anyio.create_task_group() as group:
                for shape in some:
                    group.start_soon(on.cancel, shape)
            assert await on.left() == []
    assert (await on.exec("echo usable")).stdout == "usable\n"


async def test_without_the_sweep_everything_survives(on: On, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: it is the sweep that ends processes, and the look from outside that sees those that live."""

    async def nothing(*_: object, **__: object) -> StopResult:
        return StopResult(ended=None)

    monkeypatch.setattr(Connection, "stop", nothing)
    n = number()
    await on.warm()
    result = await on.exec(SHAPES["setsid child"].format(n=n), timeout=0.3)
    assert result.stopped == "unknown"
    assert await processes(on.host, n)
    await anyio.to_thread.run_sync(lambda: on.host.ssh(f"pkill -KILL -f '[s]leep {n}'"))


@pytest.mark.requirement("exec.timeout.kills")
@pytest.mark.soak
async def test_a_machine_with_thousands_of_processes_ends_a_call_as_well(on: On) -> None:
    crowd = "exec 2>&1 </dev/null >/dev/null; i=0; while [ $i -lt 3000 ]; do sleep 4712 & i=$((i + 1)); done; wait"
    count = "ls -d /proc/[0-9]* | wc -l"
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, functools.partial(on.host.ssh, crowd, timeout=300))
        many = f"until [ $({count}) -gt 3000 ]; do sleep 0.2; done"
        await anyio.to_thread.run_sync(functools.partial(on.host.console, ["sh", "-c", many], timeout=120))
        for shape in ("simple", "ignores TERM", "double fork"):
            await on.time_out(shape)
        left = await anyio.to_thread.run_sync(functools.partial(on.host.console, ["sh", "-c", f"{count}; pkill sleep"]))
        assert int(left.stdout) > 3000


@pytest.mark.requirement("exec.timeout.channels")
async def test_fifty_ended_commands_leave_the_connection_whole(on: On) -> None:
    async def short() -> None:
        assert (await on.exec("sleep 60", timeout=0.2)).stopped is True

    for _ in range(10):
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(short)
    results: list[str] = []

    async def echo(word: int) -> None:
        results.append((await on.exec(f"sleep 0.2; echo {word}")).stdout)

    # sshd gives a connection ten channels (MaxSessions): three leaked ones would keep eight commands from running.
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for word in range(8):
                group.start_soon(echo, word)
    assert sorted(results) == sorted(f"{word}\n" for word in range(8))


@pytest.mark.requirement("exec.timeout.output")
async def test_what_a_command_said_before_its_deadline_is_kept(on: On) -> None:
    result = await on.exec("echo early; echo oops >&2; sleep 60", timeout=1.5)
    assert (result.stdout, result.stderr, result.status) == ("early\n", "oops\n", "timed_out")


async def test_a_child_of_root_is_ended_through_passwordless_sudo(app: App, host: Host) -> None:
    who = DirectCall(caller())
    on = On(app, host, who, await connected(app, host, "nopass", who))
    n = number()
    result = await on.exec(f"sudo -n sleep {n}", timeout=0.8)
    assert result.stopped is True
    assert await processes(host, n) == []


async def test_a_child_of_root_that_cannot_be_ended_is_named(app: App, host: Host) -> None:
    who = DirectCall(caller())
    on = On(app, host, who, await connected(app, host, "ops", who))
    n = number()
    # sudo passes TERM on to its child; this one does not heed it, and nobody but root may do more.
    stubborn = f"trap '' TERM; while :; do sleep {n}; done"
    result = await on.exec(f"echo '{host.password}' | sudo -S -p '' sh -c \"{stubborn}\"", timeout=1.0)
    assert result.stopped is False
    living = {int(line.split()[0]) for line in await processes(host, n)}
    assert living & set(result.survivors or [])
    await anyio.to_thread.run_sync(lambda: host.console(["kill", "-KILL", *map(str, living)]))


async def test_a_cut_link_ends_the_call_and_says_that_nobody_knows(app: App, deb: Host) -> None:
    who = DirectCall(caller())
    on = On(app, deb, who, await connected(app, deb, "root", who))
    assert (await on.exec("echo here")).stdout == "here\n"
    await on.warm()
    await anyio.to_thread.run_sync(deb.cut)
    with anyio.fail_after(12):
        result = await on.exec("sleep 60", timeout=1.0)
    assert (result.status, result.stopped) == ("timed_out", "unknown")


async def test_closing_a_session_ends_what_runs_on_it(on: On) -> None:
    n = number()
    await on.warm()
    ends: list[str] = []

    async def run() -> None:
        try:
            await on.exec(f"sleep {n}")
        except Exception as error:  # noqa: BLE001 whatever it is, it is looked at below
            ends.append(type(error).__name__)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await started(on.host, n)
        await dispatch(on.app, session.disconnect, {"session_id": on.session_id}, on.who)
    assert ends == ["Conflict"]
    assert await processes(on.host, n) == []
