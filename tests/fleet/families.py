"""What a Debian root file system becomes another family by: layers of packages, an os-release, and what is hidden.

No registry that we may use has root file systems of these families, but Debian has their package managers, service
managers and firewalls, the real ones. So such a host is real in what it manages packages, services and firewall with,
and Debian below.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

LAYERS = {  # layer over `debian`: the packages that are installed in it
    "rhel": ("dnf", "rpm", "firewalld", "nftables"),
    "suse": ("zypper", "rpm"),
    "arch": ("pacman-package-manager", "makepkg", "libarchive-tools"),
    "sysv": ("sysvinit-core", "sysv-rc", "initscripts", "insserv"),
    "otp": ("libpam-oath",),
    "persistent": ("iptables-persistent",),  # Debian's way to keep rules; elsewhere a service of ours does
}

OS_RELEASE = {
    "rhel": """NAME="Rocky Linux"
VERSION="9.4 (Blue Onyx)"
ID="rocky"
ID_LIKE="rhel centos fedora"
VERSION_ID="9.4"
PLATFORM_ID="platform:el9"
PRETTY_NAME="Rocky Linux 9.4 (Blue Onyx)"
""",
    "suse": """NAME="openSUSE Leap"
VERSION="15.6"
ID="opensuse-leap"
ID_LIKE="suse opensuse"
VERSION_ID="15.6"
PRETTY_NAME="openSUSE Leap 15.6"
""",
    "arch": """NAME="Arch Linux"
PRETTY_NAME="Arch Linux"
ID=arch
BUILD_ID=rolling
""",
}
"""Of the families that Debian only plays."""

_DEBIANS_OWN = ("usr/bin/apt*", "usr/bin/dpkg*", "usr/sbin/update-rc.d", "etc/debian_version", "etc/apt")

_YUM_REPO = "[local]\nname=local\nbaseurl=file:///srv/repo/rpm\ngpgcheck=0\n"
_ZYPPER_REPO = "[local]\nname=local\nenabled=1\nautorefresh=0\nbaseurl=dir:///srv/repo/rpm\ntype=rpm-md\ngpgcheck=0\n"
_PACMAN = """[options]
HoldPkg = pacman glibc
Architecture = auto
SigLevel = Never
LocalFileSigLevel = Never
[core]
Server = file:///srv/repo/arch
"""
_FILES = {
    "debian": {"etc/apt/sources.list": "deb [trusted=yes] file:/srv/repo/deb ./\n"},
    "rhel": {
        "etc/redhat-release": "Rocky Linux release 9.4 (Blue Onyx)\n",
        "etc/yum.repos.d/local.repo": _YUM_REPO,
        "etc/dnf/dnf.conf": "[main]\ngpgcheck=0\nreposdir=/etc/yum.repos.d\n",
    },
    "suse": {"etc/zypp/repos.d/local.repo": _ZYPPER_REPO},
    "arch": {"etc/pacman.conf": _PACMAN},
    "alpine": {"etc/apk/repositories": "/srv/repo/apk/x86_64/Packages.adb\n"},
}
# Debian's rpm keeps its database in the home of whoever calls it.
_RPM_MACROS = "%_dbpath /var/lib/rpm\n"


def install(root: Path, packages: tuple[str, ...], work: Path, run: Callable[..., str], release: Path | None) -> None:
    """Install Debian packages into a root file system, with the registries it was made from.

    Args:
        root: The root file system.
        packages: Debian's packages.
        work: Where what is downloaded may lie.
        run: Runs a command to its end.
        release: An RPM package of what a system of that family has from the start, for rpm's database.
    """
    lists, archives = work / "apt-lists", work / f"{root.name}.archives"
    for directory in (lists, archives / "partial"):
        directory.mkdir(parents=True, exist_ok=True)
    mounts = (("/dev", "dev"), (lists, "var/lib/apt/lists"), (archives, "var/cache/apt/archives"))
    run("mount", "-t", "proc", "proc", root / "proc")
    for source, target in (*mounts, ("/etc/apt/apt.conf.d", "etc/apt/apt.conf.d")):
        run("mount", "--bind", source, root / target)
    for name in ("resolv.conf", "hosts"):
        (root / "etc" / name).unlink(missing_ok=True)
        shutil.copy(Path("/etc") / name, root / "etc" / name)
    no_start = root / "usr/sbin/policy-rc.d"  # nothing that is installed may be started here
    no_start.write_text("#!/bin/sh\nexit 101\n")
    no_start.chmod(0o755)
    apt = ("chroot", root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq")
    options = ("-o", "Dpkg::Options::=--force-unsafe-io", "-o", "Dpkg::Options::=--force-confnew")
    try:
        if not any(lists.glob("*Packages*")):
            run(*apt, "update")
        run(*apt, "install", "--yes", "--no-install-recommends", *options, *packages)
        if release:
            (root / "etc/rpm").mkdir(exist_ok=True)
            (root / "etc/rpm/macros").write_text(_RPM_MACROS)
            shutil.copy(release, root / "root")
            run("chroot", root, "rpm", "--force-debian", "--install", "--nodeps", f"/root/{release.name}")
            (root / "root" / release.name).unlink()
    finally:
        for target in ("etc/apt/apt.conf.d", "var/cache/apt/archives", "var/lib/apt/lists", "dev", "proc"):
            run("umount", root / target)
        no_start.unlink()
        for kept in root.glob("etc/iptables/rules.v*"):  # iptables-persistent keeps those of the machine it is built on
            kept.unlink()


def dress(root: Path, family: str, write: Callable[[Path, str], None]) -> None:
    """Give a baked host the looks of its family, and its package manager the one repository there is."""
    if family in OS_RELEASE:
        write(root / "usr/lib/os-release", OS_RELEASE[family])
        for path in [path for pattern in _DEBIANS_OWN for path in root.glob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for registry in (root / "etc/apt/sources.list.d").glob("*"):
        registry.unlink()
    for name, text in _FILES[family].items():
        write(root / name, text)
    if family == "rhel":
        (root / "usr/bin/yum").symlink_to("dnf")
        # The names that the family knows these services by.
        for theirs, ours in (("sshd", "ssh"), ("crond", "cron")):
            link = root / f"etc/systemd/system/{theirs}.service"
            link.unlink(missing_ok=True)
            link.symlink_to(f"/lib/systemd/system/{ours}.service")
