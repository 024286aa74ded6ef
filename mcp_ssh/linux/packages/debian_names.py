"""Which packages a machine needs most, and what Debian's names are elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_DNF = """curl wget git vim-enhanced nano htop iotop net-tools bind-utils iputils traceroute mtr tcpdump nmap nmap-ncat
socat openssh-clients rsync unzip zip tar gzip bzip2 xz jq tree tmux screen cronie logrotate firewalld iptables
iptables-services ca-certificates gnupg2 gcc gcc-c++ make python3 python3-pip"""

ESSENTIALS: Mapping[str, tuple[str, ...]] = {
    manager: tuple(words.split())
    for manager, words in {
        "apt-get": """curl wget git vim nano htop iotop iftop net-tools dnsutils iputils-ping traceroute mtr-tiny
            tcpdump nmap netcat-openbsd socat openssh-client rsync unzip zip tar gzip bzip2 xz-utils p7zip-full jq tree
            ncdu tmux screen cron logrotate fail2ban ufw iptables iptables-persistent netfilter-persistent
            ca-certificates gnupg lsb-release software-properties-common apt-transport-https build-essential python3
            python3-pip python3-venv""",
        "dnf": _DNF,
        "yum": _DNF,
        "zypper": """curl wget git vim nano htop iotop net-tools bind-utils iputils traceroute mtr tcpdump nmap
            netcat-openbsd socat openssh-clients rsync unzip zip tar gzip bzip2 xz jq tree tmux screen cron logrotate
            firewalld iptables ca-certificates gpg2 gcc gcc-c++ make python3 python3-pip""",
        "apk": """curl wget git vim nano htop iftop bind-tools iputils traceroute mtr tcpdump nmap netcat-openbsd socat
            openssh-client rsync unzip zip tar gzip bzip2 xz jq tree tmux screen dcron logrotate iptables
            ca-certificates gnupg build-base python3 py3-pip""",
        "pacman": """curl wget git vim nano htop iotop net-tools bind iputils traceroute mtr tcpdump nmap gnu-netcat
            socat openssh rsync unzip zip tar gzip bzip2 xz p7zip jq tree ncdu tmux screen cronie logrotate iptables
            ca-certificates gnupg base-devel python python-pip""",
    }.items()
}
"""By manager: what is installed where nothing is named."""

# Debian's name, then its names for dnf, zypper, apk, pacman. "=" stays as it is, "-" has none there.
_TABLE = """
dnsutils                   | bind-utils            | bind-utils       | bind-tools | bind
iputils-ping               | iputils               | iputils          | iputils    | iputils
mtr-tiny                   | mtr                   | mtr              | mtr        | mtr
netcat-openbsd             | nmap-ncat             | =                | =          | gnu-netcat
openssh-client             | openssh-clients       | openssh-clients  | =          | openssh
xz-utils                   | xz                    | xz               | xz         | xz
p7zip-full                 | p7zip p7zip-plugins   | p7zip            | p7zip      | =
cron                       | cronie                | =                | dcron      | cronie
ufw                        | firewalld             | firewalld        | -          | -
iptables-persistent        | iptables-services     | -                | -          | -
netfilter-persistent       | iptables-services     | -                | -          | -
gnupg                      | gnupg2                | gpg2             | =          | =
lsb-release                | redhat-lsb-core       | =                | -          | -
software-properties-common | -                     | -                | -          | -
apt-transport-https        | -                     | -                | -          | -
build-essential            | gcc gcc-c++ make      | gcc gcc-c++ make | build-base | base-devel
python3                    | =                     | =                | =          | python
python3-pip                | =                     | =                | py3-pip    | python-pip
python3-venv               | python3-virtualenv    | =                | -          | -
vim                        | vim-enhanced          | =                | =          | =
net-tools                  | =                     | =                | -          | =
"""
_COLUMNS = {"dnf": 1, "yum": 1, "zypper": 2, "apk": 3, "pacman": 4}


def _read(column: int) -> dict[str, tuple[str, ...]]:
    rows = [[cell.strip() for cell in line.split("|")] for line in _TABLE.strip().splitlines()]
    return {row[0]: () if row[column] == "-" else tuple(row[column].split()) for row in rows if row[column] != "="}


LOCAL_NAMES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    manager: _read(column) for manager, column in _COLUMNS.items()
}
"""By manager and Debian's name: the names there; none where there is no such package."""


@dataclass(frozen=True)
class Resolved:
    """Names as the machine has them, each once, and those it has no package for."""

    names: tuple[str, ...]
    skipped: tuple[str, ...]


def resolve(manager: str, given: Sequence[str]) -> Resolved:
    """What the given names are called on the machine; those that are not Debian's own stay as they are."""
    table = LOCAL_NAMES.get(manager, {})
    local = {name: table.get(name, (name,)) for name in given}
    names = dict.fromkeys(each for names in local.values() for each in names)
    return Resolved(tuple(names), tuple(name for name, names in local.items() if not names))
