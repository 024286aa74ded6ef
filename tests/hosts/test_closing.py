"""Closing what hangs: on dead links everything ends side by side, within one bound for all."""

import contextlib
import gc
import tracemalloc
from collections.abc import Generator

import anyio
import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.sessions import registry
from mcp_ssh.tools import session, shell, tunnel
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller
from tests.support.machine import connected, in_thread

TUNNELS = 20
USERS = ("root", "ops", "nopass", "dev", "dash", "noisy")
ALL_WITHIN_S = 10.0
"""Each closing takes 4 s on a dead link: 2 for its tunnels, 2 for its connection."""


@contextlib.contextmanager
def within_the_bound() -> Generator[None]:
    """Fail if the block takes longer; what closes is shielded, so a deadline could not cut it short."""
    began = anyio.current_time()
    yield
    assert anyio.current_time() - began < ALL_WITHIN_S


async def listening(app: App, session_id: str, who: DirectCall, count: int) -> None:
    """Have the machine listen on so many ports for us."""
    wanted = {"session_id": session_id, "remote_port": 0, "local_host": "127.0.0.1", "local_port": 1}
    for _ in range(count):
        await dispatch(app, tunnel.remote, wanted, who)


@pytest.mark.requirement("fault.C9.scrollback")
async def test_lost_sessions_keep_the_end_of_what_their_shells_printed_and_no_more(app: App, deb: Host) -> None:
    who = DirectCall(caller())
    await connected(app, deb, "root", who)  # what is loaded once does not count
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for user in USERS[1:4]:
            on = {"session_id": await connected(app, deb, user, who)}
            live = app.sessions.find(who.caller, on["session_id"])
            text = "seq 1 330000; echo las''t words"
            await dispatch(app, shell.run_in_shell, {**on, "command": text, "timeout": 60}, who)
            await in_thread(deb.console, ["pkill", "-KILL", "-u", user, "sshd"])
            with anyio.fail_after(10):
                await live.link.connection.wait_closed()
            read = await dispatch(app, shell.read, {**on, "offset": -1000}, who)
            assert "last words" in str(read)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 3 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.requirement("fault.C8")
async def test_twenty_tunnels_on_a_dead_link_close_within_one_bound(app: App, deb: Host) -> None:
    who = DirectCall(caller())
    session_id = await connected(app, deb, "dev", who)
    await listening(app, session_id, who, TUNNELS)
    await in_thread(deb.cut)
    with within_the_bound():
        await dispatch(app, session.disconnect, {"session_id": session_id}, who)


@pytest.mark.requirement("fault.C8")
async def test_a_server_that_stops_closes_tunnels_on_dead_links_within_one_bound(app: App, deb: Host) -> None:
    who = DirectCall(caller())
    for user in USERS[:3]:
        await listening(app, await connected(app, deb, user, who), who, 8)
    await in_thread(deb.cut)
    with within_the_bound():
        await app.sessions.close_all()


@pytest.mark.requirement("fault.C8")
async def test_sessions_of_a_revoked_token_close_side_by_side(
    app: App, deb: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = DirectCall(caller("token", owner=False))
    for user in USERS:
        await listening(app, await connected(app, deb, user, who), who, 2)
    await in_thread(deb.cut)
    monkeypatch.setattr(registry, "LOOK_S", 0.01)

    async def nobody() -> set[str]:
        return set()

    with within_the_bound():
        async with anyio.create_task_group() as group:
            group.start_soon(app.sessions.tend, nobody)
            while app.sessions.seen_by(who.caller):
                await anyio.sleep(0.05)
            group.cancel_scope.cancel()
