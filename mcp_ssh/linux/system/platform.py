"""What kind of Linux a machine is, learned in one round trip.

Facts come from os-release(5), from PID 1 and from which programs there are; nothing is started that could be slow or
change something. What follows from them (family, package manager, init system) is decided here, in one place.
"""

from dataclasses import dataclass

from mcp_ssh.errors import RemoteFailed
from mcp_ssh.linux.lines import lines_of, number
from mcp_ssh.shell_command import Command, script, unquote

FAMILIES = {
    "debian": ("debian", "ubuntu", "linuxmint", "raspbian", "devuan", "kali"),
    "rhel": ("rhel", "fedora", "centos", "rocky", "almalinux", "ol", "amzn"),
    "suse": ("suse", "sles", "opensuse"),
    "alpine": ("alpine",),
    "arch": ("arch", "manjaro"),
}
"""Families, and the ID or ID_LIKE words of os-release that mean each; `opensuse-leap` counts as opensuse."""

PACKAGE_MANAGERS = ("apt-get", "dnf", "yum", "zypper", "apk", "pacman")
"""In order of preference where the family does not decide."""

_PREFERRED = {
    "debian": ("apt-get",), "rhel": ("dnf", "yum"), "suse": ("zypper",), "alpine": ("apk",), "arch": ("pacman",),
}  # fmt: skip

PROGRAMS = (
    *PACKAGE_MANAGERS,
    *("systemctl", "rc-service", "service", "firewall-cmd", "iptables", "ip6tables", "nft", "ip", "ifconfig"),
    *("sudo", "doas", "su", "crontab", "tar", "zip", "unzip", "bzip2", "xz", "zstd", "systemd-run", "setsid"),
)
"""Programs that are looked for."""

# $1$2: a mark in two halves, so that nothing an rc file prints can pass for an answer.
_DETECT = r"""
say() { printf "%s %s %s\n" "$mark" "$1" "$2"; }
mark=$1$2
shift 2
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
for file in /etc/os-release /usr/lib/os-release; do
    [ -r "$file" ] || continue
    while IFS= read -r line || [ -n "$line" ]; do say release "$line"; done <"$file"
    break
done
say kernel "$(uname -s -r -m)"
init=
[ ! -r /proc/1/comm ] || IFS= read -r init </proc/1/comm
say init "$init"
[ ! -d /run/systemd/system ] || say running systemd
[ ! -d /run/openrc ] || say running openrc
if [ -d /run/systemd/system ]; then
    systemctl --quiet is-active firewalld 2>/dev/null && say running firewalld
else
    for comm in /proc/[0-9]*/comm; do
        { IFS= read -r name <"$comm"; } 2>/dev/null && [ "$name" = firewalld ] && say running firewalld
    done
fi
for program; do command -v "$program" >/dev/null 2>&1 && say has "$program"; done
say uid "$(id -u)"
say home "$HOME"
say end ok
"""


@dataclass(frozen=True)
class Platform:
    """What a machine is.

    Attributes:
        os: ID of os-release, such as `debian`.
        family: `debian`, `rhel`, `suse`, `alpine`, `arch`, or `linux` where it is none of them.
        kernel: As `uname -s -r -m` says it.
        init_system: Name of PID 1.
        service_manager: `systemd`, `openrc`, `sysvinit` or None.
        programs: Which of `PROGRAMS` there are.
        uid: The login account's number.
        home: Its home folder.
    """

    os: str
    family: str
    name: str
    version_id: str
    pretty_name: str
    kernel: str
    init_system: str
    service_manager: str | None
    firewalld: bool
    programs: frozenset[str]
    uid: int
    home: str

    @property
    def package_manager(self) -> str | None:
        """The family's own where it is there, else the first that is."""
        wanted = (*_PREFERRED.get(self.family, ()), *PACKAGE_MANAGERS)
        return next((each for each in wanted if each in self.programs), None)

    @property
    def firewall_backend(self) -> str | None:
        """Firewalld where it runs, else iptables, else nftables, else None."""
        if self.firewalld and "firewall-cmd" in self.programs:
            return "firewalld"
        if "iptables" in self.programs:
            return "iptables"
        return "nftables" if "nft" in self.programs else None

    @property
    def network_tool(self) -> str | None:
        """What shows the network interfaces."""
        return next((each for each in ("ip", "ifconfig") if each in self.programs), None)


def detect(first: str, second: str) -> Command:
    """The question; each line of its answer that counts starts with the two halves of the mark."""
    return script(_DETECT, [first, second, *PROGRAMS])


def parse(output: bytes, mark: str) -> Platform:
    """The platform that the answer tells of.

    Raises:
        RemoteFailed: The answer is not whole.
    """
    said: dict[str, list[str]] = {}
    for line in lines_of(output.decode("utf-8", "replace")):
        found, _, rest = line.partition(" ")
        if found == mark:
            key, _, value = rest.partition(" ")
            said.setdefault(key, []).append(value)
    if "end" not in said:
        raise RemoteFailed(
            "the machine did not say what kind of Linux it is",
            hint="see with command_exec what `sh` does there; its standard output must be its own",
        )
    release = _release(said.get("release", []))
    running = said.get("running", [])
    init = said["init"][0]
    programs = frozenset(said.get("has", []))
    return Platform(
        os=release.get("ID", "linux"),
        family=_family(release),
        name=release.get("NAME", "Linux"),
        version_id=release.get("VERSION_ID", ""),
        pretty_name=release.get("PRETTY_NAME") or release.get("NAME", "Linux"),
        kernel=said["kernel"][0],
        init_system=init or next(iter(running), "unknown"),
        service_manager=_service_manager(init, running, programs),
        firewalld="firewalld" in running,
        programs=programs,
        uid=number(said["uid"][0], -1),
        home=said["home"][0],
    )


def _release(lines: list[str]) -> dict[str, str]:
    """The assignments of an os-release file: shell words, as os-release(5) has it."""
    found: dict[str, str] = {}
    for line in lines:
        name, equals, value = line.partition("=")
        if equals and not name.startswith("#"):
            found[name] = unquote(value)
    return found


def _family(release: dict[str, str]) -> str:
    words = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    for word in words:
        for family, names in FAMILIES.items():
            if word in names or word.partition("-")[0] in names:
                return family
    return "linux"


def _service_manager(init: str, running: list[str], programs: frozenset[str]) -> str | None:
    if "systemctl" in programs and (init == "systemd" or "systemd" in running):
        return "systemd"
    if "rc-service" in programs:
        return "openrc"
    if "service" in programs:
        return "sysvinit"
    return "systemd" if "systemctl" in programs else None
