"""The fleet itself: its hosts are what they claim to be, and its controls do what they say."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from tests.fleet.build import CHECKOUT
from tests.fleet.hosts import Host
from tests.fleet.machine import until
from tests.fleet.namespaces import FleetError, cgroup2_root, reap, started_at

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
    assert " up 0 min" in told.stdout or " up 1 min" in told.stdout


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


def test_a_lossy_link_loses_about_the_share_it_was_told_to(host: Host) -> None:
    def arrived() -> int:
        snmp = host.console(["cat", "/proc/net/snmp"]).stdout
        names, values = (line.split() for line in snmp.splitlines() if line.startswith("Udp:"))
        return int(values[names.index("NoPorts")])

    before = arrived()
    host.loss(30)
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        for _ in range(1000):
            sender.sendto(b"anybody there?", (host.ip, 9))
    assert 600 < arrived() - before < 800
    host.loss(5)
    with connect(host) as connection:
        assert connection.recv(4) == b"SSH-", "what is lost is sent again"


def test_a_slow_link_takes_its_time_in_both_directions(host: Host) -> None:
    size = 75_000  # bytes: 0.6 s at 1000 kbit/s
    host.rate(1000)
    assert seconds(lambda: host.ssh(f"head -c {size} /dev/urandom")) > 0.55
    assert seconds(lambda: host.ssh("cat > /dev/null", stdin="x" * size)) > 0.55


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
    alpine.ssh("iptables -I INPUT -p tcp --dport 22 -j DROP")
    assert failure(lambda: connect(alpine, timeout=0.2))
    alpine.heal()
    assert alpine.ssh("iptables -S INPUT").stdout == "-P INPUT ACCEPT\n"


# ---- the tests' own network -----------------------------------------------------------------------------------


def test_no_packet_leaves_the_namespace(deb: Host) -> None:
    with pytest.raises(OSError, match="Network is unreachable"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    assert "100% packet loss" in deb.ssh("ping -c 1 -W 1 192.0.2.1").stdout


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


# ---- what is left behind --------------------------------------------------------------------------------------


def descendants(pid: int) -> set[int]:
    """A process's children, their children, and so on."""
    children: dict[int, list[int]] = {}
    for child in all_processes():
        with contextlib.suppress(OSError):
            parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(child)
    found, todo = set[int](), [pid]
    while todo:
        todo += (new := children.get(todo.pop(), []))
        found.update(new)
    return found


def lives(pid: int, start: str | None) -> bool:
    """Whether it still runs. One that has ended keeps its entry until its parent, or the machine's init, has looked."""
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in "ZX" and started_at(pid) == start
    return False


def all_processes() -> list[int]:
    return [int(directory.name) for directory in Path("/proc").glob("[0-9]*")]


def networks(pids: Iterable[int]) -> set[Path]:
    """The network namespaces that processes are in."""
    found: set[Path] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found.add(Path(f"/proc/{pid}/ns/net").readlink())
    return found


@pytest.fixture
def other_fleet(fleet: object) -> "subprocess.Popen[str]":
    """A second fleet of one host, beside the first, as one started by hand."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fleet", "up", "alpine", "--", "cat"],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def read_inventory(process: "subprocess.Popen[str]") -> list[dict[str, object]]:
    assert process.stdout
    text = ""
    while not text.endswith("\n]\n"):
        line = process.stdout.readline()
        assert line, f"no inventory: {text}"
        text += line
    return json.loads(text)


def leftovers(owner: int) -> list[Path]:
    root = cgroup2_root()
    assert root
    return list(root.glob(f"fleet-{owner}.*"))


def test_a_fleet_killed_with_9_leaves_no_process_network_or_mount(
    other_fleet: "subprocess.Popen[str]", alpine: Host
) -> None:
    mounts = Path("/proc/self/mounts").read_text()
    with other_fleet as process:
        assert [host["name"] for host in read_inventory(process)] == ["alpine"]
        family = {(pid, started_at(pid)) for pid in descendants(process.pid)}
        assert len(family) > 6, "its keeper, its host's init, sshd, syslogd, crond …"
        its_networks = networks(pid for pid, _ in family)
        assert len(its_networks) == 2, "its own and its host's"
        assert alpine.ssh("true").returncode == 0, "two fleets with the same addresses do not meet"
        process.kill()
    until(lambda: not any(lives(*member) for member in family), SOON, "the end of all its processes")
    assert not its_networks & networks(all_processes())
    assert Path("/proc/self/mounts").read_text() == mounts
    reap()
    assert leftovers(process.pid) == []


def test_a_fleet_that_ends_leaves_not_even_a_directory(other_fleet: "subprocess.Popen[str]") -> None:
    with other_fleet as process:
        read_inventory(process)
        assert leftovers(process.pid)
        process.communicate()
    assert process.returncode == 0
    assert leftovers(process.pid) == []


# ---- without a fleet ------------------------------------------------------------------------------------------


def run_without_fleet(**environment: str) -> "subprocess.CompletedProcess[str]":
    """A pytest run with `--no-fleet` of a test that needs the fleet."""
    test = f"{Path(__file__).relative_to(CHECKOUT)}::test_the_console_works_while_the_link_is_cut[deb]"
    options = ["-c", os.devnull, "--rootdir", ".", "--noconftest", "-p", "tests.fleet.plugin", "--no-fleet"]
    ours = {name: value for name, value in os.environ.items() if name != "CI"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, test],
        cwd=CHECKOUT,
        env=ours | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_a_fleet_its_tests_are_skipped_and_named_with_the_reason() -> None:
    ended = run_without_fleet()
    assert ended.returncode == 0, ended.stdout
    assert "skipped, for want of real SSH hosts: 1 =" in ended.stdout
    assert "fleet: --no-fleet" in ended.stdout
    assert "::test_the_console_works_while_the_link_is_cut[deb]" in ended.stdout


def test_without_a_fleet_its_tests_fail_in_ci() -> None:
    ended = run_without_fleet(CI="true")
    assert ended.returncode == 1, ended.stdout
    assert "fleet: --no-fleet (in CI that is a failure, not a skip)" in ended.stdout
