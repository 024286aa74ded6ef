"""What follows from a machine's answer, without a machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_ssh.errors import RemoteFailed
from mcp_ssh.linux.system.platform import parse
from tests.support.platforms import MARK, told


@pytest.mark.parametrize(
    ("release", "family", "manager"),
    [
        ('ID=ubuntu\nID_LIKE=debian\nPRETTY_NAME="Ubuntu 24.04"', "debian", "apt-get"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"', "rhel", "dnf"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"', "suse", "zypper"),
        ("ID=alpine", "alpine", "apk"),
        ("ID=endeavouros\nID_LIKE=arch", "arch", "pacman"),
        ("ID=nobody-knows", "linux", "apt-get"),
        ("", "linux", "apt-get"),
    ],
)
def test_the_family_decides_the_package_manager(release: str, family: str, manager: str) -> None:
    platform = told(release, has="apt-get dnf yum zypper apk pacman")
    assert (platform.family, platform.package_manager) == (family, manager)


def test_a_family_without_its_own_package_manager_uses_what_is_there() -> None:
    assert told("ID=centos", has="yum").package_manager == "yum"
    assert told("ID=debian", has="pacman").package_manager == "pacman"
    assert told("ID=debian").package_manager is None


@pytest.mark.parametrize(
    ("init", "running", "has", "manager"),
    [
        ("systemd", "systemd", "systemctl service", "systemd"),
        ("", "systemd", "systemctl", "systemd"),
        ("init", "openrc", "rc-service service", "openrc"),
        ("init", "", "service", "sysvinit"),
        ("bash", "", "systemctl", "systemd"),
        ("bash", "", "", None),
    ],
)
def test_the_running_init_system_decides_the_service_manager(
    init: str, running: str, has: str, manager: str | None
) -> None:
    assert told(init=init, running=running, has=has).service_manager == manager


def test_firewalld_counts_only_while_it_runs() -> None:
    assert told(running="firewalld", has="firewall-cmd iptables").firewall_backend == "firewalld"
    assert told(has="firewall-cmd iptables").firewall_backend == "iptables"
    assert told(has="firewall-cmd nft").firewall_backend == "nftables"
    assert told(has="firewall-cmd").firewall_backend is None


def test_quotes_in_os_release_are_the_shells() -> None:
    assert told("PRETTY_NAME='It''s \"9\"'\nNAME=\"A \\$5 system\"\nBROKEN='").pretty_name == 'Its "9"'


@given(st.binary(max_size=400))
def test_an_answer_that_is_not_whole_is_an_error_whatever_it_says(noise: bytes) -> None:
    with pytest.raises(RemoteFailed):
        parse(noise, MARK)


@given(st.text(st.characters(exclude_characters="\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), max_size=80))
def test_any_os_release_line_is_read_without_a_crash(line: str) -> None:
    assert told(line.encode("utf-8", "replace").decode()).family
