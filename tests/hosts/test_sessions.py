"""Sessions on real hosts: every way in that works, and every one that must not."""

import base64
import contextlib
import functools
import socket
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import AuthConfig, Config, SecurityConfig, SshConfig
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import AuthFailed, Conflict, HostKeyUnconfirmed, InvalidInput, NotFound, Refused, TimedOut, TooMany
from mcp_ssh.sessions import registry
from mcp_ssh.ssh.dial.dialer import Dialer
from mcp_ssh.tool import Caller, Role
from mcp_ssh.tools import command, connection, hostkey, session, tunnel
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, Fault, Way, caller
from tests.support.machine import connected, login, number, processes, started, trust


async def in_thread(do: Any, *args: Any, **more: Any) -> Any:
    return await anyio.to_thread.run_sync(functools.partial(do, *args, **more))


def password_login(host: Host, **more: Any) -> dict[str, Any]:
    return {"host": host.ip, "username": "ops", "password": host.password, **more}


@pytest.mark.requirement("session.connect", "session.status", "session.list", "session.disconnect")
async def test_a_session_lives_from_connect_to_disconnect(app: App, way: Way, host: Host) -> None:
    await trust(app, host)
    opened = await way.call(session.connect, password_login(host))
    session_id = opened["session_id"]
    assert opened == {
        "status": "connected",
        "session_id": session_id,
        "host": host.ip,
        "username": "ops",
        "features": ["sftp", "shell", "exec", "background_tasks", "tunnels"],
    }
    assert len(session_id) == 12
    assert set(session_id) <= set("0123456789abcdef")
    described = {"connected": True, "host": host.ip, "username": "ops"}
    assert await way.call(session.status, {"session_id": session_id}) == {"session_id": session_id, **described}
    assert await way.call(session.list_sessions, {}) == {"sessions": {session_id: {**described, "port": 22}}}
    by_name = await way.call(command.run_command, {"command": "id -un", "session_id": f"ops@{host.ip}"})
    by_default = await way.call(command.run_command, {"command": "id -un"})
    assert by_name["stdout"] == by_default["stdout"] == "ops\n"
    closed = await way.call(session.disconnect, {"session_id": session_id})
    assert closed == {"status": "disconnected", "session_id": session_id}
    with pytest.raises(Fault) as fault:
        await way.call(session.status, {"session_id": session_id})
    assert (fault.value.code, fault.value.status) == ("not_found", 404 if way.name == "rest" else None)


@pytest.fixture
def encrypted(host: Host, tmp_path: Path) -> Path:
    """The fleet's key with a passphrase, as ssh-keygen writes it."""
    copy = tmp_path / "encrypted"
    copy.write_bytes(host.key_path.read_bytes())
    copy.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-f", copy, "-P", "", "-N", "open sesame"], check=True)
    return copy


@pytest.mark.requirement("session.connect.keys")
async def test_keys_open_a_session_by_path_by_content_and_with_a_passphrase(
    app: App, way: Way, host: Host, encrypted: Path
) -> None:
    await trust(app, host)
    content = base64.b64encode(host.key_path.read_bytes()).decode()
    sealed = base64.b64encode(encrypted.read_bytes()).decode()
    target = {"host": host.ip, "username": "dev"}
    for how in (
        {"key_path": str(host.key_path)},
        {"key_content": content},
        {"key_path": str(encrypted), "key_passphrase": "open sesame"},
        {"key_content": sealed, "key_passphrase": "open sesame"},
    ):
        opened = await way.call(session.connect, {**target, **how})
        answer = await way.call(command.run_command, {"command": "id -un", "session_id": opened["session_id"]})
        assert answer["stdout"] == "dev\n"


@pytest.mark.requirement("session.connect.bad_key")
@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"key_path": "/no/such/key"}, "key_path"),
        ({"key_path": "/etc/passwd"}, "key_path"),
        ({"key_path": "/tmp"}, "key_path"),
        ({"key_content": "not base64!"}, "key_content"),
        ({"key_content": base64.b64encode(b"not a key").decode()}, "key_content"),
        ({}, "password"),
        ({"password": "x", "host": "two hosts"}, "host"),
        ({"password": "x", "port": 0}, "port"),
        ({"password": "x", "username": None}, "username"),
    ],
)
async def test_a_key_that_cannot_be_used_is_named_before_anything_is_sent(
    app: App, deb: Host, how: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidInput) as error:
        await dispatch(app, session.connect, {"host": deb.ip, "username": "dev", **how}, DirectCall(caller()))
    assert named in error.value.message
    assert error.value.hint


@pytest.mark.parametrize("name", ["password", "key_content", "key_passphrase", "interactive_answers"])
@pytest.mark.parametrize("text", ["-----BEGIN \ud800", "a\0b"])
async def test_a_secret_that_cannot_be_sent_is_named_before_anything_is_done(
    app: App, deb: Host, name: str, text: str
) -> None:
    given = {"host": deb.ip, "username": "dev", name: [text] if name == "interactive_answers" else text}
    with pytest.raises(InvalidInput, match=rf"^{name}\S*: must ") as refused:
        await dispatch(app, session.connect, given, DirectCall(caller()))
    assert text not in str(refused.value)
    if name != "interactive_answers":
        with pytest.raises(InvalidInput, match=rf"^{name}: must "):
            await dispatch(app, connection.add, {"name": "web", **given}, DirectCall(caller()))


async def test_a_wrong_passphrase_is_said_to_be_wrong(app: App, deb: Host, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-f", key, "-N", "right"], check=True)
    for given in ({}, {"key_passphrase": "wrong"}):
        arguments = {"host": deb.ip, "username": "dev", "key_path": str(key), **given}
        with pytest.raises(InvalidInput, match="key_passphrase"):
            await dispatch(app, session.connect, arguments, DirectCall(caller()))


@pytest.mark.requirement("session.connect.refused_login")
async def test_a_refused_login_is_final_and_tried_once(app: App, way: Way, deb: Host) -> None:
    await trust(app, deb)
    mark = f"wrong-{number()}"
    await in_thread(deb.console, ["logger", mark])
    with pytest.raises(Fault) as fault:
        await way.call(session.connect, password_login(deb, password="wrong", retries=5))
    assert fault.value.code == "auth_failed"
    if way.name == "rest":
        assert fault.value.status == 401
    journal = (await in_thread(deb.console, ["journalctl", "--no-pager", "--output", "cat"])).stdout
    assert journal.partition(mark)[2].count("pam_unix(sshd:auth): authentication failure") == 1
    assert "wrong" not in str(fault.value.payload).replace(mark, "")


@pytest.mark.requirement("session.connect.network_retry")
async def test_a_network_failure_is_tried_again_as_often_as_asked(
    app: App, deb: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0
    attempt = Dialer.dial

    async def counted(self: Dialer) -> Any:
        nonlocal tries
        tries += 1
        return await attempt(self)

    monkeypatch.setattr(Dialer, "dial", counted)
    arguments = password_login(deb, port=1, retries=3, retry_delay=0.1)
    with pytest.raises(Exception, match="refused") as error:
        await dispatch(app, session.connect, arguments, DirectCall(caller()))
    assert getattr(error.value, "code", "") == "connect_failed"
    assert tries == 3


@pytest.mark.requirement("session.connect.deadline")
async def test_an_unreachable_host_ends_at_the_deadline(app: App, deb: Host) -> None:
    await in_thread(deb.cut)
    began = anyio.current_time()
    with anyio.fail_after(5), pytest.raises(TimedOut):
        await dispatch(app, session.connect, password_login(deb, timeout=1.0), DirectCall(caller()))
    assert anyio.current_time() - began >= 1.0


@contextlib.contextmanager
def silent_server() -> Generator[int]:
    """A server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.requirement("session.connect.banner")
async def test_a_server_that_says_nothing_is_given_up(mcp_home: Path) -> None:
    config = Config(ssh=SshConfig(banner_timeout=0.3))
    with silent_server() as port:
        async with open_app(mcp_home, config) as app:
            arguments = {"host": "127.0.0.1", "port": port, "username": "x", "password": "y", "retries": 1}
            with anyio.fail_after(5), pytest.raises(Exception, match="does not speak SSH"):
                await dispatch(app, session.connect, arguments, DirectCall(caller()))


@pytest.mark.requirement("hostkey.unknown")
async def test_an_unknown_host_key_is_shown_and_can_be_accepted(way: Way, host: Host) -> None:
    with pytest.raises(Fault) as fault:
        await way.call(session.connect, password_login(host))
    payload = fault.value.payload
    if way.name == "rest":
        assert fault.value.status == 409
        assert payload["detail"]["code"] == "HOST_KEY_CONFIRMATION_REQUIRED"
        shown = payload["detail"]["host_key"]
    else:
        assert fault.value.code == "host_key_unconfirmed"
        shown = payload["details"]["host_key"]
    line = (await in_thread(host.console, ["ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub"])).stdout
    assert shown["fingerprint_sha256"] == line.split()[1]
    assert shown["reason"] == "unknown"
    fields = ("host", "port", "key_type", "public_key", "fingerprint_sha256")
    assert await way.call(hostkey.accept, {field: shown[field] for field in fields}) == {"ok": True}
    assert (await way.call(session.connect, password_login(host)))["status"] == "connected"


@pytest.mark.requirement("hostkey.changed")
async def test_a_changed_host_key_is_refused_also_by_a_new_server_and_under_accept_new(
    mcp_home: Path, host: Host
) -> None:
    async with open_app(mcp_home, Config()) as app:
        await connected(app, host, "dev", DirectCall(caller()))
    await in_thread(host.rotate_host_key)
    for policy in ("confirm", "accept-new"):
        config = Config(security=SecurityConfig(host_keys=policy))
        async with open_app(mcp_home, config) as app:
            with pytest.raises(HostKeyUnconfirmed) as error:
                await dispatch(app, session.connect, login(host, "dev"), DirectCall(caller()))
            assert error.value.details["host_key"]["reason"] == "changed"
            assert "line" in error.value.message
            assert "known_hosts" in error.value.message


@pytest.mark.requirement("hostkey.revoked")
async def test_a_revoked_host_key_is_refused_and_cannot_be_accepted(mcp_home: Path, host: Host) -> None:
    mcp_home.mkdir(mode=0o700)
    lines = [f"@revoked {host.ip} {' '.join(key.split()[:2])}\n" for key in host.public_keys]
    (mcp_home / "known_hosts").write_text("".join(lines))
    async with open_app(mcp_home, Config()) as app:
        with pytest.raises(Refused, match="revoked"):
            await dispatch(app, session.connect, login(host, "dev"), DirectCall(caller()))


async def test_the_negative_control_accepts_that_key_where_no_line_revokes_it(mcp_home: Path, host: Host) -> None:
    async with open_app(mcp_home, Config(security=SecurityConfig(host_keys="accept-new"))) as app:
        opened = await dispatch(app, session.connect, login(host, "dev"), DirectCall(caller()))
        assert opened.status == "connected"


@pytest.mark.requirement("session.owner")
async def test_a_session_is_its_callers_own(app: App, deb: Host) -> None:
    mine, other = DirectCall(caller("a", Role.OPERATOR)), DirectCall(caller("b", Role.OPERATOR))
    admin = DirectCall(caller("c", Role.ADMIN, owner=False))
    session_id = await connected(app, deb, "dev", mine)
    for arguments in ({"session_id": session_id}, {"session_id": f"dev@{deb.ip}"}, {}):
        with pytest.raises(NotFound):
            await dispatch(app, command.run_command, {"command": "true", **arguments}, other)
    assert (await dispatch(app, session.list_sessions, {}, other)).sessions == {}
    assert session_id in (await dispatch(app, session.list_sessions, {}, admin)).sessions
    with pytest.raises(NotFound):
        await dispatch(app, command.run_command, {"command": "true"}, admin)


@pytest.mark.requirement("auth.identities")
async def test_key_files_of_the_owner_are_not_for_every_caller(mcp_home: Path, deb: Host) -> None:
    operator = DirectCall(caller("local", Role.OPERATOR, owner=False))
    async with open_app(mcp_home, Config()) as app:
        await trust(app, deb)
        with pytest.raises(Refused, match="key_path"):
            await dispatch(app, session.connect, login(deb, "dev"), operator)
    allowed = Config(security=SecurityConfig(allow_server_identities=["10.77.*"]))
    async with open_app(mcp_home, allowed) as app:
        assert (await dispatch(app, session.connect, login(deb, "dev"), operator)).status == "connected"


@pytest.mark.requirement("auth.defaults")
async def test_an_empty_connect_uses_the_configured_account_and_no_other_host_gets_its_password(
    mcp_home: Path, deb: Host, alpine: Host
) -> None:
    auth = AuthConfig(default_host=deb.ip, default_username="ops", default_password=deb.password)  # pyright: ignore[reportArgumentType]
    async with open_app(mcp_home, Config(auth=auth)) as app:
        await trust(app, deb)
        await trust(app, alpine)
        who = DirectCall(caller())
        opened = await dispatch(app, session.connect, {}, who)
        assert (opened.host, opened.username) == (deb.ip, "ops")
        with pytest.raises(InvalidInput, match="nothing to log in with"):
            await dispatch(app, session.connect, {"host": alpine.ip}, who)


async def test_no_more_sessions_than_configured(mcp_home: Path, deb: Host) -> None:
    async with open_app(mcp_home, Config(ssh=SshConfig(max_concurrent_connections=2))) as app:
        who = DirectCall(caller())
        first = await connected(app, deb, "dev", who)
        await dispatch(app, session.connect, login(deb, "dev"), who)
        with pytest.raises(TooMany, match="max_concurrent_connections"):
            await dispatch(app, session.connect, login(deb, "dev"), who)
        await dispatch(app, session.disconnect, {"session_id": first}, who)
        assert (await dispatch(app, session.connect, login(deb, "dev"), who)).status == "connected"


@pytest.mark.requirement("session.list")
async def test_of_lost_sessions_only_the_last_are_remembered(
    app: App, deb: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "MOST_LOST", 2)
    who, opened = DirectCall(caller()), list[str]()
    for _ in range(4):
        opened.append(await connected(app, deb, "dev", who))
        await in_thread(deb.console, ["pkill", "-KILL", "-u", "dev", "sshd"])
        with anyio.fail_after(10):
            while (await dispatch(app, session.status, {"session_id": opened[-1]}, who)).connected:
                await anyio.sleep(0.02)
    opened.append(await connected(app, deb, "dev", who))
    assert list((await dispatch(app, session.list_sessions, {}, who)).sessions) == opened[-3:]


@pytest.mark.requirement("session.keepalive")
async def test_a_dead_link_is_noticed_by_keepalives(mcp_home: Path, deb: Host) -> None:
    async with open_app(mcp_home, Config(ssh=SshConfig(keepalive_interval=1))) as app:
        who = DirectCall(caller())
        session_id = await connected(app, deb, "dev", who)
        await in_thread(deb.cut)
        with anyio.fail_after(15):
            while (await dispatch(app, session.status, {"session_id": session_id}, who)).connected:
                await anyio.sleep(0.1)
        with pytest.raises(Exception, match="connection to the machine is lost"):
            await dispatch(app, command.run_command, {"session_id": session_id, "command": "true"}, who)


@pytest.mark.requirement("session.idle")
async def test_a_session_of_an_http_caller_ends_when_nobody_uses_it(mcp_home: Path, deb: Host) -> None:
    config = Config(ssh=SshConfig(idle_minutes=0.5 / 60), security=SecurityConfig(host_keys="accept-new"))
    async with open_app(mcp_home, config) as app:
        remote, owner = DirectCall(caller("local", owner=False)), DirectCall(caller())
        kept = await connected(app, deb, "dev", owner)
        await connected(app, deb, "dev", remote)
        with anyio.fail_after(10):
            while len((await dispatch(app, session.list_sessions, {}, owner)).sessions) > 1:
                await anyio.sleep(0.05)
        assert list((await dispatch(app, session.list_sessions, {}, owner)).sessions) == [kept]


@pytest.mark.requirement("token.revoked")
async def test_revoking_a_token_ends_its_sessions_and_what_runs_on_them(app: App, deb: Host) -> None:
    token, _ = await app.store.tokens.create("guest", Role.OPERATOR)
    kept, _ = await app.store.tokens.create("kept", Role.OPERATOR)
    guest, other = (DirectCall(Caller(each.id, Role.ADMIN)) for each in (token, kept))
    ended = await connected(app, deb, "dev", guest)
    stays = await connected(app, deb, "dev", other)
    n = number()
    async with anyio.create_task_group() as group:

        async def run() -> None:
            with pytest.raises(Conflict):
                await dispatch(app, command.run_command, {"session_id": ended, "command": f"sleep {n}"}, guest)

        group.start_soon(run)
        await started(deb, n)
        await app.store.tokens.revoke("guest")
    assert await processes(deb, n) == []
    owner = DirectCall(caller())
    assert list((await dispatch(app, session.list_sessions, {}, owner)).sessions) == [stays]


@pytest.mark.requirement("session.disconnect")
async def test_a_disconnect_whose_caller_leaves_ends_the_session_all_the_same(app: App, deb: Host) -> None:
    who, n = DirectCall(caller()), number()
    on = {"session_id": await connected(app, deb, "dev", who)}
    link = app.sessions.find(who.caller, on["session_id"]).link
    leads = {"local_port": 0, "remote_host": "127.0.0.1", "remote_port": 22}
    port = (await dispatch(app, tunnel.local, {**on, **leads}, who)).port

    async def run() -> None:
        with pytest.raises(Conflict):
            await dispatch(app, command.run_command, {**on, "command": f"trap '' TERM; sleep {n}"}, who)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await started(deb, n)
        with anyio.move_on_after(0.1):  # TERM is waited for longer
            await dispatch(app, session.disconnect, on, who)
    assert (await processes(deb, n), link.alive, app.links._standing) == ([], False, {})
    with pytest.raises(OSError, match="All connection attempts failed"):
        await anyio.connect_tcp("127.0.0.1", port)


@pytest.mark.requirement("server.stop")
async def test_a_stopping_server_ends_what_runs(mcp_home: Path, host: Host) -> None:
    n = number()
    async with anyio.create_task_group() as group, open_app(mcp_home, Config()) as app:
        who = DirectCall(caller())
        session_id = await connected(app, host, "root", who)

        async def run() -> None:
            with pytest.raises(Exception, match="server is stopping"):
                await dispatch(app, command.run_command, {"session_id": session_id, "command": f"sleep {n}"}, who)

        group.start_soon(run)
        await started(host, n)
    assert await processes(host, n) == []


async def test_a_login_that_is_refused_names_no_secret(app: App, deb: Host) -> None:
    await trust(app, deb)
    with pytest.raises(AuthFailed) as error:
        await dispatch(app, session.connect, password_login(deb, password="hunter2"), DirectCall(caller()))
    rows = await app.store.history.list(10)
    assert "hunter2" not in f"{error.value.payload()} {rows}"


@pytest.mark.requirement("hostkey.scan")
async def test_a_scan_shows_every_key_of_the_machine_and_what_it_is_to_us(app: App, way: Way, host: Host) -> None:
    scanned = await way.call(hostkey.scan, {"host": host.ip})
    assert {each["public_key"] for each in scanned["keys"]} == {" ".join(line.split()[:2]) for line in host.public_keys}
    assert {each["known"] for each in scanned["keys"]} == {"unknown"}
    await trust(app, host)
    assert {each["known"] for each in (await way.call(hostkey.scan, {"host": host.ip}))["keys"]} == {"trusted"}


@pytest.mark.requirement("hostkey.list", "hostkey.remove")
async def test_a_removed_key_is_unknown_again(app: App, way: Way, deb: Host) -> None:
    await trust(app, deb)
    entries = (await way.call(hostkey.list_hostkeys, {}))["entries"]
    assert {each["key_type"] for each in entries} == {"ssh-ed25519", "ecdsa-sha2-nistp256"}
    assert set(entries[0]) == {"host", "port", "known_hosts_host", "key_type", "key_base64", "fingerprint_sha256"}
    for each in entries:
        gone = {"host": deb.ip, "port": deb.port, "key_type": each["key_type"]}
        assert await way.call(hostkey.remove, gone) == {"ok": True, "changed": True}
        assert await way.call(hostkey.remove, gone) == {"ok": True, "changed": False}
    with pytest.raises(Fault) as fault:
        await way.call(session.connect, login(deb, "dev"))
    assert "unknown" in str(fault.value.payload)
