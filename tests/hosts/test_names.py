"""What a name means to a caller: its own connection or session, then the owner's alias, and never another caller's."""

from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.cli.local_call import TerminalCall
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import Conflict, InvalidInput, NotFound
from mcp_ssh.tool import Caller, Role, TransportName
from mcp_ssh.tools import command, connection, file, session, system
from tests.fleet.hosts import Fleet, Host
from tests.support.doors import DirectCall, caller, open_way
from tests.support.machine import connected, login, outside, trust

OPERATOR = DirectCall(Caller("mallory", Role.OPERATOR))
ADMIN = DirectCall(Caller("admin", Role.ADMIN))


@pytest.fixture
async def both(app: App, fleet: Fleet) -> tuple[Host, Host]:
    await trust(app, fleet.deb)
    await trust(app, fleet.alpine)
    return fleet.deb, fleet.alpine


def alias(name: str, host: Host) -> None:
    """Add an alias of the server's owner for the machine."""
    ssh = Path.home() / ".ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    with (ssh / "config").open("a") as file:
        file.write(f"Host {name}\n HostName {host.ip}\n User dev\n IdentityFile {host.key_path}\n")
    (ssh / "config").chmod(0o600)


def saved(name: str, host: Host, user: str = "ops") -> dict[str, Any]:
    return {"name": name, "host": host.ip, "username": user, "password": host.password}


async def hostname(app: App, name: str, who: Any) -> str:
    return (await dispatch(app, command.run_command, {"session_id": name, "command": "hostname"}, who)).stdout


@pytest.mark.requirement("fault.S1")
async def test_a_name_that_another_caller_saved_leads_nobody_else_to_its_machine(
    app: App, both: tuple[Host, Host], tmp_path: Path
) -> None:
    """The operator saves the name before the owner has the alias, so that nothing refuses it."""
    real, rogue = both
    made = await dispatch(app, connection.add, saved("prod-db", rogue), OPERATOR)
    names = {each.name: await outside(each, "hostname") for each in both}
    alias("prod-db", real)
    for who in (DirectCall(caller()), TerminalCall(), ADMIN):
        assert await hostname(app, "prod-db", who) == names[real.name], who
    source = tmp_path / "report"
    source.write_text("the owner's")
    upload = {"session_id": "prod-db", "local_path": str(source), "remote_path": "/home/dev/report-of-names"}
    await dispatch(app, file.upload, upload, DirectCall(caller()))
    assert await outside(real, "cat /home/dev/report-of-names && rm /home/dev/report-of-names") == "the owner's"
    # The neighbour: to the operator the name means what it saved, and an admin reaches that by its uuid.
    assert await hostname(app, "prod-db", OPERATOR) == names[rogue.name]
    assert await hostname(app, made.uuid, ADMIN) == names[rogue.name]
    listed = await dispatch(app, connection.query, {}, ADMIN)
    assert [each.name for each in listed.connections] == ["prod-db"]


@pytest.mark.requirement("fault.S1")
async def test_an_alias_of_the_owner_cannot_be_saved_as_a_name_by_others(app: App, both: tuple[Host, Host]) -> None:
    real, rogue = both
    alias("prod-db", real)
    for who in (OPERATOR, ADMIN):
        with pytest.raises(Conflict, match="alias"):
            await dispatch(app, connection.add, saved("prod-db", rogue), who)
        assert await app.store.connections.query(ADMIN.caller) == []
    await dispatch(app, connection.add, saved("prod-web", rogue), OPERATOR)
    await dispatch(app, connection.add, saved("prod-db", rogue), DirectCall(caller()))


@pytest.mark.requirement("fault.S1")
async def test_a_machine_to_go_through_is_named_by_the_same_rule(app: App, both: tuple[Host, Host]) -> None:
    way, goal = both
    made = await dispatch(app, connection.add, saved("over", way), OPERATOR)
    target = {"host": goal.ip, "username": "ops", "password": goal.password}
    with pytest.raises(InvalidInput, match="jump"):
        await dispatch(app, session.connect, {**target, "jump": "over"}, ADMIN)
    for name, who in (("over", OPERATOR), (made.uuid, ADMIN)):
        opened = await dispatch(app, session.connect, {**target, "jump": name}, who)
        said = {"session_id": opened.session_id, "command": "echo ${SSH_CONNECTION%% *}"}
        assert (await dispatch(app, command.run_command, said, who)).stdout == f"{way.ip}\n"


@pytest.mark.requirement("fault.S1")
async def test_an_account_on_a_machine_means_the_callers_own_session_and_others_go_by_id(app: App, deb: Host) -> None:
    theirs = await connected(app, deb, "dev", DirectCall(caller("mallory", Role.OPERATOR)))
    poisoned = {"session_id": theirs, "name": "WHOSE", "value": "mallory's"}
    await dispatch(app, system.env_set, poisoned, OPERATOR)
    name = f"dev@{deb.ip}"
    for which in (name, f"{name}:22"):
        for tool, more in ((command.run_command, {"command": "true"}), (session.status, {}), (session.disconnect, {})):
            with pytest.raises(NotFound, match="No active session"):
                await dispatch(app, tool, {"session_id": which, **more}, ADMIN)
    mine = await connected(app, deb, "dev", ADMIN)
    whose = {"session_id": name, "command": "echo ${WHOSE-mine}"}
    assert (await dispatch(app, command.run_command, whose, ADMIN)).stdout == "mine\n"
    assert (await dispatch(app, command.run_command, {**whose, "session_id": theirs}, ADMIN)).stdout == "mallory's\n"
    closed = await dispatch(app, session.disconnect, {"session_id": name}, ADMIN)
    assert closed.session_id == mine
    assert (await dispatch(app, session.status, {"session_id": theirs}, OPERATOR)).connected


@pytest.mark.requirement("fault.S1")
async def test_a_name_saved_anew_is_taken_from_open_sessions_of_its_owner_only(
    app: App, both: tuple[Host, Host]
) -> None:
    """Also the uuid, which stays when a connection is replaced."""
    first, second = both
    names = {each.name: await outside(each, "hostname") for each in both}
    for who in (OPERATOR, ADMIN):
        made = await dispatch(app, connection.add, saved("it", first), who)
        assert await hostname(app, "it", who) == names[first.name]
    assert await hostname(app, made.uuid, ADMIN) == names[first.name]
    await dispatch(app, connection.add, {**saved("it", second), "replace": True}, ADMIN)
    for which in ("it", made.uuid):
        assert await hostname(app, which, ADMIN) == names[second.name]
    before = len(app.sessions.own(OPERATOR.caller))
    assert await hostname(app, "it", OPERATOR) == names[first.name]
    assert len(app.sessions.own(OPERATOR.caller)) == before
    await dispatch(app, connection.remove, {"connection": str(made.id)}, ADMIN)
    for which in ("it", made.uuid):
        with pytest.raises(NotFound):
            await hostname(app, which, ADMIN)


@pytest.mark.requirement("fault.S1")
async def test_over_mcp_a_change_needs_a_session_id_while_several_machines_are_open(
    app: App, both: tuple[Host, Host]
) -> None:
    first, second = both
    made = "/home/dev/made-by-names"

    def through(door: TransportName) -> DirectCall:
        return DirectCall(caller(), door)

    ids = [await connected(app, first, "dev", through("mcp"))]
    await dispatch(app, session.connect, login(first, "dev"), through("mcp"))  # the same account on the same machine
    await dispatch(app, file.mkdir, {"path": made}, through("mcp"))
    assert await outside(first, f"rmdir {made} && echo made") == "made\n"
    ids.append(await connected(app, second, "dev", through("mcp")))
    for tool, given in ((file.mkdir, {"path": made}), (command.run_command, {"command": f"mkdir {made}"})):
        for door in ("mcp", "stdio"):
            with pytest.raises(InvalidInput, match="session_id: is required") as refused:
                await dispatch(app, tool, given, through(door))
            assert all(each in str(refused.value.hint) for each in (*ids, first.ip, second.ip))
    for host in both:
        assert await outside(host, f"ls -d {made} 2>/dev/null; true") == ""
    # What only reads goes on, and REST goes on as documented.
    assert (await dispatch(app, file.stat, {"path": "/"}, through("mcp"))).type == "dir"
    await dispatch(app, file.mkdir, {"path": made}, through("rest"))
    await dispatch(app, file.mkdir, {"path": made, "session_id": ids[1]}, through("mcp"))
    for host in both:
        assert await outside(host, f"rmdir {made} && echo made") == "made\n"


@pytest.mark.requirement("fault.S1")
async def test_a_client_of_mcp_is_told_which_machines_are_open(app: App, both: tuple[Host, Host]) -> None:
    async with open_way("mcp", app) as way:
        for host in both:
            await way.call(session.connect, login(host, "dev"))
        with pytest.raises(Exception, match=both[1].ip):
            await way.call(command.run_command, {"command": "true"})
    assert await anyio.to_thread.run_sync(lambda: len(app.sessions.own(caller()))) == 2


@pytest.mark.requirement("fault.S1")
async def test_a_name_that_another_process_saved_anew_leads_to_the_new_machine_at_once(
    mcp_home: Path, fleet: Fleet
) -> None:
    """The negative control is in it: as long as nothing changes, the open session is used again."""
    first, second = fleet.deb, fleet.alpine
    names = {each.name: await outside(each, "hostname") for each in (first, second)}
    who = DirectCall(caller())
    async with open_app(mcp_home) as server, open_app(mcp_home) as terminal:
        for host in (first, second):
            await trust(server, host)
        await dispatch(terminal, connection.add, saved("it", first), TerminalCall())
        for _ in range(3):
            assert await hostname(server, "it", who) == names[first.name]
        assert len(server.sessions.own(who.caller)) == 1
        await dispatch(terminal, connection.add, {**saved("it", second), "replace": True}, TerminalCall())
        assert await hostname(server, "it", who) == names[second.name]
        await dispatch(terminal, connection.remove, {"connection": "it"}, TerminalCall())
        alias("it", first)
        assert await hostname(server, "it", who) == names[first.name]
        await dispatch(terminal, connection.add, saved("it", second), TerminalCall())
        assert await hostname(server, "it", who) == names[second.name]
