"""Machines behind machines: jump hosts and programs that are the way, each verified, each ended with the session."""

import base64
import os
import subprocess
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import AuthFailed, ConnectFailed, HostKeyUnconfirmed, InvalidInput, TimedOut
from mcp_ssh.tool import Role
from mcp_ssh.tools import command, connection, session
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, Fault, Way, caller
from tests.support.ssh_home import OWNER, config, dot_ssh, ends_what_it_ran, key, know, opened, said


@pytest.fixture(autouse=True)
def home(mcp_home: Path, inner: Host, bastion: Host) -> None:
    know(bastion)
    key(bastion)
    config(through(bastion, inner))


def through(bastion: Host, inner: Host, more: str = "") -> str:
    return (
        f"Host inside\n HostName {inner.ip}\n User dev\n ProxyJump door\n{more}"
        f"Host inside6\n HostName {inner.ip6}\n User dev\n ProxyJump door\n"
        f"Host door\n HostName {bastion.ip}\n User ops\n"
    )


async def logins(host: Host) -> list[str]:
    """Who is logged in over SSH, as the machine's processes say."""
    listed = await anyio.to_thread.run_sync(host.console, ["ps", "-eo", "args"])
    return [line for line in listed.stdout.splitlines() if line.startswith("sshd: ") and "listener" not in line]


async def gone(host: Host, before: list[str]) -> None:
    """Wait until there are no more logins than before."""
    with anyio.fail_after(10):
        while len(await logins(host)) > len(before):
            await anyio.sleep(0.05)


def programs(mark: str) -> list[str]:
    """The programs of this machine with a mark in their command line."""
    found: list[str] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if mark in line and folder.name != str(os.getpid()):
            found.append(line)
    return found


@pytest.mark.requirement("ways_in.jump")
@pytest.mark.parametrize("name", ["inside", "inside6"])
async def test_a_machine_behind_another_is_reached_and_both_logins_end_with_the_session(
    app: App, bastion: Host, inner: Host, name: str
) -> None:
    before = await logins(bastion), await logins(inner)
    connected = await opened(app, host=name)
    assert connected.host in {inner.ip, inner.ip6}
    told = await said(app, connected.session_id, "hostname; id -un; echo $SSH_CONNECTION")
    assert told.splitlines()[:2] == ["inner", "dev"]
    assert told.split()[2] in {"10.78.0.1", "fd78::1"}
    assert len(await logins(bastion)) > len(before[0])
    await dispatch(app, session.disconnect, {"session_id": connected.session_id}, OWNER)
    await gone(inner, before[1])
    await gone(bastion, before[0])


@pytest.mark.requirement("ways_in.jump_named")
async def test_a_saved_connection_is_the_way_and_logs_in_with_its_own_secrets(
    app: App, mcp_home: Path, way: Way, bastion: Host, inner: Host
) -> None:
    """No key and no config of the server's owner has a part in it."""
    (dot_ssh() / "config").unlink()
    (dot_ssh() / "id_ed25519").unlink()
    password, key_content = {"password": bastion.password}, base64.b64encode(inner.key_path.read_bytes()).decode()
    saved = {"name": "door", "host": bastion.ip, "username": "ops", **password}
    added = await dispatch(app, connection.add, saved, OWNER)
    # A name is its owner's alone: the admin who calls over REST uses the uuid.
    way_in = added.uuid if way.name == "rest" else "door"
    inside = {"host": inner.ip, "username": "dev", "key_content": key_content, "retries": 1}
    with pytest.raises(Fault) as unknown:
        await way.call(session.connect, {**inside, "jump": "gate"})
    assert (unknown.value.code, "connection_add" in str(unknown.value.payload)) == ("invalid_input", True)
    before = await logins(bastion)
    on = await way.call(session.connect, {**inside, "jump": way_in})
    ran = {"session_id": on["session_id"], "command": "hostname; echo $SSH_CONNECTION"}
    assert (await way.call(command.run_command, ran))["stdout"].startswith("inner\n10.78.0.1 ")
    await way.call(session.disconnect, {"session_id": on["session_id"]})
    await gone(bastion, before)


@pytest.mark.requirement("ways_in.jump_named")
async def test_nobody_goes_through_a_connection_that_another_caller_saved(app: App, bastion: Host, inner: Host) -> None:
    mine, other = (DirectCall(caller(name, Role.OPERATOR, owner=False)) for name in ("mine", "other"))
    door = {"name": "my-door", "host": bastion.ip, "username": "ops", "password": bastion.password}
    await dispatch(app, connection.add, door, mine)
    inside = {"host": inner.ip, "username": "dev", "password": inner.password, "jump": "my-door"}
    with pytest.raises(InvalidInput, match="no saved connection"):
        await dispatch(app, session.connect, inside, other)
    assert (await dispatch(app, session.connect, inside, mine)).host == inner.ip


@pytest.mark.requirement("ways_in.jump")
async def test_the_negative_control_without_the_jump_does_not_get_there(app: App, inner: Host) -> None:
    config(f"Host inside\n HostName {inner.ip}\n User dev\n")
    with pytest.raises(ConnectFailed):
        await opened(app, host="inside", retries=1)


@pytest.mark.requirement("ways_in.end")
async def test_commands_behind_a_jump_are_ended(app: App, inner: Host) -> None:
    await ends_what_it_ran(app, inner, (await opened(app, host="inside")).session_id)


@pytest.mark.requirement("ways_in.end")
async def test_commands_behind_a_jump_are_ended_where_a_connection_has_one_channel(
    app: App, bastion: Host, auth: Host
) -> None:
    before = await logins(bastion)
    config(
        f"Host one\n HostName {auth.ip}\n Port {auth.ports['limits']}\n User dev\n ProxyJump door\n"
        f"Host door\n HostName {bastion.ip}\n User ops\n"
    )
    connected = await opened(app, host="one")
    await ends_what_it_ran(app, auth, connected.session_id)
    await dispatch(app, session.disconnect, {"session_id": connected.session_id}, OWNER)
    await gone(bastion, before)


@pytest.mark.requirement("ways_in.jump")
async def test_hops_may_be_many_and_have_hops_of_their_own(app: App, bastion: Host, auth: Host, inner: Host) -> None:
    config(
        f"Host inside\n HostName {inner.ip}\n User dev\n ProxyJump first,ops@{bastion.ip}:22\n"
        f"Host first\n HostName {auth.ip}\n Port {auth.ports['dropbear']}\n User dev\n ProxyJump before\n"
        f"Host before\n HostName {auth.ip}\n Port {auth.ports['limits']}\n User dev\n"
    )
    assert (await said(app, "inside", "hostname; echo $SSH_CONNECTION")).startswith("inner\n10.78.0.1 ")


@pytest.mark.requirement("ways_in.jump_trust")
async def test_the_host_key_of_each_machine_on_the_way_is_verified(app: App, bastion: Host, inner: Host) -> None:
    lines = (dot_ssh() / "known_hosts").read_text().splitlines(keepends=True)
    for unknown in (bastion.ip, inner.ip):
        (dot_ssh() / "known_hosts").write_text("".join(line for line in lines if unknown not in line.split()[0]))
        with pytest.raises(HostKeyUnconfirmed) as error:
            await opened(app, host="inside")
        assert error.value.details["host_key"]["host"] == unknown
        assert unknown in error.value.message
        assert ("on the way" in error.value.message) == (unknown == bastion.ip)
    (dot_ssh() / "known_hosts").write_text("".join(lines))
    await anyio.to_thread.run_sync(bastion.rotate_host_key)
    with pytest.raises(HostKeyUnconfirmed, match="CHANGED"):
        await opened(app, host="inside")


@pytest.mark.requirement("ways_in.jump_trust")
async def test_no_password_for_the_target_reaches_the_machine_before_it(app: App, bastion: Host, inner: Host) -> None:
    (dot_ssh() / "id_ed25519").unlink()
    begun = await anyio.to_thread.run_sync(bastion.console, ["journalctl", "--no-pager", "--output", "cat"])
    with pytest.raises(AuthFailed, match=bastion.ip):
        await opened(app, host="inside", password=inner.password)
    now = await anyio.to_thread.run_sync(bastion.console, ["journalctl", "--no-pager", "--output", "cat"])
    assert "authentication failure" not in now.stdout[len(begun.stdout) :]


@pytest.mark.requirement("ways_in.jump")
async def test_one_deadline_covers_the_whole_way(app: App, bastion: Host, inner: Host) -> None:
    before = await logins(bastion)
    await anyio.to_thread.run_sync(inner.cut)
    with anyio.fail_after(10), pytest.raises(TimedOut):
        await opened(app, host="inside", timeout=3)
    await gone(bastion, before)


@pytest.mark.requirement("ways_in.jump")
async def test_a_hop_that_cannot_go_on_says_so(app: App, bastion: Host, inner: Host) -> None:
    config(through(bastion, inner, " Port 1\n"))
    with pytest.raises(ConnectFailed, match=f"{inner.ip} port 1 cannot be reached from {bastion.ip}"):
        await opened(app, host="inside", retries=1)


@pytest.mark.requirement("ways_in.jump")
async def test_a_circle_of_hops_is_refused(app: App) -> None:
    config("Host a\n ProxyJump b\n User x\nHost b\n ProxyJump a\n User x\n")
    with pytest.raises(InvalidInput, match="circle"):
        await opened(app, host="a", password="x")


@pytest.mark.requirement("ways_in.jump")
async def test_a_lost_hop_loses_the_session_and_nothing_hangs(app: App, bastion: Host, inner: Host) -> None:
    connected = await opened(app, host="inside")
    running = app.sessions.find(OWNER.caller, connected.session_id)
    await anyio.to_thread.run_sync(bastion.console, ["sh", "-c", "pkill -f 'sshd: ops'; true"])
    with anyio.fail_after(10):
        while running.connected:
            await anyio.sleep(0.02)
    with pytest.raises(ConnectFailed):
        await said(app, connected.session_id, "true")


@pytest.mark.requirement("ways_in.proxy_command")
async def test_a_program_is_the_way_and_is_gone_with_the_session(app: App, bastion: Host, inner: Host) -> None:
    mark = f"-oUser=ops -oConnectTimeout=2{os.getpid()}"
    options = f"-i {bastion.key_path} -oUserKnownHostsFile={bastion.known_hosts_path}"
    config(
        f"Host inside\n HostName {inner.ip}\n User dev\n"
        f" ProxyCommand ssh -F /dev/null {options} {mark} -W [%h]:%p {bastion.ip}\n"
    )
    connected = await opened(app, host="inside")
    assert (await said(app, connected.session_id, "hostname; id -un")).split() == ["inner", "dev"]
    await ends_what_it_ran(app, inner, connected.session_id)
    assert programs(mark)
    await dispatch(app, session.disconnect, {"session_id": connected.session_id}, OWNER)
    assert programs(mark) == []


@pytest.mark.requirement("ways_in.proxy_command")
async def test_a_program_that_will_not_end_is_ended_with_all_it_started(
    app: App, bastion: Host, inner: Host, tmp_path: Path
) -> None:
    script = tmp_path / "stubborn"
    script.write_text(
        "#!/bin/bash\ntrap '' HUP TERM\nsleep 987654 &\n"
        f"exec 3<>/dev/tcp/{bastion.ip}/22\ncat <&3 &\ncat >&3\nwhile :; do sleep 1; done\n"
    )
    script.chmod(0o755)
    config(f"Host door\n HostName {bastion.ip}\n User ops\n ProxyCommand {script}\n")
    connected = await opened(app, host="door")
    assert programs(str(script))
    await dispatch(app, session.disconnect, {"session_id": connected.session_id}, OWNER)
    assert programs(str(script)) == []
    assert programs("sleep 987654") == []


@pytest.mark.requirement("ways_in.proxy_command")
@pytest.mark.parametrize(
    ("program", "told"),
    [("sh -c 'echo no way >&2; exit 3'", "status 3"), ("/no/such/program", "status 127"), ("true", "status 0")],
)
async def test_a_program_that_fails_says_why(app: App, program: str, told: str) -> None:
    config(f"Host door\n User ops\n ProxyCommand {program}\n")
    with pytest.raises(ConnectFailed, match=told) as caught:
        await opened(app, host="door", retries=1)
    assert caught.value.details.get("said") == ("no way" if "no way" in program else None) or "/no/such" in program


@pytest.mark.requirement("ways_in.proxy_command")
async def test_a_program_that_leads_nowhere_is_ended_at_the_deadline(app: App) -> None:
    config("Host door\n User ops\n ProxyCommand sleep 876543\n")
    with anyio.fail_after(10), pytest.raises(TimedOut):
        await opened(app, host="door", timeout=1)
    assert programs("sleep 876543") == []


async def test_our_way_is_the_way_of_the_systems_ssh(app: App, bastion: Host, inner: Host) -> None:
    file = dot_ssh() / "config"
    options = ["-F", file, "-i", bastion.key_path, "-o", f"UserKnownHostsFile={bastion.known_hosts_path}"]
    hop = f"ssh -F {file} -i {bastion.key_path} -o UserKnownHostsFile={bastion.known_hosts_path} -W [%h]:%p door"
    theirs = await anyio.to_thread.run_sync(
        lambda: subprocess.run(
            ["ssh", *options, "-o", f"ProxyCommand={hop}", "inside", "hostname; id -un"],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
    )
    assert theirs.stdout == await said(app, "inside", "hostname; id -un"), theirs.stderr
    assert command.run_command.name == "command_exec"
