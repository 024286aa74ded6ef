"""How a machine does, told the same on every family, and true by a second road."""

import pytest

from mcp_ssh.app import App
from mcp_ssh.tools import system
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Way
from tests.support.machine import number, opened, outside


@pytest.mark.requirement("system.reading")
async def test_numbers_are_the_machines_own(app: App, every: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, every)
    total_kib = int((await outside(every, "grep MemTotal: /proc/meminfo")).split()[1])
    memory = (await way.call(system.memory, on))["memory"]
    assert memory["total"] == total_kib * 1024
    assert 0 < memory["used"] < memory["total"]
    assert memory["use_percent"] == round(memory["used"] / memory["total"] * 100, 1)
    cpu = (await way.call(system.cpu, on))["cpu"]
    assert cpu["threads"] == int(await outside(every, "grep -c ^processor /proc/cpuinfo"))
    assert 1 <= cpu["cores"] <= cpu["threads"]
    assert cpu["model"]
    disks = {each["mount"]: each for each in (await way.call(system.disk, on))["disks"]}
    size_kib = int((await outside(every, "df -P -k /srv/small | tail -1")).split()[1])
    assert disks["/srv/small"]["size_bytes"] == size_kib * 1024
    assert disks["/srv/small"]["type"] == "tmpfs"
    assert (disks["/"]["type"], disks["/"]["filesystem"]) == ("overlay", "overlay")
    before = float((await outside(every, "cat /proc/uptime")).split()[0])
    uptime = await way.call(system.uptime, on)
    assert before <= uptime["seconds"] <= float((await outside(every, "cat /proc/uptime")).split()[0])
    users = await way.call(system.users, on)
    assert users["count"] == int(await outside(every, "grep -c . /etc/passwd")) == len(users["users"])
    assert users["users"][0] == {
        "username": "root", "uid": 0, "gid": 0, "home": "/root", "shell": every.shell_of("root"),
    }  # fmt: skip


@pytest.mark.requirement("system.reading")
async def test_interfaces_have_all_addresses_and_counters_that_count(app: App, every: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, every)
    found = {each["name"]: each for each in (await way.call(system.network, on))["interfaces"]}
    assert {f"{every.ip}/24", f"{every.ip6}/64"} <= set(found["eth0"]["addresses"])
    assert (found["eth0"]["ip"], found["eth0"]["status"], found["lo"]["ip"]) == (every.ip, "up", "127.0.0.1")
    assert found["eth0"]["mac"] == (await outside(every, "cat /sys/class/net/eth0/address")).strip()
    assert found["eth0"]["mtu"] == 1500
    again = {each["name"]: each for each in (await way.call(system.network, on))["interfaces"]}
    assert again["eth0"]["rx_bytes"] > found["eth0"]["rx_bytes"] > 0
    assert again["eth0"]["tx_bytes"] > found["eth0"]["tx_bytes"] > 0


@pytest.mark.requirement("system.processes")
async def test_processes_are_listed_with_whose_they_are(app: App, every: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, every)
    marked = number()
    pid = int(await outside(every, f"sleep {marked} >/dev/null 2>&1 & echo $!", "dash"))
    try:
        found = await way.call(system.processes, on)
        assert found["count"] == len(found["processes"]) > 3
        [ours] = [each for each in found["processes"] if each["pid"] == pid]
        assert (ours["user"], ours["command"], ours["state"]) == ("dash", f"sleep {marked}", "S")
        assert ours["memory_bytes"] > 0
        assert 0 <= ours["elapsed_s"] < 60
        theirs = await way.call(system.processes, {**on, "user": "dash"})
        assert {each["user"] for each in theirs["processes"]} == {"dash"}
        largest = await way.call(system.processes, {**on, "sort": "memory", "limit": 2})
        sizes = [each["memory_bytes"] for each in largest["processes"]]
        assert sizes == sorted(sizes, reverse=True)
        assert (len(sizes), largest["count"]) == (2, pytest.approx(found["count"], abs=5))
    finally:
        await outside(every, f"kill {pid}", "dash")


READING = (
    system.memory, system.cpu, system.disk, system.uptime, system.users, system.network, system.processes,
)  # fmt: skip


@pytest.mark.requirement("system.reading")
async def test_every_door_tells_them(way: Way, app: App, host: Host) -> None:
    on = await opened(way, app, host)
    for tool in READING:
        assert await way.call(tool, on)


@pytest.mark.requirement("system.reading")
async def test_an_interface_whose_other_end_is_down_is_not_up(app: App, host: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, host)
    made = "ip link add ours0 type veth peer name ours1; ip addr add 10.99.0.1/24 dev ours0; ip link set ours0 up"
    seen = "cat /sys/class/net/ours0/operstate"  # the kernel tells a moment later
    await outside(host, f"{made}; timeout 20 sh -c 'until [ $({seen}) = lowerlayerdown ]; do sleep 0.05; done'")
    try:
        found = {each["name"]: each for each in (await way.call(system.network, on))["interfaces"]}
        assert (found["ours0"]["addresses"], found["ours0"]["status"]) == (["10.99.0.1/24"], "down")
    finally:
        await outside(host, "ip link del ours0")


@pytest.mark.requirement("system.processes")
async def test_command_lines_keep_their_letters(app: App, host: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, host)
    marked = number()
    pid = int(await outside(host, f"sh -c 'sleep {marked}; :' größe >/dev/null 2>&1 & echo $!"))
    try:
        found = {each["pid"]: each for each in (await way.call(system.processes, on))["processes"]}
        assert found[pid]["command"] == f"sh -c sleep {marked}; : größe"
    finally:
        await outside(host, f"kill {pid}")
