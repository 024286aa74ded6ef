"""Channels in number and order, on machines that give few."""

import functools
from typing import Any

import anyio
import anyio.to_thread
import asyncssh
import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import AuthFailed, ConnectFailed, HostKeyUnconfirmed, ToolError
from mcp_ssh.sessions.session import Session
from mcp_ssh.ssh.connection import connection as link
from mcp_ssh.tool import Role
from mcp_ssh.tools import command, session
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller
from tests.support.machine import SOAK, connected, login, number, processes, trust
from tests.support.sshd import more_sshd


async def opened(app: App, who: DirectCall, arguments: dict[str, Any]) -> Session:
    session_id = (await dispatch(app, session.connect, arguments, who)).session_id
    return app.sessions.find(who.caller, session_id)


async def run(app: App, who: DirectCall, text: str, **more: Any) -> Any:
    return await dispatch(app, command.run_command, {"command": text, **more}, who)


async def all_run(app: App, who: DirectCall, count: int, text: str) -> tuple[list[str], list[ToolError]]:
    heard: list[str] = []
    refused: list[ToolError] = []

    async def one(index: int) -> None:
        try:
            heard.append((await run(app, who, f"{text}; echo {index}", timeout=60)).stdout.strip())
        except ToolError as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        for index in range(count):
            group.start_soon(one, index)
    return heard, refused


@pytest.mark.requirement("speed.limiter")
@pytest.mark.parametrize("most", [1, 2])
async def test_a_machine_that_gives_few_channels_refuses_no_call_and_its_calls_are_ended(
    app: App, owner: DirectCall, deb: Host, most: int
) -> None:
    async with more_sshd(deb, app, most) as arguments:
        where = await opened(app, owner, arguments)
        heard, refused = await all_run(app, owner, 20, "sleep 0.05")
        assert (sorted(map(int, heard)), refused) == (list(range(20)), [])
        assert where.link._strands[0].limit == most
        mark = number()
        ended = await run(app, owner, f"sleep {mark}", timeout=0.3)
        assert (ended.status, ended.stopped) == ("timed_out", True)
        assert await processes(deb, mark) == []


@pytest.mark.requirement("speed.limiter")
async def test_calls_that_wait_are_told_at_once_that_the_connection_is_lost(
    app: App, owner: DirectCall, deb: Host
) -> None:
    async with more_sshd(deb, app, 2) as arguments:
        where = await opened(app, owner, arguments)
        where.link._widens = False
        heard = list[tuple[list[str], list[ToolError]]]()

        async def many() -> None:
            heard.append(await all_run(app, owner, 12, "sleep 60"))

        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(many)
                while len(where.link._turns) < 2:
                    await anyio.sleep(0.02)
                where.link.connection.abort()
    [(said, refused)] = heard
    assert (said, [type(each) for each in refused]) == ([], [ConnectFailed] * 12)


@pytest.mark.requirement("speed.limiter")
async def test_without_the_limiter_most_of_them_are_refused(deb: Host) -> None:
    """The negative control: asyncssh alone on the same kind of connection."""
    connection = await asyncssh.connect(
        deb.ip, username="dev", client_keys=[str(deb.key_path)], known_hosts=None, config=None, agent_path=None
    )
    refused: list[asyncssh.ChannelOpenError] = []

    async def one() -> None:
        try:
            await connection.run("sleep 0.2")
        except asyncssh.ChannelOpenError as error:
            refused.append(error)

    async with connection, anyio.create_task_group() as group:
        for _ in range(30):
            group.start_soon(one)
    assert len(refused) == 20
    assert {error.code for error in refused} <= link.FULL


@pytest.mark.requirement("speed.limiter")
async def test_of_many_calls_at_once_none_is_refused(app: App, owner: DirectCall, host: Host) -> None:
    await connected(app, host, "dev", owner)
    for _ in range(8 if SOAK else 2):
        heard, refused = await all_run(app, owner, 50, "true")
        assert (sorted(map(int, heard)), refused) == (list(range(50)), [])


@pytest.mark.requirement("speed.widening")
async def test_a_call_that_waits_long_gets_another_connection_which_goes_when_nobody_needs_it(
    app: App, owner: DirectCall, deb: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "WIDEN_AFTER_S", 0.05)
    await connected(app, deb, "dev", owner)
    where = app.sessions.find(owner.caller, None)
    first = (await run(app, owner, "echo $SSH_CONNECTION")).stdout
    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(functools.partial(run, app, owner, "sleep 60"))
        while where.link._strands[0].open < 8:
            await anyio.sleep(0.01)
        beside = (await run(app, owner, "echo $SSH_CONNECTION", timeout=20)).stdout
        group.cancel_scope.cancel()
    assert beside.split()[1] != first.split()[1]
    assert len(where.link._strands) == 1
    assert (await run(app, owner, "echo $SSH_CONNECTION")).stdout == first


@pytest.mark.requirement("speed.widening")
async def test_many_calls_that_wait_get_one_connection_after_the_other(
    app: App, owner: DirectCall, deb: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "WIDEN_AFTER_S", 0.05)
    await connected(app, deb, "dev", owner)
    where = app.sessions.find(owner.caller, None)
    async with anyio.create_task_group() as group:
        for _ in range(24):
            group.start_soon(functools.partial(run, app, owner, "sleep 60"))
        with anyio.fail_after(20):
            while sum(strand.open for strand in where.link._strands) < 24:
                await anyio.sleep(0.01)
        assert len(where.link._strands) == link.MOST_STRANDS
        group.cancel_scope.cancel()


@pytest.mark.requirement("fault.C2")
async def test_a_command_that_was_never_sent_says_that_it_did_not_run(
    app: App, owner: DirectCall, deb: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control is in it: one that was sent, and ended at its time limit, does not say so."""
    monkeypatch.setattr(link, "WIDEN_AFTER_S", 60.0)
    await connected(app, deb, "dev", owner)
    where = app.sessions.find(owner.caller, None)
    assert (await run(app, owner, "sleep 60", timeout=0.5)).ran is None
    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(functools.partial(run, app, owner, "sleep 60"))
        while where.link._strands[0].open < 8:
            await anyio.sleep(0.01)
        late = await run(app, owner, "touch /tmp/never", timeout=0.5)
        group.cancel_scope.cancel()
    assert (late.status, late.ran, late.stopped) == ("timed_out", False, True)
    assert (await run(app, owner, "ls /tmp/never")).exit_code == 2


@pytest.mark.requirement("speed.widening")
async def test_where_logging_in_again_would_ask_somebody_calls_wait_instead(
    app: App, owner: DirectCall, deb: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "WIDEN_AFTER_S", 0.0)
    await trust(app, deb)
    code = {"host": deb.ip, "username": "dev", "interactive_answers": [deb.password]}
    where = await opened(app, owner, code)
    heard, refused = await all_run(app, owner, 10, "sleep 0.1; echo $SSH_CONNECTION")
    assert refused == []
    assert len({line.split()[1] for line in heard}) == 1
    assert len(where.link._strands) == 1


# ---- one link for sessions of one caller -------------------------------------------------------------------------


async def way_of(app: App, who: DirectCall, session_id: str) -> str:
    return (await run(app, who, "echo $SSH_CONNECTION", session_id=session_id)).stdout


@pytest.mark.requirement("speed.shared")
async def test_sessions_that_log_in_alike_go_over_one_connection_which_ends_with_the_last(
    app: App, owner: DirectCall, host: Host
) -> None:
    one = await connected(app, host, "dev", owner)
    other = await connected(app, host, "dev", owner)
    assert one != other
    assert await way_of(app, owner, one) == await way_of(app, owner, other)
    shared = app.sessions.find(owner.caller, one).link
    await dispatch(app, session.disconnect, {"session_id": one}, owner)
    assert await way_of(app, owner, other)
    await dispatch(app, session.disconnect, {"session_id": other}, owner)
    assert shared.connection.is_closed()
    assert app.links._standing == {}


@pytest.mark.requirement("speed.shared")
async def test_a_session_that_two_end_at_once_takes_no_other_session_with_it(
    app: App, owner: DirectCall, deb: Host
) -> None:
    """As when somebody disconnects while it is ended for being idle."""
    one, other = [await connected(app, deb, "dev", owner) for _ in range(2)]
    ending = app.sessions.find(owner.caller, one)
    async with anyio.create_task_group() as group:
        group.start_soon(app.sessions.close, ending)
        group.start_soon(app.sessions.close, ending)
    assert await way_of(app, owner, other)


@pytest.mark.requirement("speed.shared")
async def test_nothing_is_shared_with_another_caller_account_or_secret(app: App, owner: DirectCall, deb: Host) -> None:
    by_key = await connected(app, deb, "dev", owner)
    boss = DirectCall(caller("boss", Role.ADMIN))
    password = {"host": deb.ip, "username": "dev", "password": deb.password}
    ways = {
        await way_of(app, owner, by_key),
        await way_of(app, boss, await connected(app, deb, "dev", boss)),
        await way_of(app, owner, await connected(app, deb, "ops", owner)),
        await way_of(app, owner, (await dispatch(app, session.connect, password, owner)).session_id),
    }
    assert len(ways) == 4
    with pytest.raises(AuthFailed):
        await dispatch(app, session.connect, {**password, "password": "not-it"}, owner)


@pytest.mark.requirement("speed.shared")
async def test_a_key_that_is_no_longer_trusted_is_not_shared_past(app: App, owner: DirectCall, deb: Host) -> None:
    await connected(app, deb, "dev", owner)
    for key_type in ("ssh-ed25519", "ecdsa-sha2-nistp256"):
        await app.hostkeys.remove(deb.ip, deb.port, key_type)
    with pytest.raises(HostKeyUnconfirmed):
        await dispatch(app, session.connect, login(deb, "dev"), owner)


@pytest.mark.requirement("speed.shared")
async def test_connecting_again_gets_past_a_dead_link(
    app: App, owner: DirectCall, deb: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "ANSWER_LIMIT_S", 0.3)
    one = await connected(app, deb, "dev", owner)
    before = await way_of(app, owner, one)
    mark = number()
    # The machine's side hangs: the connection stands, and nobody answers on it.
    async with anyio.create_task_group() as group:
        group.start_soon(functools.partial(run, app, owner, f"kill -STOP $PPID; sleep {mark}", session_id=one))
        while not await processes(deb, mark):
            await anyio.sleep(0.02)
        other = await connected(app, deb, "dev", owner)
        assert await way_of(app, owner, other) != before
        await run(app, owner, "pkill -CONT -u dev sshd", session_id=other)
        group.cancel_scope.cancel()


@pytest.mark.requirement("speed.shared")
async def test_sessions_that_are_opened_at_once_log_in_once(app: App, owner: DirectCall, deb: Host) -> None:
    await trust(app, deb)
    opened_ones: list[str] = []

    async def one() -> None:
        opened_ones.append((await dispatch(app, session.connect, login(deb, "dev"), owner)).session_id)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(one)
    assert len({await way_of(app, owner, each) for each in opened_ones}) == 1
    assert len(set(opened_ones)) == 5
    assert app.links._turns == {}
