"""Which hosts the fleet has, and who can log in to them: one row per host, one row per user.

A further host is a further row here, plus whatever its family needs in `build.py` (layers) and `bake.py` (files).
"""

from dataclasses import dataclass

PASSWORD = "S3cret-pass!"  # of every user on every host: nothing outside the namespace can reach them
PORT = 22
USUAL_SSHD = "normal"  # the SSH server that every host has, on `PORT`
SMALL_DISK = "/srv/small"  # a 1 MiB file system on every host, for full-disk tests


@dataclass(frozen=True)
class Network:
    """A network of hosts: a switch, and where its addresses begin."""

    bridge: str
    start: str
    start6: str
    mac_start: str

    def ip(self, number: int) -> str:
        return f"{self.start}.{number}"

    def ip6(self, number: int) -> str:
        return f"{self.start6}::{number}"

    def mac(self, number: int) -> str:
        """Fixed, so that a rebooted host is not looked for at its old hardware address."""
        return f"{self.mac_start}:00:00:{number:02x}"


GATEWAY_NUMBER = 1
OPEN = Network("br0", "10.77.0", "fd77", "02:fd:77")  # the tests themselves are its gateway
HIDDEN = Network("br1", "10.78.0", "fd78", "02:fd:78")  # a host is its gateway, and the tests are not on it

HOST_KEY_TYPES = ("ed25519", "ecdsa")


@dataclass(frozen=True)
class User:
    """A login. Every user has `PASSWORD` and accepts the fleet's key."""

    name: str
    uid: int
    login_shell: str = "/bin/bash"
    sudoers: str = ""  # what /etc/sudoers grants, after the user's name; empty: nothing
    bashrc: str = ""  # appended to ~/.bashrc, which bash also reads for `ssh host command`
    password_set: int = 20000  # on which day since 1970; 0: a new one has to be set at login

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

MENU = "/usr/local/bin/menu"  # a shell that knows two words
WAYS_IN_USERS = (  # on a host with several ways in
    User("expired", 1006, password_set=0),
    User("locked", 1007, login_shell=MENU),
    User("sftponly", 1008, login_shell="/usr/sbin/nologin"),
    User("fish", 1009, login_shell="/usr/bin/fish"),
    User("zsh", 1010, login_shell="/usr/bin/zsh"),
    User("tcsh", 1011, login_shell="/usr/bin/tcsh"),
    User("password_code", 1012),
    User("code_password", 1013),
)
WAYS_IN = {  # further SSH servers of such a host: the port of each; see ways_in.py for what they let in
    "keyboard_interactive": 2201,
    "password": 2202,
    "certificate": 2203,
    "limits": 2204,
    "rotating": 2205,
    "key_and_password": 2206,
    "two_sessions": 2207,
    "key_and_questions": 2208,
    "dropbear": 2222,
}
CERTIFIED = ("dev", "root")  # the users that the fleet's certificate is for


@dataclass(frozen=True)
class Family:
    """What hosts of one kind of distribution share."""

    name: str
    init: str  # which init runs as PID 1: "systemd", "openrc" or "sysv"
    repository: str  # which of the repositories its package manager reads
    only_shell: str = ""  # set where no user can have another shell
    pam: bool = True


DEBIAN = Family("debian", init="systemd", repository="deb")
RHEL = Family("rhel", init="systemd", repository="rpm")
SUSE = Family("suse", init="systemd", repository="rpm")
ARCH = Family("arch", init="systemd", repository="arch")
SYSV = Family("debian", init="sysv", repository="deb")
ALPINE = Family("alpine", init="openrc", repository="apk", only_shell="/bin/ash", pam=False)


@dataclass(frozen=True)
class HostRow:
    """One host: its disk is its own baked layer over `layers` (topmost first)."""

    name: str
    family: Family
    layers: tuple[str, ...]
    number: int  # last part of its addresses
    network: Network = OPEN
    gateway_of: Network | None = None  # a second network that it is on, as number 1; it forwards no packets
    via: str = ""  # the host to log in through, where the tests are not on its network
    ways_in: bool = False  # has further SSH servers, and users who are let in by few of them

    @property
    def ip(self) -> str:
        return self.network.ip(self.number)

    @property
    def ip6(self) -> str:
        return self.network.ip6(self.number)

    @property
    def mac(self) -> str:
        return self.network.mac(self.number)

    @property
    def ports(self) -> dict[str, int]:
        return {USUAL_SSHD: PORT} | (WAYS_IN if self.ways_in else {})

    @property
    def users(self) -> tuple[User, ...]:
        return USERS + (WAYS_IN_USERS if self.ways_in else ())

    @property
    def rotating(self) -> str:
        """Which of its SSH servers is given new host keys on demand."""
        return "rotating" if self.ways_in else USUAL_SSHD

    @property
    def own_layer(self) -> str:
        return f"host-{self.name}"

    @property
    def stack(self) -> tuple[str, ...]:
        """The layers below its own, topmost first: its repository, then what it is made of."""
        return (f"repository-{self.family.repository}", *self.layers)

    def shell_of(self, user: User) -> str:
        return self.family.only_shell or user.login_shell


def host_key_file(server: str, kind: str) -> str:
    """Where one of a host's SSH servers has its key, from the root directory."""
    return f"etc/ssh/ssh_host_{kind}_key" if server == USUAL_SSHD else f"etc/ssh/{server}_{kind}_key"


def pid_file(server: str) -> str:
    return "run/sshd.pid" if server == USUAL_SSHD else f"run/sshd_{server}.pid"


HOSTS = {
    row.name: row
    for row in (
        HostRow("deb", DEBIAN, ("debian",), 11),
        HostRow("rocky", RHEL, ("rhel", "debian"), 12),
        HostRow("suse", SUSE, ("suse", "debian"), 13),
        HostRow("arch", ARCH, ("arch", "debian"), 14),
        HostRow("alpine", ALPINE, ("alpine-glibc", "alpine"), 15),
        HostRow("sysv", SYSV, ("sysv", "debian"), 16),
        HostRow("auth", DEBIAN, ("otp", "debian"), 17, ways_in=True),
        HostRow("bastion", DEBIAN, ("persistent", "debian"), 18, gateway_of=HIDDEN),
        HostRow("inner", DEBIAN, ("debian",), 2, network=HIDDEN, via="bastion"),
    )
}
ORDINARY = ("deb", "alpine")  # what the fixture `host` stands for; the others are started when a test asks for them
EVERY = ("deb", "rocky", "suse", "arch", "alpine", "sysv")  # one of each family, what the fixture `every` stands for
