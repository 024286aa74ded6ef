"""The hosts of other families are real where it counts: their package manager, their services, their reboot."""

import pytest

from tests.fleet.hosts import Host
from tests.support.packages import CLEAN

MANAGERS = {  # host: how to read the repository, install, and whether a failing script is told by the exit code
    "deb": ("apt-get -qq update", "apt-get -qq --yes install", True),
    "sysv": ("apt-get -qq update", "apt-get -qq --yes install", True),
    "rocky": ("dnf -q makecache", "dnf -q -y install", True),
    "suse": ("zypper -n -q refresh", "zypper -n -q install", True),
    "arch": ("pacman -Sy --noconfirm", "pacman -S --noconfirm", False),
    "alpine": ("apk update", "apk add", True),
}
SERVICES = {"alpine": "rc-service pinger {0}", "sysv": "service pinger {0}"}


def test_the_package_manager_installs_what_a_package_needs_and_says_what_failed(every: Host) -> None:
    refresh, install, told = MANAGERS[every.name]
    try:
        _install(every, refresh, install, told=told)
    finally:
        every.ssh(CLEAN[every.name])
    # A package that is broken would fail whatever is done later.
    assert every.ssh("broken-fleet").returncode == 127


def _install(every: Host, refresh: str, install: str, *, told: bool) -> None:
    ready = every.ssh(f"{refresh} && {install} app-fleet && app-fleet && libfleet")
    assert ready.returncode == 0, ready.stderr
    assert ready.stdout.splitlines()[-2:] == ["app-fleet 1.0", "libfleet 1.0"]
    failed = every.ssh(f"{install} broken-fleet")
    assert "broken-fleet" in failed.stdout + failed.stderr
    assert (failed.returncode != 0) is told


def test_a_service_starts_and_stops(every: Host) -> None:
    words = SERVICES.get(every.name, "systemctl {0} pinger")
    for action, running in (("start", True), ("stop", False)):
        assert every.ssh(words.format(action)).returncode == 0
        assert (every.ssh(words.format("status")).returncode == 0) is running


@pytest.mark.parametrize("name", ["rocky", "sysv"])
def test_it_comes_back_from_a_reboot(name: str, request: pytest.FixtureRequest) -> None:
    host: Host = request.getfixturevalue(name)
    before = host.boot_count()
    host.ssh("touch /root/kept")
    host.reboot()
    assert host.boot_count() == before + 1
    assert host.ssh("ls /root/kept; rm /root/kept").returncode == 0


def test_firewalld_runs_and_really_cuts(rocky: Host) -> None:
    assert rocky.ssh("firewall-cmd --state").stdout.strip() == "running"
    assert rocky.console(["firewall-cmd", "--panic-on"]).returncode == 0
    assert rocky.ssh("true", timeout=30).returncode == 255
    assert rocky.console(["firewall-cmd", "--panic-off"]).returncode == 0
    assert rocky.ssh("true").returncode == 0
