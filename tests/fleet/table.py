"""Which hosts the fleet has, and who can log in to them: one row per host, one row per user.

A further host is a further row here, plus whatever its family needs in `build.py` (layers) and `bake.py` (files).
"""

from dataclasses import dataclass

PASSWORD = "S3cret-pass!"  # of every user on every host: nothing outside the namespace can reach them
PORT = 22
SMALL_DISK = "/srv/small"  # a 1 MiB file system on every host, for full-disk tests

NETWORK = "10.77.0"
NETWORK6 = "fd77:"
GATEWAY, GATEWAY6 = f"{NETWORK}.1", f"{NETWORK6}:1"  # the tests' own address on the hosts' network

HOST_KEY_TYPES = ("ed25519", "ecdsa")


@dataclass(frozen=True)
class User:
    """A login. Every user has `PASSWORD` and accepts the fleet's key."""

    name: str
    uid: int
    login_shell: str = "/bin/bash"
    sudoers: str = ""  # what /etc/sudoers grants, after the user's name; empty: nothing
    bashrc: str = ""  # appended to ~/.bashrc, which bash also reads for `ssh host command`

    @property
    def home(self) -> str:
        return "/root" if self.name == "root" else f"/home/{self.name}"


USERS = (
    User("root", 0),
    User("ops", 1001, sudoers="ALL=(ALL:ALL) ALL"),
    User("nopass", 1002, sudoers="ALL=(ALL:ALL) NOPASSWD: ALL"),
    User("dev", 1003),
    User("dash", 1004, login_shell="/bin/dash"),
    User("noisy", 1005, bashrc="echo 'noisy: this line comes from the rc file'\n"),
)


@dataclass(frozen=True)
class Family:
    """What hosts of one kind of distribution share."""

    name: str
    init: str  # which init runs as PID 1: "systemd" or "openrc"
    only_shell: str = ""  # set where no user can have another shell
    pam: bool = True


DEBIAN = Family("debian", init="systemd")
ALPINE = Family("alpine", init="openrc", only_shell="/bin/ash", pam=False)


@dataclass(frozen=True)
class HostRow:
    """One host: its disk is its own baked layer over `layers` (topmost first)."""

    name: str
    family: Family
    layers: tuple[str, ...]
    number: int  # last part of its addresses

    @property
    def ip(self) -> str:
        return f"{NETWORK}.{self.number}"

    @property
    def ip6(self) -> str:
        return f"{NETWORK6}:{self.number}"

    @property
    def mac(self) -> str:
        """Fixed, so that a rebooted host is not looked for at its old hardware address."""
        return f"02:fd:77:00:00:{self.number:02x}"

    @property
    def own_layer(self) -> str:
        return f"host-{self.name}"

    def shell_of(self, user: User) -> str:
        return self.family.only_shell or user.login_shell


HOSTS = {
    row.name: row
    for row in (
        HostRow("deb", DEBIAN, ("debian",), 11),
        HostRow("alpine", ALPINE, ("alpine-glibc", "alpine"), 15),
    )
}
