"""Every way to log in, against servers that take that way and no other."""

import shutil
import socket
import subprocess
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import AuthFailed, HostKeyUnconfirmed, InvalidInput, Refused, TimedOut, ToolError
from mcp_ssh.ssh.auth.responder import AuthResponder
from mcp_ssh.tool import Role
from mcp_ssh.tools import command
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, Fault, Way, caller, open_rest
from tests.support.machine import journal, mark
from tests.support.ssh_home import OWNER, agent, config, dot_ssh, ends_what_it_ran, key, know, opened, said


@pytest.fixture(autouse=True)
def known(mcp_home: Path, auth: Host) -> None:
    know(auth)


def on(host: Host, server: str, user: str = "ops", **more: object) -> dict[str, object]:
    return {"host": host.ip, "port": host.ports[server], "username": user, **more}


async def whoami(app: App, user: str, **arguments: object) -> None:
    """Connect, and see that it is the account."""
    session = await opened(app, **arguments)
    assert await said(app, session.session_id, "id -un") == f"{user}\n"


@pytest.mark.requirement("ways_in.password_only", "ways_in.questions", "ways_in.key_then_password")
@pytest.mark.parametrize("server", ["normal", "password", "keyboard_interactive", "dropbear"])
async def test_a_password_opens_every_server_that_takes_one(way: Way, auth: Host, server: str) -> None:
    from mcp_ssh.tools import session

    answer = await way.call(session.connect, on(auth, server, password=auth.password))
    ran = await way.call(command.run_command, {"session_id": answer["session_id"], "command": "id -un"})
    assert ran["stdout"] == "ops\n"


@pytest.mark.requirement("ways_in.key_then_password")
async def test_a_server_that_wants_key_and_password_gets_both(app: App, auth: Host) -> None:
    both = on(auth, "key_and_password", key_path=str(auth.key_path), password=auth.password)
    await whoami(app, "ops", **both)
    for missing in ("key_path", "password"):
        with pytest.raises(AuthFailed):
            await opened(app, **{name: value for name, value in both.items() if name != missing})


@pytest.mark.requirement("ways_in.questions")
async def test_questions_at_login_get_the_answers_that_were_given(app: App, auth: Host) -> None:
    await whoami(app, "ops", **on(auth, "keyboard_interactive", interactive_answers=[auth.password]))


@pytest.mark.requirement("ways_in.questions")
async def test_a_question_without_an_answer_is_told_to_the_caller(app: App, auth: Host) -> None:
    key_only = on(auth, "keyboard_interactive", key_path=str(auth.key_path))
    with pytest.raises(AuthFailed, match="Password:") as error:
        await opened(app, **key_only)
    assert "interactive_answers" in str(error.value.hint)
    assert len(error.value.details["asked"]) == 1


@pytest.mark.requirement("ways_in.password_once")
@pytest.mark.parametrize("server", ["normal", "password", "keyboard_interactive"])
async def test_a_wrong_password_reaches_the_machine_once(app: App, auth: Host, server: str) -> None:
    begun = await mark(auth)
    with pytest.raises(AuthFailed) as error:
        await opened(app, **on(auth, server, password="not-it", retries=5))
    assert "not-it" not in str(error.value.payload())
    failures = (await journal(auth)).partition(begun)[2].count("authentication failure")
    assert failures == 1


async def test_the_negative_control_without_that_rule_sends_it_again(
    app: App, auth: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AuthResponder, "password", lambda _: "not-it")
    begun = await mark(auth)
    with pytest.raises(AuthFailed):
        await opened(app, **on(auth, "limits", password="not-it"))
    assert (await journal(auth)).partition(begun)[2].count("authentication failure") > 1


@pytest.mark.requirement("ways_in.certificate")
async def test_a_certificate_beside_the_key_opens_a_server_that_takes_nothing_else(app: App, auth: Host) -> None:
    await whoami(app, "dev", **on(auth, "certificate", "dev", key_path=str(auth.cert_key_path)))
    for refused in (
        on(auth, "certificate", "ops", key_path=str(auth.cert_key_path)),
        on(auth, "certificate", "dev", key_path=str(auth.key_path)),
    ):
        with pytest.raises(AuthFailed):
            await opened(app, **refused)


@pytest.mark.requirement("ways_in.certificate", "config.alias")
async def test_a_certificate_named_by_the_config_serves_a_key_of_the_agent(
    app: App, auth: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(f"{auth.cert_key_path}-cert.pub", tmp_path / "mine-cert.pub")
    config(
        f"Host certified\n HostName {auth.ip}\n Port {auth.ports['certificate']}\n User dev\n"
        f" CertificateFile {tmp_path}/mine-cert.pub\n"
    )
    with agent(tmp_path, auth.cert_key_path) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        await whoami(app, "dev", host="certified")


@pytest.mark.requirement("hostkey.authority")
async def test_a_host_certificate_of_a_trusted_authority_is_enough(app: App, auth: Host) -> None:
    (dot_ssh() / "known_hosts").write_text(f"@cert-authority auth,{auth.ip},[{auth.ip}]:* {auth.host_ca_public_key}\n")
    arguments = on(auth, "certificate", "dev", key_path=str(auth.cert_key_path))
    await whoami(app, "dev", **arguments)
    # The control: the same machine by a server that shows a plain key, and with an authority that is not its own.
    with pytest.raises(HostKeyUnconfirmed):
        await opened(app, **on(auth, "normal", "dev", key_path=str(auth.key_path)))
    other = subprocess.run(["ssh-keygen", "-y", "-f", auth.key_path], capture_output=True, text=True, check=True).stdout
    (dot_ssh() / "known_hosts").write_text(f"@cert-authority * {other}")
    with pytest.raises(HostKeyUnconfirmed):
        await opened(app, **arguments)


@pytest.mark.requirement("ways_in.agent")
async def test_the_agent_logs_in_where_it_is_asked_for(
    app: App, auth: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match="without an ssh-agent"):
        await opened(app, **on(auth, "normal", use_agent=True))
    with agent(tmp_path, auth.key_path) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        await whoami(app, "ops", **on(auth, "normal", use_agent=True))
    with pytest.raises(InvalidInput, match="does not answer"):
        await opened(app, **on(auth, "normal", use_agent=True))


@pytest.mark.requirement("ways_in.agent")
async def test_identity_agent_names_the_agent_and_identities_only_limits_it(
    app: App, auth: Host, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    target = f" HostName {auth.ip}\n User ops\n IdentityAgent {tmp_path}/agent\n"
    config(
        f"Host any\n{target}Host only\n{target} IdentitiesOnly yes\n IdentityFile {other}.pub\n"
        f"Host none\n HostName {auth.ip}\n User ops\n IdentityAgent none\n"
    )
    with agent(tmp_path, auth.key_path):
        await whoami(app, "ops", host="any")
        with pytest.raises(AuthFailed):
            await opened(app, host="only")
        with pytest.raises(InvalidInput, match="nothing to log in with"):
            await opened(app, host="none")


@pytest.mark.requirement("ways_in.agent")
async def test_an_encrypted_key_is_left_to_the_agent_that_has_it(
    app: App, auth: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = subprocess.run(["ssh-keygen", "-y", "-f", auth.key_path], capture_output=True, text=True, check=True)
    sealed = key(auth, "sealed", passphrase="open sesame")
    (dot_ssh() / "sealed.pub").write_text(public.stdout)
    config(f"Host sealed\n HostName {auth.ip}\n User ops\n IdentityFile {sealed}\n IdentitiesOnly yes\n")
    with pytest.raises(InvalidInput, match="key_passphrase"):
        await opened(app, host="sealed")
    await whoami(app, "ops", host="sealed", key_passphrase="open sesame")
    with agent(tmp_path, auth.key_path) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        await whoami(app, "ops", host="sealed")


@pytest.mark.requirement("ways_in.expired")
@pytest.mark.parametrize("how", ["password", "keyboard_interactive", "normal"])
async def test_a_password_that_must_be_changed_first_is_said_to_be_so(way: Way, auth: Host, how: str) -> None:
    from mcp_ssh.tools import session

    secret = {"key_path": str(auth.key_path)} if how == "normal" else {"password": auth.password}
    with pytest.raises(Fault) as fault:
        await way.call(session.connect, on(auth, how, "expired", **secret))
    assert fault.value.code == "auth_failed"
    assert "expired" in str(fault.value.payload)
    assert "new password" in str(fault.value.payload)


@pytest.mark.requirement("ways_in.limited_accounts")
async def test_an_account_whose_shell_is_a_menu_has_what_the_menu_has(app: App, auth: Host) -> None:
    session = await opened(app, **on(auth, "normal", "locked", key_path=str(auth.key_path)))
    assert await said(app, session.session_id, "status") == "ok\n"
    ran = await dispatch(app, command.run_command, {"session_id": session.session_id, "command": "id"}, OWNER)
    assert ran.exit_code == 77


@pytest.mark.requirement("ways_in.limited_accounts")
async def test_an_account_with_sftp_alone_is_connected_and_commands_are_refused(app: App, auth: Host) -> None:
    session = await opened(app, **on(auth, "normal", "sftponly", key_path=str(auth.key_path)))
    assert session.features == ["sftp"]


@pytest.mark.requirement("ways_in.end")
@pytest.mark.parametrize("server", ["limits", "dropbear"])
async def test_commands_are_ended_where_a_connection_has_one_channel_and_on_dropbear(
    app: App, auth: Host, server: str
) -> None:
    session = await opened(app, **on(auth, server, "dev", key_path=str(auth.key_path)))
    await ends_what_it_ran(app, auth, session.session_id)


@pytest.mark.requirement("ways_in.limits")
async def test_a_server_that_is_full_is_tried_again_until_it_has_room(app: App, auth: Host) -> None:
    held = [socket.create_connection((auth.ip, auth.ports["limits"])) for _ in range(2)]
    try:
        for each in held:
            each.settimeout(10)
            assert await anyio.to_thread.run_sync(each.recv, 8)
        async with anyio.create_task_group() as group:

            async def leave() -> None:
                await anyio.sleep(0.3)
                for each in held:
                    each.close()

            group.start_soon(leave)
            arguments = on(auth, "limits", "dev", key_path=str(auth.key_path), retry_delay=0.4, retries=5)
            await whoami(app, "dev", **arguments)
    finally:
        for each in held:
            each.close()


@pytest.mark.requirement("config.alias", "session.names")
async def test_an_alias_is_a_host_to_connect_to_and_a_session_to_work_on(app: App, way: Way, auth: Host) -> None:
    key(auth, "work")
    config(f"Include more/*.conf\nHost *\n Port {auth.ports['rotating']}\n")
    (dot_ssh() / "more").mkdir()
    (dot_ssh() / "more/a.conf").write_text(f"Host box\n HostName {auth.ip}\n User ops\n IdentityFile ~/.ssh/work\n")
    (dot_ssh() / "more/a.conf").chmod(0o600)
    first = await way.call(command.run_command, {"session_id": "box", "command": "id -un; echo $SSH_CONNECTION"})
    assert first["stdout"].startswith("ops\n")
    assert first["stdout"].rstrip().endswith(f" {auth.ip} {auth.ports['rotating']}")
    again = await way.call(command.run_command, {"session_id": "box", "command": "echo $SSH_CONNECTION"})
    assert again["stdout"] == first["stdout"].partition("\n")[2]
    from mcp_ssh.tools import session

    assert len((await way.call(session.list_sessions, {}))["sessions"]) == 1
    status = await way.call(session.status, {"session_id": "box"})
    assert (status["host"], status["username"], status["connected"]) == (auth.ip, "ops", True)
    opened_by_alias = await way.call(session.connect, {"host": "box"})
    assert opened_by_alias["session_id"] != status["session_id"]


@pytest.mark.requirement("session.names")
async def test_calls_that_name_an_alias_for_the_first_time_at_once_share_a_session(app: App, auth: Host) -> None:
    key(auth)
    config(f"Host box\n HostName {auth.ip}\n User ops\n")
    heard: list[str] = []

    async def ask() -> None:
        heard.append(await said(app, "box", "echo $SSH_CONNECTION"))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(ask)
    assert len(set(heard)) == 1
    assert len(app.sessions.seen_by(OWNER.caller)) == 1


@pytest.mark.requirement("session.names")
async def test_a_name_whose_connection_was_lost_is_connected_to_anew(app: App, auth: Host) -> None:
    key(auth)
    config(f"Host box\n HostName {auth.ip}\n User ops\n")
    first = await said(app, "box", "echo $SSH_CONNECTION")
    app.sessions.seen_by(OWNER.caller)[0].link.connection.abort()
    with anyio.fail_after(20):
        while app.sessions.seen_by(OWNER.caller)[0].connected:
            await anyio.sleep(0.01)
    assert await said(app, "box", "echo $SSH_CONNECTION") != first
    assert len(app.sessions.seen_by(OWNER.caller)) == 1


@pytest.mark.requirement("config.owner")
async def test_the_config_of_the_owner_is_not_for_every_caller(app: App, auth: Host) -> None:
    key(auth)
    config(f"Host box\n HostName {auth.ip}\n User ops\n")
    operator = DirectCall(caller("local", Role.OPERATOR, owner=False))
    with pytest.raises(ToolError, match="No active session"):
        await said(app, "box", "id", operator)
    for more in ({}, {"username": "ops", "password": "x"}):
        with pytest.raises(ToolError, match="no saved connection or alias of yours is called 'box'"):
            await opened(app, operator, host="box", retries=1, **more)
    admin = DirectCall(caller("boss", Role.ADMIN, owner=False))
    assert await said(app, "box", "id -un", admin) == "ops\n"
    async with open_rest(app, Role.OPERATOR) as client:
        answer = await client.post("/command/exec", params={"session_id": "box"}, json={"command": "id"})
    assert answer.status_code == 404, answer.text


@pytest.mark.requirement("config.refused_options")
@pytest.mark.parametrize("option", ["ProxyUseFdpass yes", "KnownHostsCommand /bin/echo", "CanonicalizeHostname yes"])
async def test_an_option_that_changes_target_or_trust_and_is_not_supported_is_refused_by_name(
    app: App, auth: Host, option: str
) -> None:
    config(f"Host box\n HostName {auth.ip}\n User ops\n {option}\n")
    with pytest.raises(ToolError, match=option.split(maxsplit=1)[0].lower()) as error:
        await opened(app, host="box")
    assert error.value.code == "unsupported"
    config(f"Host box\n HostName {auth.ip}\n User ops\n {option.split(maxsplit=1)[0]} no\n")
    with pytest.raises(InvalidInput, match="nothing to log in with"):
        await opened(app, host="box")


@pytest.mark.requirement("config.trust")
async def test_no_option_of_the_config_makes_an_unknown_machine_a_known_one(app: App, auth: Host) -> None:
    key(auth)
    (dot_ssh() / "known_hosts").unlink()
    weak = "StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n CheckHostIP no\n VerifyHostKeyDNS yes\n"
    config(f"Host box\n HostName {auth.ip}\n User ops\n {weak}Host own\n HostName {auth.ip}\n User ops\n")
    for name in ("box", "own"):
        with pytest.raises(HostKeyUnconfirmed):
            await opened(app, host=name)


@pytest.mark.requirement("config.trust")
async def test_known_hosts_files_and_the_alias_of_the_key_are_those_of_the_config(app: App, auth: Host) -> None:
    key(auth)
    lines = "".join(f"the-box {' '.join(line.split()[:2])}\n" for line in auth.public_keys)
    (dot_ssh() / "known_hosts").unlink()
    (dot_ssh() / "known_hosts_box").write_text(lines)
    target = f" HostName {auth.ip}\n User ops\n UserKnownHostsFile ~/.ssh/known_hosts_%n\n"
    config(f"Host box\n{target} HostKeyAlias the-box\nHost other\n{target}")
    await whoami(app, "ops", host="box")
    with pytest.raises(HostKeyUnconfirmed):
        await opened(app, host="other")
    assert (dot_ssh() / "known_hosts_box").read_text() == lines


@pytest.mark.requirement("config.trust")
async def test_strict_host_key_checking_leaves_nothing_to_accept(app: App, auth: Host) -> None:
    key(auth)
    (dot_ssh() / "known_hosts").unlink()
    config(f"Host box\n HostName {auth.ip}\n User ops\n StrictHostKeyChecking yes\n")
    with pytest.raises(Refused, match="unknown"):
        await opened(app, host="box")


@pytest.mark.requirement("ways_in.ipv6")
async def test_ipv6_addresses_are_hosts_with_and_without_brackets(app: App, auth: Host) -> None:
    for host in (auth.ip6, f"[{auth.ip6}]"):
        session = await opened(app, host=host, username="ops", key_path=str(auth.key_path))
        assert session.host == auth.ip6
    assert await said(app, f"ops@[{auth.ip6}]", "id -un") == "ops\n"


@pytest.mark.requirement("config.match_exec")
async def test_match_exec_runs_for_the_owner_and_for_nobody_else(app: App, auth: Host, tmp_path: Path) -> None:
    key(auth)
    ran = tmp_path / "ran"
    config(f'Match originalhost box exec "echo %h > {ran}"\n HostName {auth.ip}\n User ops\n')
    admin = DirectCall(caller("boss", Role.ADMIN, owner=False))
    with pytest.raises(Refused, match="Match exec"):
        await opened(app, admin, host="box")
    assert not ran.exists()
    await whoami(app, "ops", host="box")
    assert ran.read_text() == "box\n"


@pytest.mark.requirement("config.no_injection")
async def test_a_host_name_is_never_part_of_a_command_of_the_config(app: App, auth: Host, tmp_path: Path) -> None:
    config("Host *\n User ops\n ProxyCommand nc %h %p\n")
    with pytest.raises(Refused, match="plain word"):
        await opened(app, host=f"x;touch${{IFS}}{tmp_path.name}", password="x")
    with pytest.raises(Refused, match="plain word"):
        await opened(app, host="-oProxyCommand=x", password="x")


async def test_a_machine_that_gives_no_sign_in_connect_timeout_is_given_up(app: App, auth: Host) -> None:
    key(auth)
    config(f"Host box\n HostName {auth.ip}\n User ops\n ConnectTimeout 1\n")
    await anyio.to_thread.run_sync(auth.cut)
    with anyio.fail_after(10), pytest.raises(TimedOut, match="ConnectTimeout"):
        await opened(app, host="box", retries=1)
