"""The fleet itself: its hosts are what they claim to be, and its controls do what they say."""

import contextlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from tests.fleet.hosts import Host
from tests.fleet.namespaces import FleetError

SOON = 10.0  # seconds: bounds of waits, never what a test takes when all is well


def connect(host: Host, timeout: float = SOON) -> socket.socket:
    return socket.create_connection((host.ip, host.port), timeout)


def round_trip(host: Host) -> float:
    """Seconds to open a connection: exactly one round trip."""
    begin = time.monotonic()
    connect(host).close()
    return time.monotonic() - begin


def hears_nothing(connection: socket.socket, limit: float) -> bool:
    """Whether the other end stays silent, after what it has said already, without ending the connection."""
    connection.settimeout(limit)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return True
    except ConnectionResetError:
        pass
    return False


def failure(action: Callable[[], object]) -> str:
    """What it raised, or nothing."""
    try:
        action()
    except (OSError, FleetError) as error:
        return str(error)
    return ""


def seconds(action: Callable[[], object]) -> float:
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


# ---- the hosts ------------------------------------------------------------------------------------------------


def test_deb_is_a_debian_12_under_a_healthy_systemd(deb: Host) -> None:
    told = deb.ssh(". /etc/os-release; echo $ID $VERSION_ID; cat /proc/1/comm; systemctl is-system-running --wait")
    assert told.stdout.split() == ["debian", "12", "systemd", "running"]


def test_alpine_is_an_alpine_3_23_with_busybox_and_openrc(alpine: Host) -> None:
    told = alpine.ssh(
        ". /etc/os-release; echo $ID $VERSION_ID; readlink /proc/1/exe; readlink /proc/$$/exe; rc-status --runlevel"
    )
    assert told.stdout.split() == ["alpine", "3.23.6", "/bin/busybox", "/bin/busybox", "default"]
    assert "sshd" in alpine.ssh("rc-status default").stdout
    assert "musl" in alpine.ssh("ldd /bin/busybox").stdout


def test_every_user_logs_in_with_the_key_and_has_the_shell_that_the_table_says(host: Host) -> None:
    def log_in(user: str) -> list[str]:
        return host.ssh("id -un; echo $SHELL", user).stdout.split()[-2:]

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(log_in, host.users)) == [[user, host.shell_of(user)] for user in host.users]


def test_a_user_logs_in_with_the_password_alone(host: Host) -> None:
    options = [f"UserKnownHostsFile={host.known_hosts_path}", "PubkeyAuthentication=no", "StrictHostKeyChecking=yes"]
    argv = ["sshpass", "-p", host.password, "ssh", "-F", "/dev/null", *(word for o in options for word in ("-o", o))]
    told = subprocess.run([*argv, f"dev@{host.ip}", "id -un"], capture_output=True, text=True, timeout=30, check=False)
    assert (told.returncode, told.stdout) == (0, "dev\n")


def test_sudo_asks_ops_for_a_password_and_nopass_for_none_and_refuses_dev(host: Host) -> None:
    assert host.ssh("sudo -n id -u", "nopass").stdout == "0\n"
    assert host.ssh("sudo -n id -u", "ops").returncode != 0
    assert host.ssh("sudo -S -p '' id -u", "ops", stdin=f"{host.password}\n").stdout == "0\n"
    assert host.ssh("sudo -S -p '' id -u", "dev", stdin=f"{host.password}\n").returncode != 0


def test_su_takes_the_password_of_root(host: Host) -> None:
    assert host.ssh("su root -c 'id -u'", "dev", stdin=f"{host.password}\n").stdout.endswith("0\n")


def test_doas_on_deb_lets_nopass_and_refuses_dev(deb: Host) -> None:
    assert deb.ssh("doas -n id -u", "nopass").stdout == "0\n"
    assert deb.ssh("doas -n id -u", "dev").returncode != 0


def test_the_noisy_user_hears_from_its_rc_file_before_any_output(deb: Host) -> None:
    first, second = deb.ssh("echo hello", "noisy").stdout.splitlines()
    assert (first.startswith("noisy: "), second) == (True, "hello")


def test_the_small_disk_is_full_after_a_mebibyte(host: Host) -> None:
    file = f"{host.small_disk}/file"
    told = host.ssh(f"dd if=/dev/zero of={file} bs=1000 count=2000; wc -c < {file}", "dev")
    host.ssh(f"rm {file}", "dev")
    assert "No space left on device" in told.stderr
    assert int(told.stdout) == 1024 * 1024


def test_sftp_and_ipv6_work(host: Host) -> None:
    argv = [word.replace(f"@{host.ip}", f"@[{host.ip6}]") for word in host.ssh_argv("dev")[1:]]
    argv[argv.index("-p")] = "-P"
    told = subprocess.run(
        ["sftp", "-b", "-", *argv], input="pwd\n", capture_output=True, text=True, timeout=30, check=False
    )
    assert "/home/dev" in told.stdout, told.stderr


def test_forty_connections_at_once_are_all_greeted(host: Host) -> None:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(host)) for _ in range(40)]
        assert {connection.recv(8) for connection in connections} == {b"SSH-2.0-"}


def test_a_host_may_not_touch_the_machine_below(host: Host) -> None:
    told = host.ssh("mknod /tmp/disk b 8 0; date -s 2001-01-01; echo 1 > /proc/sys/kernel/panic; uptime; nproc")
    assert told.stdout.count("load average") == 1
    assert len([line for line in told.stderr.splitlines() if "permitted" in line or "Read-only" in line]) == 3
    assert re.search(r" up \d min", told.stdout)


# ---- the link -------------------------------------------------------------------------------------------------


def test_a_cut_link_stops_traffic_and_restore_brings_it_back(host: Host) -> None:
    with connect(host) as connection:
        assert connection.recv(4) == b"SSH-"
        host.cut()
        with pytest.raises(TimeoutError):
            connect(host, timeout=0.3)
        connection.sendall(b"SSH-2.0-test\r\n")  # the kernel keeps it, and sends it again and again
        assert hears_nothing(connection, 0.3)
        host.restore()
        connection.settimeout(SOON)
        assert connection.recv(4096), "the connection has survived the cut"


def test_a_delay_shows_twice_in_every_round_trip(host: Host) -> None:
    before = round_trip(host)
    host.delay(60)
    assert round_trip(host) == pytest.approx(before + 0.120, abs=0.050)
    host.delay(20, jitter_ms=10)
    assert before + 0.015 < round_trip(host) < before + 0.110
    host.clear()
    assert round_trip(host) < 0.015 + before


def test_a_lossy_link_loses_about_the_share_it_was_told_to(deb: Host) -> None:
    def arrived() -> int:
        snmp = deb.console(["cat", "/proc/net/snmp"]).stdout
        names, values = (line.split() for line in snmp.splitlines() if line.startswith("Udp:"))
        return int(values[names.index("NoPorts")])

    before = arrived()
    deb.loss(30)
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        for _ in range(1000):
            sender.sendto(b"anybody there?", (deb.ip, 9))
    assert 600 < arrived() - before < 800
    deb.loss(5)
    with connect(deb) as connection:
        assert connection.recv(4) == b"SSH-", "what is lost is sent again"


def test_a_slow_link_takes_its_time_in_both_directions(deb: Host) -> None:
    size = 75_000  # bytes: 0.6 s at 1000 kbit/s
    deb.rate(1000)
    assert seconds(lambda: deb.ssh(f"head -c {size} /dev/urandom")) > 0.55
    assert seconds(lambda: deb.ssh("cat > /dev/null", stdin="x" * size)) > 0.55


def test_what_a_test_did_to_link_and_keys_is_put_right_after_it(host: Host) -> None:
    host.cut()
    host.rotate_host_key()
    host.reset()
    assert host.ssh("true").returncode == 0


# ---- the console, the keys, the power -------------------------------------------------------------------------


def test_the_console_works_while_the_link_is_cut(host: Host) -> None:
    host.cut()
    told = host.console(["sh", "-c", "id -un; hostname; cat; exit 3"], input="typed")
    assert (told.returncode, told.stdout) == (3, f"root\n{host.name}\ntyped")


def test_a_console_command_that_hangs_is_ended_at_its_timeout(host: Host) -> None:
    with pytest.raises(Exception, match=r"did not end within 0\.2 s"):
        host.console(["sleep", "4711"], timeout=0.2)
    assert "4711" not in host.console(["ps", "-ef"]).stdout


def test_a_rotated_host_key_is_refused_by_a_strict_client_until_it_is_restored(host: Host) -> None:
    new = host.rotate_host_key()
    assert new.startswith("ssh-ed25519 ")
    assert new not in host.public_keys
    refused = host.ssh("true")
    assert (refused.returncode, "HOST IDENTIFICATION HAS CHANGED" in refused.stderr) == (255, True)
    host.restore_host_key()
    assert host.ssh("true").returncode == 0


def test_a_reboot_keeps_disk_host_key_and_link_and_nothing_else(host: Host) -> None:
    host.ssh("echo kept > /root/kept; echo gone > /tmp/gone; iptables -A INPUT -p tcp --dport 4711 -j DROP")
    host.delay(15)
    with connect(host) as connection:
        host.reboot()
        assert not hears_nothing(connection, SOON), "what was connected to it has ended"
    told = host.ssh("cat /root/kept; ls /tmp/gone; rm /root/kept; iptables -S; uptime")
    assert told.returncode == 0, "its host key is the one from before"
    assert told.stdout.startswith("kept\n")
    assert "No such file" in told.stderr
    assert "4711" not in told.stdout
    assert "up 0 min" in told.stdout
    assert round_trip(host) > 0.03


def test_a_host_that_pulled_its_own_plug_is_off_until_it_is_powered_on(host: Host) -> None:
    host.ssh("echo kept > /root/kept")
    boots = host.boot_count()
    host.ssh("poweroff")
    host.wait_until_off()
    assert "not running" in failure(lambda: host.console(["true"]))
    assert failure(lambda: connect(host))
    host.power_cycle()
    host.wait_for_boot(boots)
    assert host.ssh("cat /root/kept; rm /root/kept").stdout == "kept\n"


def test_a_host_that_an_earlier_test_locked_away_is_healed(alpine: Host) -> None:
    alpine.ssh("iptables -I INPUT -p tcp --dport 22 -j REJECT --reject-with tcp-reset")
    assert failure(lambda: connect(alpine))
    alpine.heal()
    assert alpine.ssh("iptables -S INPUT").stdout == "-P INPUT ACCEPT\n"


# ---- the tests' own network -----------------------------------------------------------------------------------


def test_no_packet_leaves_the_namespace(deb: Host) -> None:
    with pytest.raises(OSError, match="Network is unreachable"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    assert "100% packet loss" in deb.ssh("ping -c 1 -W 0.3 192.0.2.1").stdout


async def test_a_server_process_on_loopback_reaches_hosts_and_is_reached(deb: Host) -> None:
    program = (
        "import socket, sys; door = socket.create_server(('127.0.0.1', 0)); print(door.getsockname()[1], flush=True);"
        "door.accept()[0].sendall(socket.create_connection((sys.argv[1], 22)).recv(8))"
    )
    async with await anyio.open_process([sys.executable, "-c", program, deb.ip]) as server:
        assert server.stdout
        port = int(await server.stdout.receive())
        async with await anyio.connect_tcp("127.0.0.1", port) as client:
            assert await client.receive() == b"SSH-2.0-"
