"""What kind of Linux a machine is: told truly on every host, and asked once."""

import pytest

from mcp_ssh.app import App
from mcp_ssh.tools import session, system
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, Way
from tests.support.machine import connected, login, outside, trust

EXPECTED = {
    "deb": {
        "os": "debian", "family": "debian", "version_id": "12", "package_manager": "apt-get",
        "service_manager": "systemd", "init_system": "systemd", "firewall_backend": "iptables", "network_tool": "ip",
    },
    "rocky": {
        "os": "rocky", "family": "rhel", "version_id": "9.4", "package_manager": "dnf",
        "service_manager": "systemd", "init_system": "systemd", "firewall_backend": "firewalld",
    },
    "suse": {"os": "opensuse-leap", "family": "suse", "package_manager": "zypper", "service_manager": "systemd"},
    "arch": {
        "os": "arch", "family": "arch", "version_id": "", "package_manager": "pacman", "service_manager": "systemd",
    },
    "sysv": {"family": "debian", "package_manager": "apt-get", "service_manager": "sysvinit", "init_system": "init"},
    "alpine": {
        "os": "alpine", "family": "alpine", "package_manager": "apk", "service_manager": "openrc",
        "init_system": "init", "firewall_backend": "iptables",
    },
}  # fmt: skip


@pytest.mark.requirement("system.platform")
async def test_a_machine_says_what_it_is_through_every_door(way: Way, app: App, every: Host) -> None:
    host = every
    await trust(app, host)
    opened = await way.call(session.connect, login(host, "dev"))
    told = (await way.call(system.platform, {"session_id": opened["session_id"]}))["platform"]
    assert {key: told[key] for key in EXPECTED[host.name]} == EXPECTED[host.name]
    assert told["kernel"].split() == (await outside(host, "uname -s -r -m")).split()
    assert told["pretty_name"] in await outside(host, "cat /etc/os-release")


@pytest.mark.requirement("system.platform")
async def test_a_machine_is_asked_once_a_session(app: App, deb: Host, owner: DirectCall) -> None:
    on = app.sessions.find(owner.caller, await connected(app, deb, "dev", owner))
    first = await on.platform()
    assert await on.platform() is first
    assert await on.platform(refresh=True) is not first
