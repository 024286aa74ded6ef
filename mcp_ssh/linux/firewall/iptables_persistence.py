"""How iptables' rules are kept for the next boot: as the machine's own package does it, else by our service."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcp_ssh.errors import NotFound, Unsupported
from mcp_ssh.linux.firewall.model import Family
from mcp_ssh.linux.parts import PartsAsked, ask_parts
from mcp_ssh.shell_command import Command, command, script

PROGRAMS: Mapping[Family, str] = {"ipv4": "iptables", "ipv6": "ip6tables"}
OURS = "mcp-ssh-firewall"

# The first that fits: Debian's netfilter-persistent; the init scripts of Alpine and Gentoo; the units of Arch and of
# Red Hat's iptables-services.
_FIND = r"""
unit() { for each in /etc/systemd /usr/lib/systemd /lib/systemd; do cat "$each/system/$1.service" 2>/dev/null; done; }
file_of() { sed -n "s/^$2=[\"']*\([^\"']*\).*/\1/p" "/etc/conf.d/$1" 2>/dev/null; }
way=none file4=/etc/iptables/rules.v4 file6=/etc/iptables/rules.v6
if [ -e /usr/share/netfilter-persistent/plugins.d/15-ip4tables ]; then
    way=netfilter-persistent
    [ ! -d /run/systemd/system ] || way=netfilter-persistent-systemd
elif [ -f /etc/init.d/iptables ] && command -v rc-update >/dev/null 2>&1; then
    way=openrc
    file4=$(file_of iptables IPTABLES_SAVE) file6=$(file_of ip6tables IP6TABLES_SAVE)
    file4=${file4:-/var/lib/iptables/rules-save} file6=${file6:-/var/lib/ip6tables/rules-save}
elif unit iptables | grep -q /etc/iptables/iptables.rules; then
    way=systemd file4=/etc/iptables/iptables.rules file6=/etc/iptables/ip6tables.rules
elif [ -n "$(unit iptables)" ]; then
    way=systemd file4=/etc/sysconfig/iptables file6=/etc/sysconfig/ip6tables
elif [ -d /run/systemd/system ]; then
    way=our-systemd
elif command -v rc-update >/dev/null 2>&1; then
    way=our-openrc
elif command -v update-rc.d >/dev/null 2>&1; then
    way=our-debian-init
elif command -v chkconfig >/dev/null 2>&1; then
    way=our-init
fi
if command -v ip6tables-save >/dev/null 2>&1; then
    case $(ip6tables-save 2>&1 >/dev/null) in *"Address family not supported"*) part no_ipv6 ;; esac
elif [ ! -e /proc/net/if_inet6 ]; then
    part no_ipv6
fi
part way; echo "$way"
part ipv4_file; echo "$file4"
part ipv6_file; echo "$file6"
[ ! -s "$file4" ] || part ipv4_there
[ ! -s "$file6" ] || part ipv6_there
"""

# $1: the file. $2: the program. A table that has no rules yet would be left out, so the filter table is named.
_SAVE = """umask 077; mkdir -p "${1%/*}" && { "$2-save" -t filter && "$2-save" | sed "/^[*]filter/,/^COMMIT/d"; } \
>"$1.new" && mv -f "$1.new" "$1\""""
# $1: the file. $2: its text. $3: its mode.
_WRITE = 'printf "%s" "$2" >"$1" && chmod "$3" "$1"'

_BOTH = "/etc/iptables/rules"
_UNIT = f"""[Unit]
Description=Packet filter rules kept by mcp-ssh
DefaultDependencies=no
RequiresMountsFor=/etc /usr
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=-/bin/sh -c 'iptables-restore <{_BOTH}.v4'
ExecStart=-/bin/sh -c 'ip6tables-restore <{_BOTH}.v6'

[Install]
WantedBy=multi-user.target
"""
_RESTORE = f"""    iptables-restore <{_BOTH}.v4
    ip6tables-restore <{_BOTH}.v6
"""
_OPENRC = f"""#!/sbin/openrc-run
description="Packet filter rules kept by mcp-ssh"
depend() {{ need localmount; before net; }}
start() {{
    ebegin "Restoring packet filter rules"
{_RESTORE}    eend 0
}}
"""
_INIT = f"""#!/bin/sh
# chkconfig: 2345 08 92
# description: Packet filter rules kept by mcp-ssh
### BEGIN INIT INFO
# Provides:          {OURS}
# Required-Start:    $local_fs
# Required-Stop:
# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: packet filter rules kept by mcp-ssh
### END INIT INFO
PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin
case $1 in start | restart | force-reload)
{_RESTORE}    ;;
esac
exit 0
"""
_SERVICES: Mapping[str, tuple[str, str, str]] = {
    "our-systemd": (f"/etc/systemd/system/{OURS}.service", _UNIT, "644"),
    "our-openrc": (f"/etc/init.d/{OURS}", _OPENRC, "755"),
    "our-debian-init": (f"/etc/init.d/{OURS}", _INIT, "755"),
    "our-init": (f"/etc/init.d/{OURS}", _INIT, "755"),
}
# $1: the services that have to start with the machine. The rest: the command lines that enable them. What these print
# is shown only where it had no effect: `update-rc.d` complains of a missing unit on machines without systemd.
_ENABLE_AND_CHECK = r"""
services=$1
shift
said=$(for line; do eval "$line"; done 2>&1)
starts() {
    if [ -d /run/systemd/system ]; then systemctl --quiet is-enabled -- "$1"
    elif command -v rc-update; then ls -d "/etc/runlevels/"*"/$1"
    else
        for link in /etc/rc[2-5].d/S[0-9][0-9]"$1" /etc/rc.d/rc[2-5].d/S[0-9][0-9]"$1" /; do
            [ ! -e "$link" ] || break
        done
        [ "$link" != / ]
    fi >/dev/null 2>&1
}
for service in $services; do
    starts "$service" || { code=1; printf "%s\n%s does not start with the machine\n" "$said" "$service"; }
done
exit "${code:-0}"
"""
_ENABLE: Mapping[str, Sequence[tuple[str, ...]]] = {
    "netfilter-persistent": (),
    "netfilter-persistent-systemd": (("systemctl", "enable", "netfilter-persistent"),),
    "openrc": (("rc-update", "add", "iptables", "boot"), ("rc-update", "add", "ip6tables", "boot")),
    "systemd": (("systemctl", "enable", "iptables"), ("systemctl", "enable", "ip6tables")),
    "our-systemd": (("systemctl", "enable", OURS),),
    "our-openrc": (("rc-update", "add", OURS, "boot"),),
    "our-debian-init": (("update-rc.d", OURS, "defaults"), ("update-rc.d", OURS, "enable")),
    "our-init": (("chkconfig", "--add", OURS), ("chkconfig", OURS, "on")),
}
_SERVICE_NAMES: Mapping[str, str] = {
    "netfilter-persistent": "netfilter-persistent", "netfilter-persistent-systemd": "netfilter-persistent",
    "openrc": "iptables ip6tables", "systemd": "iptables ip6tables",
}  # fmt: skip
"""The services that put the rules back at boot, where they are not ours."""


@dataclass(frozen=True)
class PersistenceMethod:
    """How a machine keeps its rules: the way, the file of each family it has, and which of them are there."""

    way: str
    files: Mapping[Family, str]
    there: tuple[Family, ...]


def ask_kept() -> PartsAsked:
    """The question for the way."""
    return ask_parts(_FIND)


def parse_kept(parts: Mapping[str, str]) -> PersistenceMethod:
    """The way that the machine told of."""
    families: list[Family] = [family for family in PROGRAMS if family != "ipv6" or "no_ipv6" not in parts]
    files: dict[Family, str] = {family: parts[f"{family}_file"].strip() for family in families}
    return PersistenceMethod(
        parts["way"].strip(), files, tuple(family for family in families if f"{family}_there" in parts)
    )


def save(kept: PersistenceMethod) -> list[tuple[Family, Command]]:
    """Keep the rules as they are now, and have them put back at boot.

    Raises:
        Unsupported: Nothing is known that would put them back.
    """
    if kept.way == "none":
        raise Unsupported(
            "nothing was found on the machine that would put rules back at boot",
            hint="install iptables-persistent or iptables-services, or keep what firewall_raw tells",
        )
    steps: list[tuple[Family, Command]] = [
        (family, script(_SAVE, [file, PROGRAMS[family]])) for family, file in kept.files.items()
    ]
    if kept.way in _SERVICES:
        steps.append(("ipv4", script(_WRITE, _SERVICES[kept.way])))
    lines = [each for each in _ENABLE[kept.way] if "ipv6" in kept.files or "ip6tables" not in each]
    services = _SERVICE_NAMES.get(kept.way, OURS).split()
    named = " ".join(each for each in services if "ipv6" in kept.files or each != "ip6tables")
    return [*steps, ("ipv4", script(_ENABLE_AND_CHECK, [named, *(command(*each).line() for each in lines)]))]


def restore(kept: PersistenceMethod) -> list[tuple[Family, Command]]:
    """Put the kept rules in the place of those that are.

    Raises:
        NotFound: No rules are saved.
    """
    if not kept.there:
        raise NotFound(
            f"no saved rules: neither {' nor '.join(kept.files.values())} exists", hint="firewall_save keeps them"
        )
    return [(family, command(f"{PROGRAMS[family]}-restore", "-w", "5", kept.files[family])) for family in kept.there]
