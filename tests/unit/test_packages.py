"""Names of packages and answers of package managers, without a machine."""

import pytest

from mcp_ssh.errors import Unsupported
from mcp_ssh.linux.packages import MANAGERS, choose
from mcp_ssh.linux.packages.base import ManagerOutput, PlannedChange, reason
from mcp_ssh.linux.packages.debian_names import ESSENTIALS, LOCAL_NAMES, resolve
from mcp_ssh.linux.system.platform import Platform
from tests.support.platforms import told


@pytest.mark.requirement("setup.names")
@pytest.mark.parametrize(
    ("manager", "names", "skipped"),
    [
        ("apt-get", ("dnsutils", "ufw", "vim", "docker.io"), ()),
        ("dnf", ("bind-utils", "firewalld", "vim-enhanced", "docker.io"), ()),
        ("yum", ("bind-utils", "firewalld", "vim-enhanced", "docker.io"), ()),
        ("zypper", ("bind-utils", "firewalld", "vim", "docker.io"), ()),
        ("apk", ("bind-tools", "vim", "docker.io"), ("ufw",)),
        ("pacman", ("bind", "vim", "docker.io"), ("ufw",)),
    ],
)
def test_names_of_debian_are_the_machines_own(manager: str, names: tuple[str, ...], skipped: tuple[str, ...]) -> None:
    resolved = resolve(manager, ["dnsutils", "ufw", "vim", "docker.io", "vim"])
    assert (resolved.names, resolved.skipped) == (names, skipped)


@pytest.mark.requirement("setup.names")
def test_one_name_may_be_several_and_several_one() -> None:
    assert resolve("dnf", ["build-essential", "make"]).names == ("gcc", "gcc-c++", "make")
    assert resolve("yum", ["iptables-persistent", "netfilter-persistent"]).names == ("iptables-services",)


@pytest.mark.requirement("setup.names")
def test_every_manager_has_its_essentials_under_its_own_names() -> None:
    assert set(ESSENTIALS) == set(MANAGERS)
    assert len(ESSENTIALS["apt-get"]) == 47
    for manager, names in ESSENTIALS.items():
        assert len(set(names)) == len(names)
        # A name in the table may be Debian's and its own: only those that translate to something else are foreign.
        foreign = {name for name, local in LOCAL_NAMES.get(manager, {}).items() if name not in local}
        assert not foreign.intersection(names), manager


def test_a_machine_without_a_package_manager_is_told_so() -> None:
    bare: Platform = told("ID=lfs")
    with pytest.raises(Unsupported, match="no package manager"):
        choose(bare)
    assert choose(told("ID=centos", has="yum")).name == "yum"


WIDE = """Dependencies resolved.
================================================================================
 Package                        Arch    Version                Repository  Size
================================================================================
Installing:
 a-package-with-quite-a-long-name-indeed
                                x86_64  1:2.3.4-5.el9          baseos     1.2 M
Upgrading:
 glibc                          x86_64  2.34-100.el9           baseos     2.0 M
     replacing  glibc-old.x86_64 2.33-1
Removing unused dependencies:
 gone                           noarch  1-1                    @baseos     12 k

Transaction Summary
================================================================================
Install  1 Package
"""


def test_long_rows_of_dnf_are_read_over_two_lines() -> None:
    dnf = MANAGERS["dnf"]
    assert dnf.parse_plan(WIDE) == [
        PlannedChange("a-package-with-quite-a-long-name-indeed", "1:2.3.4-5.el9"),
        PlannedChange("glibc", "2.34-100.el9"),
        PlannedChange("gone", None),
    ]
    updates = (
        "\na-package-with-quite-a-long-name-indeed.x86_64\n           2.0-1   baseos\nglibc.x86_64  2.34-1  baseos\n"
    )
    assert dnf.newer(updates + "Obsoleting Packages\nx.noarch 1 y\n") == {
        "a-package-with-quite-a-long-name-indeed": "2.0-1",
        "glibc": "2.34-1",
    }


def test_a_package_half_way_is_not_installed() -> None:
    apt = MANAGERS["apt-get"].inventory("ii  whole 1.0-1\niF  half 1.0-1\nrc  removed 1.0-1\nhi  held 2.0\n")
    assert (apt.versions, apt.broken) == ({"whole": "1.0-1", "held": "2.0"}, {"half"})
    apk = MANAGERS["apk"].inventory("P:whole\nV:1.0-r0\nP:half\nV:1.0-r0\nf:s\n")
    assert (apk.versions, apk.broken) == ({"whole": "1.0-r0"}, {"half"})
    kernels = MANAGERS["dnf"].inventory("kernel 6.2-1\nkernel 6.1-1\n")
    assert kernels.versions == {"kernel": "6.1-1, 6.2-1"}


def test_the_reason_of_a_failure_is_the_managers_line_of_error() -> None:
    assert reason("Reading package lists...\nE: Unable to locate package x\n") == "E: Unable to locate package x"
    apk = "ERROR: unable to select packages:\n  x (no such package):\n    required by: world[x]\n"
    assert reason(apk) == "ERROR: unable to select packages:; x (no such package):"
    assert reason("no news\n") == "no news"
    assert reason("") == "it said nothing"


def test_codes_of_zypper_from_a_hundred_on_are_no_failures_but_one() -> None:
    zypper = MANAGERS["zypper"]
    assert [code for code in (0, 1, 4, 7, 8, 102, 103, 104, 106) if zypper.succeeded(ManagerOutput(code, ""))] == [
        0,
        102,
        103,
        106,
    ]


def test_what_was_broken_before_is_no_failure_of_apks() -> None:
    count = "1 error; 67.8 MiB in 60 packages\n"
    assert [MANAGERS["apk"].succeeded(ManagerOutput(1, said)) for said in (count, "ERROR: no such\n" + count, "")] == [
        True, False, False,
    ]  # fmt: skip


def test_the_names_that_apk_finds_may_have_numbers_in_them() -> None:
    said = "font-misc-100dpi-1.0.3-r5 - X.org fonts\nlibfoo2-2.1_git20240101-r0 - a - b\n"
    assert [(each.name, each.summary) for each in MANAGERS["apk"].parse_search(said)] == [
        ("font-misc-100dpi", "X.org fonts"),
        ("libfoo2", "a - b"),
    ]
