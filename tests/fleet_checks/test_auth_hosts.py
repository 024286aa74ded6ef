"""The hosts `auth`, `bastion` and `inner`: each way in lets in whom it should and nobody else, and no way leads past
`bastion`."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.build import CHECKOUT
from tests.fleet.hosts import Fleet, Host
from tests.fleet.machine import until
from tests.fleet.table import ORDINARY
from tests.fleet.ways_in import CODES

SOON = 10.0  # seconds: bounds of waits, never what a test takes when all is well

ACCEPTED_ALONE = {  # which single ways each server of `auth` lets in by
    "normal": {"key", "password", "keyboard-interactive"},
    "keyboard_interactive": {"keyboard-interactive"},
    "password": {"password"},
    "certificate": {"certificate"},
    "limits": {"key", "password", "keyboard-interactive"},
    "rotating": {"key", "password", "keyboard-interactive"},
    "key_and_password": set[str](),
    "key_and_questions": set[str](),
    "two_sessions": {"key", "password", "keyboard-interactive"},
    "dropbear": {"key", "password"},
}


def ssh(
    host: Host,
    user: str,
    port: int,
    command: str = "id -un",
    *,
    key: Path | None = None,
    password: str = "",
    ways: str = "",
    options: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> "subprocess.CompletedProcess[str]":
    """The system's ssh, with this key alone, this password alone, or both; `ways` in that order and no others."""
    ways = ways or ",".join(["publickey"] * bool(key) + ["password"] * bool(password))
    ours = (f"PreferredAuthentications={ways}", "BatchMode=no", *options)
    argv = host.ssh_argv(user, port)
    if key:
        argv[argv.index(f"IdentityFile={host.key_path}")] = f"IdentityFile={key}"
    argv[1:1] = [word for option in ours for word in ("-o", option)]  # ssh takes the first of two values
    return subprocess.run(
        [*(["sshpass", "-e"] if password else []), *argv, command],
        env={"PATH": "/usr/bin:/bin", "SSHPASS": password, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def log_in(host: Host, way: str, user: str, port: int) -> "subprocess.CompletedProcess[str]":
    match way:
        case "key":
            return ssh(host, user, port, key=host.key_path)
        case "certificate":
            return ssh(host, user, port, key=host.cert_key_path)
        case _:
            return ssh(host, user, port, password=host.password, ways=way)


def refused(told: "subprocess.CompletedProcess[str]") -> bool:
    """Whether the server let nobody in, and said so."""
    reasons = ("Permission denied", "Too many authentication failures")
    return told.returncode == 255 and not told.stdout and any(reason in told.stderr for reason in reasons)


def sftp(host: Host, user: str, batch: str, port: int = 22) -> "subprocess.CompletedProcess[str]":
    argv = ["sftp", "-b", "-", *host.ssh_argv(user, port)[1:]]
    argv[argv.index("-p")] = "-P"
    return subprocess.run(argv, input=batch, capture_output=True, text=True, timeout=30, check=False)


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, timeout=30)
    return path


def sign(authority: Path, key: Path, user: str) -> None:
    argv = ["ssh-keygen", "-q", "-s", authority, "-I", "test", "-n", user, key.with_suffix(".pub")]
    subprocess.run(argv, check=True, timeout=30)


# ---- auth: the ways in ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ACCEPTED_ALONE)
def test_each_server_lets_in_by_its_ways_and_by_no_other(auth: Host, server: str) -> None:
    port = auth.ports[server]
    for way in ("key", "password", "keyboard-interactive", "certificate"):
        told = log_in(auth, way, "dev", port)
        if way in ACCEPTED_ALONE[server]:
            assert (told.returncode, told.stdout) == (0, "dev\n"), (way, told.stderr)
        else:
            assert refused(told), (way, told)


def test_the_table_above_has_every_server(auth: Host) -> None:
    assert set(ACCEPTED_ALONE) == set(auth.ports)


@pytest.mark.parametrize("way", ["password", "keyboard-interactive"])
def test_a_wrong_password_is_refused(auth: Host, way: str) -> None:
    port = auth.ports[way.replace("-", "_")]
    assert refused(ssh(auth, "dev", port, password="not it", ways=way, options=("NumberOfPasswordPrompts=1",)))


def test_the_key_and_then_the_password_together_are_let_in(auth: Host) -> None:
    port = auth.ports["key_and_password"]
    told = ssh(auth, "dev", port, key=auth.key_path, password=auth.password)
    assert (told.returncode, told.stdout) == (0, "dev\n"), told.stderr
    one_try = ("NumberOfPasswordPrompts=1",)
    assert refused(ssh(auth, "dev", port, key=auth.key_path, password="not it", options=one_try))


@pytest.mark.parametrize("user", ["password_code", "code_password"])
def test_pam_asks_two_users_for_password_and_code_and_takes_a_code_once(auth: Host, tmp_path: Path, user: str) -> None:
    secret = "3132333435363738393031323334353637383930"
    code = "84755224"  # the first one of this secret, by RFC 4226, appendix D
    auth.console(["sh", "-c", f"umask 077; cat >{CODES}"], f"HOTP/E/8 {user} - {secret}\n")
    askpass, asked = tmp_path / "askpass", tmp_path / "asked"
    askpass.write_text(
        f"#!/bin/sh\necho \"$1\" >>{asked}\ncase $1 in *One-time*) echo {code};; *) echo '{auth.password}';; esac\n"
    )
    askpass.chmod(0o755)
    argv = auth.ssh_argv(user)
    argv[1:1] = ["-o", "PreferredAuthentications=keyboard-interactive", "-o", "BatchMode=no"]
    argv[1:1] = ["-o", "NumberOfPasswordPrompts=1"]
    environment = {"PATH": "/usr/bin:/bin", "SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}

    def told() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*argv, "id -un"], env=environment, capture_output=True, text=True, timeout=30, check=False
        )

    assert told().stdout == f"{user}\n"
    prompts = ["Password:", "One-time password (OATH) for"]
    heard = asked.read_text().splitlines()
    for line, prompt in zip(heard, prompts if user == "password_code" else prompts[::-1], strict=True):
        assert prompt in line
    assert refused(told())
    assert log_in(auth, "key", user, auth.port).stdout == f"{user}\n"


def test_each_server_answers_on_ipv6_and_only_one_is_dropbear(auth: Host) -> None:
    banners: dict[str, str] = {}
    for server, port in auth.ports.items():
        with socket.create_connection((auth.ip6, port), SOON) as connection:
            banners[server] = connection.recv(100).decode(errors="replace")
    assert "dropbear" in banners.pop("dropbear")
    assert all(banner.startswith("SSH-2.0-OpenSSH_9.2p1") for banner in banners.values()), banners


def test_dropbear_has_sftp(auth: Host) -> None:
    assert "/home/dev" in sftp(auth, "dev", "pwd\n", auth.ports["dropbear"]).stdout


# ---- auth: certificates ---------------------------------------------------------------------------------------


def test_a_certificate_is_for_the_users_it_names(auth: Host) -> None:
    port = auth.ports["certificate"]
    assert ssh(auth, "root", port, key=auth.cert_key_path).stdout == "root\n"
    assert refused(ssh(auth, "ops", port, key=auth.cert_key_path))


def test_a_certificate_counts_only_from_the_authority_of_the_host(auth: Host, tmp_path: Path) -> None:
    known, unknown = make_key(tmp_path / "known"), make_key(tmp_path / "unknown")
    sign(auth.ca_key_path, known, "ops")
    sign(make_key(tmp_path / "authority"), unknown, "ops")
    assert ssh(auth, "ops", auth.ports["certificate"], key=known).stdout == "ops\n"
    assert refused(ssh(auth, "ops", auth.ports["certificate"], key=unknown))


def test_the_host_certificate_is_believed_by_whoever_trusts_its_authority(auth: Host, tmp_path: Path) -> None:
    def told_with(authority: str, host: str) -> "subprocess.CompletedProcess[str]":
        known = tmp_path / "known_hosts"
        known.write_text(f"@cert-authority {host} {authority}\n")
        options = (f"UserKnownHostsFile={known}",)
        return ssh(auth, "dev", auth.ports["certificate"], key=auth.cert_key_path, options=options)

    name = f"[{auth.ip}]:{auth.ports['certificate']}"
    assert told_with(auth.host_ca_public_key, name).stdout == "dev\n"
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text().strip()
    for told in (told_with(other, name), told_with(auth.host_ca_public_key, "192.0.2.1")):
        assert (told.returncode, "Host key verification failed" in told.stderr) == (255, True)


# ---- auth: limits and changing keys ---------------------------------------------------------------------------


@pytest.mark.parametrize(("server", "sessions"), [("normal", 2), ("limits", 1)])
def test_a_connection_has_as_many_sessions_as_its_server_allows(
    auth: Host, tmp_path: Path, server: str, sessions: int
) -> None:
    argv = auth.ssh_argv("dev", auth.ports[server])
    shared = ["-S", str(tmp_path / "socket")]
    with subprocess.Popen(
        [*argv[:1], "-M", *shared, *argv[1:], "echo first; cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdout
        assert first.stdout.readline() == "first\n"
        over_the_same = [*argv[:1], *shared, "-o", "ProxyCommand=false", *argv[1:], "echo second"]
        second = subprocess.run(over_the_same, capture_output=True, text=True, timeout=30, check=False)
        first.communicate("")
    assert second.stdout == ("second\n" if sessions == 2 else "")
    assert ("open refused by peer" in second.stderr) == (sessions == 1), second.stderr


def test_a_third_connection_that_has_not_logged_in_is_sent_away_by_limits(auth: Host) -> None:
    address = auth.ip, auth.ports["limits"]

    def greeting(connection: socket.socket) -> bytes:
        return connection.recv(100)

    with socket.create_connection(address, SOON) as first, socket.create_connection(address, SOON) as second:
        assert [greeting(connection)[:4] for connection in (first, second)] == [b"SSH-"] * 2
        with socket.create_connection(address, SOON) as third:
            assert greeting(third) == b"Exceeded MaxStartups\r\n"
    until(lambda: auth.ssh("true", "dev", port=auth.ports["limits"]).returncode == 0, SOON, "a place for the next")


def test_limits_ends_a_connection_after_two_wrong_keys(auth: Host, tmp_path: Path) -> None:
    wrong = tuple(f"IdentityFile={make_key(tmp_path / name)}" for name in ("one", "two"))
    assert ssh(auth, "dev", auth.ports["normal"], key=auth.key_path, options=wrong).stdout == "dev\n"
    told = ssh(auth, "dev", auth.ports["limits"], key=auth.key_path, options=wrong)
    assert (told.returncode, "Too many authentication failures" in told.stderr) == (255, True)


def test_only_the_rotating_server_gets_new_host_keys(auth: Host) -> None:
    new = auth.rotate_host_key()
    assert new not in auth.public_keys
    told = auth.ssh("true", port=auth.ports["rotating"])
    assert (told.returncode, "HOST IDENTIFICATION HAS CHANGED" in told.stderr) == (255, True)
    assert auth.ssh("true").returncode == 0
    assert auth.ssh("true", port=auth.ports["dropbear"]).returncode == 0
    auth.restore_host_key()
    assert auth.ssh("true", port=auth.ports["rotating"]).returncode == 0


# ---- auth: its users ------------------------------------------------------------------------------------------


@pytest.fixture
def shadow(auth: Host) -> Iterator[None]:
    """The passwords as they were, after a test that changes one."""
    before = auth.console(["cat", "/etc/shadow"]).stdout
    yield
    auth.console(["sh", "-c", "cat > /etc/shadow"], input=before)


def test_the_expired_user_gets_nothing_done_with_the_key(auth: Host) -> None:
    told = auth.ssh("id -un", "expired")
    assert (told.returncode, told.stdout) == (1, "")
    assert "Password change required" in told.stderr


def test_the_expired_user_logs_in_once_there_is_a_new_password(auth: Host, shadow: None, tmp_path: Path) -> None:
    new, answers = "Fr3sh-start!", tmp_path / "answers"
    answers.write_text(f"#!/bin/sh\ncase $1 in *'ew password'*) echo '{new}' ;; *) echo '{auth.password}' ;; esac\n")
    answers.chmod(0o700)
    port, way = auth.ports["keyboard_interactive"], "keyboard-interactive"
    asked = {"SSH_ASKPASS": str(answers), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": "none"}
    told = ssh(auth, "expired", port, ways=way, environment=asked)
    assert (told.returncode, told.stdout) == (0, "expired\n"), told.stderr
    assert ssh(auth, "expired", port, password=new, ways=way).stdout == "expired\n"


def test_the_locked_user_has_two_commands(auth: Host) -> None:
    assert auth.ssh("status", "locked").stdout == "ok\n"
    assert "load average" in auth.ssh("uptime", "locked").stdout
    for command in ("id", "status; id", "sh -c 'id'"):
        told = auth.ssh(command, "locked")
        assert (told.returncode, told.stdout) == (77, ""), command
    assert sftp(auth, "locked", "pwd\n").returncode == 255


def test_the_sftponly_user_is_in_a_jail_and_runs_no_command(auth: Host) -> None:
    told = sftp(auth, "sftponly", "pwd\nput /etc/hostname note\nls /home/sftponly\nrm note\n-put /etc/hostname /note\n")
    assert "Remote working directory: /home/sftponly" in told.stdout
    assert "/home/sftponly/note" in told.stdout
    assert "Permission denied" in told.stderr
    assert "Can't ls" in sftp(auth, "sftponly", "-ls /etc\n").stderr
    command = auth.ssh("id", "sftponly")
    assert (command.returncode, command.stdout) == (1, "This service allows sftp connections only.\n")


@pytest.mark.parametrize(
    ("user", "own_words", "expected"),
    [
        ("fish", "set words one two; echo (count $words)", "2\n"),
        ("zsh", "print -r -- ${(U):-word}", "WORD\n"),
        ("tcsh", "set word = one; if ($word == one) echo $tcsh:r", "6.24\n"),
    ],
)
def test_a_user_of_another_shell_has_it(auth: Host, user: str, own_words: str, expected: str) -> None:
    told = auth.ssh(own_words, user)
    assert (told.stdout, told.stderr) == (expected, "")


def test_zsh_on_a_terminal_asks_its_user_no_questions(auth: Host) -> None:
    argv = auth.ssh_argv("zsh")
    terminal = [*argv[:1], "-tt", *argv[1:]]
    told = subprocess.run(
        terminal, input="echo $((6*7)).\nexit\n", capture_output=True, text=True, timeout=30, check=False
    )
    assert (told.returncode, "42." in told.stdout, "newuser" in told.stdout) == (0, True, False)


# ---- inner, and the way to it ---------------------------------------------------------------------------------


def connects(address: str, timeout: float = 0.3) -> bool:
    try:
        socket.create_connection((address, 22), timeout).close()
    except TimeoutError:
        return False
    return True


def test_inner_cannot_be_reached_directly(inner: Host) -> None:
    for address in (inner.ip, inner.ip6):
        with pytest.raises(OSError, match="Network is unreachable"):
            connects(address)


def test_bastion_forwards_no_packets_to_inner(inner: Host, bastion: Host) -> None:
    route = ["ip", "route", "add", f"{inner.ip}/32", "via", bastion.ip]
    subprocess.run(route, check=True, timeout=SOON)
    try:
        assert not connects(inner.ip)
    finally:
        subprocess.run([*route[:2], "del", *route[3:]], check=True, timeout=SOON)


def test_inner_is_reached_by_a_login_on_bastion(inner: Host, bastion: Host) -> None:
    told = inner.ssh("hostname; echo $SSH_CLIENT", "dev")
    assert told.stdout.startswith("inner\n10.78.0.1 "), told.stderr
    assert bastion.ssh(f"timeout 5 bash -c 'head -c 4 < /dev/tcp/{inner.ip}/22'").stdout == "SSH-"
    assert bastion.ssh(f"timeout 5 bash -c 'head -c 4 < /dev/tcp/{inner.ip6}/22'").stdout == "SSH-"


def test_proxyjump_in_a_configuration_leads_to_inner(inner: Host, bastion: Host, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"Host bastion\n  HostName {bastion.ip}\n  User ops\nHost inner\n  HostName {inner.ip}\n  ProxyJump bastion\n"
        f"  User dev\nHost *\n  IdentityFile {inner.key_path}\n  UserKnownHostsFile {inner.known_hosts_path}\n"
        "  StrictHostKeyChecking yes\n  BatchMode yes\n"
    )
    argv = ["ssh", "-F", str(config), "inner", "id -un; hostname"]
    told = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert told.stdout == "dev\ninner\n", told.stderr


def test_inner_has_console_and_link_of_its_own(inner: Host, bastion: Host) -> None:
    inner.cut()
    assert inner.console(["hostname"]).stdout == "inner\n"
    assert bastion.ssh(f"timeout 0.3 bash -c ': < /dev/tcp/{inner.ip}/22'").returncode == 124, "silence, no error"
    inner.restore()
    assert inner.ssh("true").returncode == 0
    inner.delay(60)
    round_trip = bastion.ssh(f"ping -c 1 -W 5 {inner.ip}").stdout
    assert 120 <= float(round_trip.partition("time=")[2].split()[0]) < 200, round_trip


def test_inner_is_there_again_after_a_reboot_of_bastion_and_of_itself(inner: Host, bastion: Host) -> None:
    bastion.reboot()
    assert inner.ssh("hostname").stdout == "inner\n"
    inner.reboot()
    assert inner.ssh("hostname").stdout == "inner\n"


def test_inner_is_healed_when_it_was_left_off(inner: Host) -> None:
    inner.ssh("poweroff")
    inner.wait_until_off()
    inner.heal()
    assert inner.ssh("hostname").stdout == "inner\n"


# ---- which hosts are started ----------------------------------------------------------------------------------


def test_a_fleet_begins_with_the_ordinary_hosts(fleet: Fleet) -> None:
    assert set(fleet.boot_seconds) == set(ORDINARY)


def test_a_host_that_is_not_named_is_off_until_it_is_needed_and_inner_needs_bastion() -> None:
    program = (
        "from tests.fleet import build, hosts, namespaces; namespaces.enter_own_network()\n"
        "with hosts.running_fleet(build.cache_path(), ['inner']) as fleet:\n"
        "    print(*fleet.boot_seconds, fleet.hosts['inner'].ssh('hostname').stdout.strip())\n"
        "    try: fleet.alpine.console(['true'])\n"
        "    except namespaces.FleetError as error: print(error)\n"
        "    fleet.alpine.heal()\n"
        "    print(fleet.alpine.ssh('hostname').stdout)\n"
    )
    argv = [sys.executable, "-c", program]
    ended = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout.split("\n")[:3] == ["bastion inner inner", "alpine is not running", "alpine"], ended.stderr
