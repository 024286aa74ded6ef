"""Saved connections on real hosts: the name is all another tool needs."""

import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import NotFound
from mcp_ssh.tool import Caller, Role
from mcp_ssh.tools import command, connection, session
from tests.fleet.hosts import Fleet, Host
from tests.support.doors import DirectCall, open_way
from tests.support.machine import outside, trust


def saved(host: Host, name: str, **how: object) -> dict[str, object]:
    return {"name": name, "host": host.ip, "port": host.port, "username": "ops", **how}


@pytest.mark.requirement("connection.connects")
@pytest.mark.parametrize("door", ["direct", "mcp"])
async def test_a_saved_name_connects_on_first_use_and_is_one_session_after(app: App, host: Host, door: str) -> None:
    await trust(app, host)
    async with open_way(door, app) as way:
        await way.call(connection.add, saved(host, "web1", password=host.password))
        assert (await way.call(session.list_sessions, {}))["sessions"] == {}
        for _ in range(2):
            answer = await way.call(command.run_command, {"session_id": "web1", "command": "hostname; id -un"})
            assert answer["stdout"] == f"{(await outside(host, 'hostname')).strip()}\nops\n"
        [listed] = (await way.call(session.list_sessions, {}))["sessions"].values()
        assert (listed["host"], listed["username"]) == (host.ip, "ops")
        assert (await way.call(connection.info, {"connection": "web1"}))["secrets"] == ["password"]


@pytest.mark.requirement("connection.connects")
async def test_a_saved_key_logs_in_after_a_restart_of_the_server(app: App, deb: Host, owner: DirectCall) -> None:
    await trust(app, deb)
    await dispatch(app, connection.add, saved(deb, "deb", key_content=deb.key_path.read_text()), owner)
    async with open_app(app.home, Config()) as later:
        done = await dispatch(later, command.run_command, {"session_id": "deb", "command": "id -un"}, owner)
        assert done.stdout == "ops\n"
        again = await later.store.connections.find(owner.caller, "deb")
        assert again.last_used_at is not None


@pytest.mark.requirement("connection.connects")
async def test_a_name_means_the_machine_it_was_saved_for_last(app: App, fleet: Fleet, owner: DirectCall) -> None:
    for host in (fleet.deb, fleet.alpine):
        await trust(app, host)
        await dispatch(app, connection.add, saved(host, "it", password=host.password, replace=True), owner)
        done = await dispatch(app, command.run_command, {"session_id": "it", "command": "hostname"}, owner)
        assert done.stdout == await outside(host, "hostname")
    await dispatch(app, connection.remove, {"connection": "it"}, owner)
    with pytest.raises(NotFound):
        await dispatch(app, command.run_command, {"session_id": "it", "command": "hostname"}, owner)


@pytest.mark.requirement("connection.owner")
async def test_another_caller_does_not_connect_through_it(app: App, deb: Host) -> None:
    await trust(app, deb)
    anna, bert = DirectCall(Caller("anna", Role.OPERATOR)), DirectCall(Caller("bert", Role.OPERATOR))
    await dispatch(app, connection.add, saved(deb, "annas", password=deb.password), anna)
    run = {"session_id": "annas", "command": "id -un"}
    assert (await dispatch(app, command.run_command, run, anna)).stdout == "ops\n"
    with pytest.raises(NotFound):
        await dispatch(app, command.run_command, run, bert)
