"""What makes a plain root file system one of our hosts: users, keys, sshd, and what its init starts.

All of it is written once, at build time, into the host's own layer, so that starting a host configures nothing. The
functions write plain files: running a distribution's own tools in every root would cost seconds.
"""

import os
import secrets
import shutil
from pathlib import Path

from tests.fleet import families
from tests.fleet.table import (
    HOST_KEY_TYPES,
    PORT,
    SMALL_DISK,
    USUAL_SSHD,
    Family,
    HostRow,
    User,
    host_key_file,
)

SSHD_CONFIG = """Port {port}
{host_keys}
{pam}
PermitRootLogin yes
PasswordAuthentication yes
KbdInteractiveAuthentication yes
UseDNS no
PrintMotd no
AcceptEnv LANG LC_*
MaxSessions 10
# The default of 10 would throttle tests that open many connections at once.
MaxStartups 200
Subsystem sftp /usr/lib/openssh/sftp-server
"""

# Needs hardware, the network or a clock that a host in a namespace has not got.
SYSTEMD_MASK = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "kmod-static-nodes.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-firstboot.service",
    "systemd-journal-flush.service",
    "systemd-logind-varlink.socket",
    "systemd-machine-id-commit.service",
    "systemd-modules-load.service",
    "systemd-networkd.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-resolved.service",
    "systemd-sysctl.service",
    "systemd-timesyncd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
    "systemd-update-utmp.service",
)

# `pinger` is a small real service, there to be started, stopped and enabled.
SYSTEMD_PINGER = """[Unit]
Description=Small real unit
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
"""
# Until then only root may log in, and the first SSH banner means to the tests that the host is there for all.
SYSTEMD_SSH = """[Unit]
After=systemd-user-sessions.service
"""
# Runlevel 2 and nothing before it: what rcS would set up, boot.sh has.
SYSV_INITTAB = """id:2:initdefault:
l2:2:wait:/etc/init.d/rc 2
l0:0:wait:/etc/init.d/rc 0
l6:6:wait:/etc/init.d/rc 6
"""
SYSV_PINGER = """#!/bin/sh
### BEGIN INIT INFO
# Provides:          pinger
# Required-Start:    $remote_fs
# Required-Stop:     $remote_fs
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: small real service
### END INIT INFO
. /lib/lsb/init-functions
pidfile=/run/pinger.pid
case $1 in
start) start-stop-daemon --start -qobm --pidfile $pidfile --exec /bin/sleep -- 100000 ;;
stop) start-stop-daemon --stop --quiet --oknodo --remove-pidfile --pidfile $pidfile ;;
restart) "$0" stop && "$0" start ;;
reload) kill -0 "$(cat $pidfile)" ;;
status) status_of_proc -p $pidfile /bin/sleep pinger ;;
*) echo "Usage: $0 {start|stop|restart|reload|status}" >&2; exit 3 ;;
esac
"""
OPENRC_PINGER = """#!/sbin/openrc-run
name="small real service"
command=/bin/sleep
command_args="100000"
command_background=yes
pidfile=/run/pinger.pid
"""
OPENRC_SSHD = """#!/sbin/openrc-run
name="OpenSSH server"
command=/usr/sbin/sshd
command_args="-D"
command_background=yes
pidfile=/run/sshd.pid
start_pre() { mkdir -p /run/sshd; }
depend() { use logger; }
"""
OPENRC_RUNLEVELS = {"sysinit": (), "boot": (), "default": ("sshd", "crond", "syslog"), "shutdown": ("killprocs",)}
OPENRC_INITTAB = """::sysinit:/sbin/openrc sysinit
::sysinit:/sbin/openrc boot
::wait:/sbin/openrc default
::shutdown:/sbin/openrc shutdown
"""


def bake(root: Path, row: HostRow, keys: Path) -> None:
    """Turn the file system at `root` into the host `row`."""
    _identity(root, row)
    _users(root, row, keys)
    _sshd(root, row, keys)
    {"systemd": _systemd, "openrc": _openrc, "sysv": _sysv}[row.family.init](root)
    families.dress(root, row.family.name, write)
    if row.family.repository == "apk":
        write(root / "etc/apk/keys/fleet.rsa.pub", (keys / "apk.rsa.pub").read_text())
    (root / SMALL_DISK.lstrip("/")).mkdir(parents=True)


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file, replacing whatever had its name (a symlink is not followed)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _identity(root: Path, row: HostRow) -> None:
    write(root / "etc/hostname", f"{row.name}\n")
    write(root / "etc/hosts", f"127.0.0.1 localhost\n::1 localhost\n{row.ip} {row.name}\n{row.ip6} {row.name}\n")
    write(root / "etc/machine-id", secrets.token_hex(16) + "\n", 0o444)
    write(root / "etc/fstab", "")
    # There is no name server: fail at once instead of after the resolver's usual patience.
    write(root / "etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")


def _users(root: Path, row: HostRow, keys: Path) -> None:
    _accounts(root, row, keys)
    for user in row.users:
        if user.sudoers:
            write(root / f"etc/sudoers.d/{user.name}", f"{user.name} {user.sudoers}\n", 0o440)
        _home(root, row, user, keys)


def _accounts(root: Path, row: HostRow, keys: Path) -> None:
    """The three files that `useradd` and `passwd` would write."""
    password = (keys / "password-hash").read_text()
    ours = {user.name for user in row.users}
    passwd = [line for line in _lines(root / "etc/passwd") if line.split(":")[0] not in ours]
    shadow = [line for line in _lines(root / "etc/shadow") if line.split(":")[0] not in ours]
    group = _lines(root / "etc/group")
    for user in row.users:
        at = 0 if user.name == "root" else len(passwd)
        passwd.insert(at, f"{user.name}:x:{user.uid}:{user.uid}::{user.home}:{row.shell_of(user)}")
        shadow.insert(at, f"{user.name}:{password}:{user.password_set}:0:99999:7:::")
        if user.name != "root":
            group.append(f"{user.name}:x:{user.uid}:")
    for name, lines in (("passwd", passwd), ("shadow", shadow), ("group", group)):
        _rewrite(root / f"etc/{name}", lines)


def _home(root: Path, row: HostRow, user: User, keys: Path) -> None:
    home, skeleton = root / user.home.lstrip("/"), root / "etc/skel"
    if user.name != "root":
        home.mkdir(parents=True)
        if skeleton.is_dir():
            shutil.copytree(skeleton, home, dirs_exist_ok=True)
        home.chmod(0o755)
    write(home / ".ssh/authorized_keys", (keys / "id_ed25519.pub").read_text(), 0o600)
    (home / ".ssh").chmod(0o700)
    if user.bashrc and row.shell_of(user) == "/bin/bash":
        write(home / ".bashrc", user.bashrc)
    for path in (home, *home.rglob("*")):
        os.chown(path, user.uid, user.uid)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _rewrite(path: Path, lines: list[str]) -> None:
    """New content in the same file: its owner and mode stay."""
    path.write_text("\n".join(lines) + "\n")


def _sshd(root: Path, row: HostRow, keys: Path) -> None:
    ssh = root / "etc/ssh"
    shutil.rmtree(ssh / "sshd_config.d", ignore_errors=True)
    for left_by_package in ssh.glob("ssh_host_*") if ssh.exists() else ():
        left_by_package.unlink()
    for kind in HOST_KEY_TYPES:
        for suffix, mode in (("", 0o600), (".pub", 0o644)):
            key = (keys / "host" / f"{row.name}_{kind}{suffix}").read_text()
            write(root / (host_key_file(USUAL_SSHD, kind) + suffix), key, mode)
    write(ssh / "sshd_config", sshd_config(row.family, PORT, USUAL_SSHD))


def sshd_config(family: Family, port: int, key_server: str) -> str:
    """The configuration of an OpenSSH server on a port, with the host keys of `key_server`."""
    host_keys = "\n".join(f"HostKey /{host_key_file(key_server, kind)}" for kind in HOST_KEY_TYPES)
    pam = "UsePAM yes" if family.pam else "# built without PAM"
    return SSHD_CONFIG.format(port=port, host_keys=host_keys, pam=pam)


def _systemd(root: Path) -> None:
    units = root / "etc/systemd/system"
    for unit in SYSTEMD_MASK:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    write(units / "pinger.service", SYSTEMD_PINGER)
    write(units / "ssh.service.d/after-boot.conf", SYSTEMD_SSH)
    write(root / "etc/systemd/journald.conf", "[Journal]\nStorage=volatile\nRuntimeMaxUse=8M\n")
    write(root / "etc/systemd/system.conf", "[Manager]\nDefaultTimeoutStartSec=20s\nDefaultTimeoutStopSec=5s\n")
    _of_debian(root)


def _of_debian(root: Path) -> None:
    write(root / "etc/default/locale", "LANG=C.UTF-8\n")
    write(root / "etc/doas.conf", 'permit ops\npermit nopass "nopass"\n', 0o400)


def _sysv(root: Path) -> None:
    write(root / "etc/inittab", SYSV_INITTAB)
    write(root / "etc/init.d/pinger", SYSV_PINGER, 0o755)
    _of_debian(root)


def _openrc(root: Path) -> None:
    write(root / "etc/inittab", OPENRC_INITTAB)
    write(root / "etc/rc.conf", 'rc_sys="lxc"\nrc_parallel="YES"\nrc_logger="NO"\nrc_controller_cgroups="NO"\n')
    write(root / "etc/network/interfaces", "auto lo\n")
    levels = root / "etc/runlevels"
    for level, services in OPENRC_RUNLEVELS.items():
        for service in (levels / level).glob("*"):
            service.unlink()
        for name in services:
            (levels / level / name).symlink_to(f"/etc/init.d/{name}")
    write(root / "etc/init.d/sshd", OPENRC_SSHD, 0o755)
    write(root / "etc/init.d/pinger", OPENRC_PINGER, 0o755)
    _suid_busybox(root)
    _forget_the_virtual_machine(root)


def _suid_busybox(root: Path) -> None:
    """What the package busybox-suid brings elsewhere, so that `su` and `crontab` work; the image is without it."""
    shutil.copy(root / "bin/busybox", root / "bin/bbsuid")
    (root / "bin/bbsuid").chmod(0o4111)
    for program in ("bin/su", "usr/bin/crontab"):
        (root / program).unlink()
        (root / program).symlink_to("/bin/bbsuid")


def _forget_the_virtual_machine(root: Path) -> None:
    """Remove what the image has only because it was made for another product."""
    for path in (".dockerenv", "etc/init.d/quicksand-guest-agent", "etc/init.d/setup-dns"):
        (root / path).unlink(missing_ok=True)
    shutil.rmtree(root / "home/quicksand", ignore_errors=True)
    for name in ("passwd", "shadow", "group"):
        file = root / f"etc/{name}"
        _rewrite(file, [line for line in _lines(file) if not line.startswith("quicksand:")])
