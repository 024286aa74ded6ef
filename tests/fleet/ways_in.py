"""What makes a host one with several ways in: a handful of SSH servers, each with its own idea of whom to trust.

All of them run beside the usual one under systemd: OpenSSH as `sshd@NAME.service` with `/etc/ssh/sshd_NAME.conf`, and
`dropbear.service`. Written at build time, over what `bake.py` has made.
"""

import os
import subprocess
from pathlib import Path

from tests.fleet.bake import sshd_config, write
from tests.fleet.table import HOST_KEY_TYPES, MENU, USUAL_SSHD, WAYS_IN, HostRow, host_key_file, pid_file

JAIL = "srv/jail"

# What each server's configuration has in place of, or beside, the usual lines.
SERVERS = {
    "keyboard_interactive": """PubkeyAuthentication no
PasswordAuthentication no
AuthenticationMethods keyboard-interactive
""",
    "password": """PubkeyAuthentication no
KbdInteractiveAuthentication no
AuthenticationMethods password
""",
    "certificate": """TrustedUserCAKeys /etc/ssh/user_ca.pub
AuthorizedKeysFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
HostCertificate /etc/ssh/ssh_host_ed25519_key-cert.pub
""",
    "limits": """MaxSessions 1
MaxStartups 2:100:2
MaxAuthTries 2
LoginGraceTime 10
""",
    "two_sessions": """MaxSessions 2
""",
    "rotating": "",
    "key_and_password": """AuthenticationMethods publickey,password
""",
    "key_and_questions": """AuthenticationMethods publickey,keyboard-interactive
""",
}
SFTP_ONLY = f"""Match User sftponly
    ChrootDirectory /{JAIL}
    ForceCommand internal-sftp
    AllowTcpForwarding no
"""

SSHD_UNIT = """[Unit]
Description=OpenSSH server %i
After=network.target systemd-user-sessions.service
[Service]
Type=notify
ExecStart=/usr/sbin/sshd -D -f /etc/ssh/sshd_%i.conf
ExecReload=/bin/kill -HUP $MAINPID
KillMode=process
RuntimeDirectory=sshd
RuntimeDirectoryPreserve=yes
"""
# The servers share a directory in /run, which must not go with the first of them that is stopped.
SSH_DROP_IN = """[Service]
RuntimeDirectoryPreserve=yes
"""
DROPBEAR_KEY = "etc/dropbear/dropbear_ed25519_host_key"
DROPBEAR_UNIT = f"""[Unit]
Description=Dropbear SSH server
After=network.target systemd-user-sessions.service
[Service]
ExecStart=/usr/sbin/dropbear -F -E -p {WAYS_IN["dropbear"]} -r /{DROPBEAR_KEY}
KillMode=process
"""
# PAM asks these two for a one-time code, after the password or before it; of all others it asks the password alone.
# Tests write the file that holds their secrets. Who is not in it, or while there is none, is not let in.
CODES = "/etc/users.oath"
ONE_TIME_CODE = f"""auth [success=1 default=ignore] pam_succeed_if.so quiet user != {{user}}
auth required pam_oath.so usersfile={CODES} window=20 digits=8
"""
MENU_SCRIPT = """#!/bin/sh
# All that this shell lets its users do.
[ "$1" = -c ] || { echo 'menu: only status and uptime, as commands' >&2; exit 77; }
case $2 in
status) echo ok ;;
uptime) uptime ;;
*) echo 'menu: not allowed' >&2; exit 77 ;;
esac
"""


def bake_ways_in(root: Path, row: HostRow, keys: Path) -> None:
    """Give the host at `root` its further SSH servers, and the users of `WAYS_IN_USERS` what they need."""
    _openssh(root, row, keys)
    _dropbear(root)
    _shells(root)
    _jail(root)
    _pam(root)


def _openssh(root: Path, row: HostRow, keys: Path) -> None:
    units, ssh = root / "etc/systemd/system", root / "etc/ssh"
    write(units / "sshd@.service", SSHD_UNIT)
    write(units / "ssh.service.d/shared-directory.conf", SSH_DROP_IN)
    with (ssh / "sshd_config").open("a") as usual:
        usual.write(SFTP_ONLY)
    for name, lines in SERVERS.items():
        usual_lines = sshd_config(row.family, WAYS_IN[name], name if name == row.rotating else USUAL_SSHD)
        text = f"PidFile /{pid_file(name)}\n{_without(lines, usual_lines)}{lines}{SFTP_ONLY}"
        write(ssh / f"sshd_{name}.conf", text)
        _start_at_boot(units, f"sshd@{name}.service", "sshd@.service")
    for kind in HOST_KEY_TYPES:  # the same keys in files of their own, which can change without the others
        for suffix, mode in (("", 0o600), (".pub", 0o644)):
            key = (root / (host_key_file(USUAL_SSHD, kind) + suffix)).read_text()
            write(root / (host_key_file(row.rotating, kind) + suffix), key, mode)
    write(ssh / "user_ca.pub", (keys / "user_ca.pub").read_text())
    certificate = f"{row.name}_ed25519-cert.pub"
    write(ssh / "ssh_host_ed25519_key-cert.pub", (keys / "host" / certificate).read_text())


def _without(ours: str, usual: str) -> str:
    """The usual lines but those that ours replace. Of two lines for one option sshd takes the first, or the last."""
    replaced = {line.split()[0] for line in ours.splitlines()}
    return "".join(line for line in usual.splitlines(keepends=True) if line.split()[0] not in replaced)


def _dropbear(root: Path) -> None:
    """It has a key format of its own; the key is the host's."""
    (root / DROPBEAR_KEY).parent.mkdir(parents=True, exist_ok=True)
    convert = ["dropbearconvert", "openssh", "dropbear", f"/{host_key_file(USUAL_SSHD, 'ed25519')}", f"/{DROPBEAR_KEY}"]
    subprocess.run(["chroot", root, *convert], check=True, capture_output=True)
    units = root / "etc/systemd/system"
    write(units / "dropbear.service", DROPBEAR_UNIT)
    _start_at_boot(units, "dropbear.service", "dropbear.service")


def _start_at_boot(units: Path, name: str, unit: str) -> None:
    wanted = units / "multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    (wanted / name).symlink_to(f"/etc/systemd/system/{unit}")


def _shells(root: Path) -> None:
    write(root / MENU.lstrip("/"), MENU_SCRIPT, 0o755)
    with (root / "etc/shells").open("a") as shells:  # Dropbear lets nobody in whose shell is not named here
        shells.write(f"{MENU}\n/usr/bin/fish\n")
    # Without a file of its own, zsh asks its user at the first login what to put there.
    (root / "home/zsh/.zshrc").touch()


def _jail(root: Path) -> None:
    """What the user `sftponly` sees as the whole file system. Only root may change its top, as sshd demands."""
    user = (root / "home/sftponly").stat()
    home = root / JAIL / "home/sftponly"
    home.mkdir(parents=True)
    os.chown(home, user.st_uid, user.st_gid)


def _pam(root: Path) -> None:
    service = root / "etc/pam.d/sshd"
    first, password, others = service.read_text().partition("@include common-auth\n")
    before, after = (ONE_TIME_CODE.format(user=user) for user in ("code_password", "password_code"))
    write(service, first + before + password + after + others)
