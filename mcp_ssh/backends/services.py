"""Service managers: systemd (systemctl(1)), OpenRC (openrc-run(8), rc-update(8)), System V init (service(8)).

Each is one script: it looks whether the service exists, does what is asked, and tells the state afterwards, all in one
round trip. The exit codes of `status` are those of the Linux Standard Base (Core 5.0, 22.2): 0 running, 3 not running.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from mcp_ssh.backends.detect import Platform
from mcp_ssh.errors import InvalidInput, RemoteFailed, Unsupported
from mcp_ssh.probes.lines import lines_of, number
from mcp_ssh.probes.parts import PartsAsked, ask_parts

Action = Literal["start", "stop", "restart", "reload", "status", "enable", "disable"]


@dataclass(frozen=True)
class ServiceState:
    """A service after the action.

    Attributes:
        exists: Whether the manager knows it; where not, nothing was done and the rest means nothing.
        exit_code: Of the action.
        output: What the action said, or for `status` the manager's own report.
        active: Whether it runs.
        enabled: Whether it starts with the machine; None where the manager cannot tell.
        detail: The manager's own word for its state.
    """

    exists: bool
    exit_code: int
    output: str
    active: bool
    enabled: bool | None
    detail: str


class ServiceManager(Protocol):
    """What a machine starts its services with."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    def ask(self, service: str, action: Action) -> PartsAsked:
        """The script that does the action and tells the state."""
        ...

    def parse(self, parts: Mapping[str, str]) -> ServiceState:
        """What it answered."""
        ...


# $1: the service. $2: the action. A unit whose file is gone is one as long as it runs. A template has no state of its
# own, but can be enabled.
_SYSTEMD = r"""
unit=$1
case $unit in
    *.service | *.socket | *.timer | *.target | *.path | *.slice | *.scope) ;;
    *.mount | *.automount | *.swap | *.device) ;;
    *) unit=$unit.service ;;
esac
facts() { systemctl show -p LoadState -p ActiveState -p SubState -p UnitFileState -- "$unit" 2>/dev/null; }
now=$(facts)
case $2:$now in
    *LoadState=not-found*ActiveState=inactive* | *ActiveState=inactive*LoadState=not-found*) part missing ;;
    enable:* | disable:* | *:*LoadState=*)
        if [ "$2" = status ]; then
            said=$(systemctl status --no-pager --lines=10 -- "$unit" 2>&1); code=0
        else
            said=$(systemctl "$2" -- "$unit" 2>&1); code=$?
        fi
        part code; echo "$code"
        part output; printf "%s\n" "$said"
        part facts; facts || printf "UnitFileState=%s\n" "$(systemctl is-enabled -- "$unit" 2>/dev/null)"
        ;;
    *) part unclear; systemctl show -p LoadState -- "$unit" 2>&1 ;;
esac
"""

# A daemon may keep the output open: so what an init script says ends with the mark, not with the pipe. What comes later
# is still read, since the daemon would end of a pipe that nobody reads.
_ACT = r"""
act() {
    { "$@" </dev/null 2>&1; printf "\n%s %s\n" "$mark" "$?"; } | {
        while IFS= read -r line; do
            case $line in "$mark "*) break ;; esac
            printf "%s\n" "$line"
        done
        exec 3<&0
        cat <&3 >/dev/null 2>&1 3<&- &
        exit "${line#"$mark "}"
    }
}
"""

_OPENRC = (
    _ACT
    + r"""
if [ ! -f "/etc/init.d/$1" ] || [ ! -x "/etc/init.d/$1" ]; then
    part missing
else
    case $2 in
        status) said=$(act rc-service "$1" status); code=0 ;;
        enable) said=$(rc-update add "$1" default 2>&1); code=$? ;;
        disable) said=$(rc-update -a del "$1" 2>&1); code=$? ;;
        *) said=$(act rc-service "$1" "$2"); code=$? ;;
    esac
    part code; echo "$code"
    part output; printf "%s\n" "$said"
    part enabled; ls -d "/etc/runlevels/"*"/$1" 2>/dev/null
    rc-service "$1" status >/dev/null 2>&1; code=$?
    part state; echo "$code"
fi
"""
)

_SYSV = (
    _ACT
    + r"""
levels() {
    if command -v update-rc.d >/dev/null 2>&1; then update-rc.d "$1" "$2"; else chkconfig "$1" "$3"; fi
}
if [ ! -f "/etc/init.d/$1" ] || [ ! -x "/etc/init.d/$1" ]; then
    part missing
else
    case $2 in
        status) said=$(act service "$1" status); code=0 ;;
        enable) said=$({ levels "$1" defaults on && levels "$1" enable on; } 2>&1); code=$? ;;
        disable) said=$(levels "$1" disable off 2>&1); code=$? ;;
        *) said=$(act service "$1" "$2"); code=$? ;;
    esac
    part code; echo "$code"
    part output; printf "%s\n" "$said"
    part enabled; ls -d /etc/rc[2-5].d/S[0-9][0-9]"$1" /etc/rc.d/rc[2-5].d/S[0-9][0-9]"$1" 2>/dev/null
    service "$1" status >/dev/null 2>&1; code=$?
    part state; echo "$code"
fi
"""
)


@dataclass(frozen=True)
class Systemd:
    """Units of systemd."""

    name: str = "systemd"

    def ask(self, service: str, action: Action) -> PartsAsked:
        """The script for an action."""
        return ask_parts(_SYSTEMD, [service, action])

    def parse(self, parts: Mapping[str, str]) -> ServiceState:
        """What systemctl said.

        Raises:
            InvalidInput: The name is none that a unit can have.
            RemoteFailed: systemd does not answer.
        """
        if "missing" in parts:
            return MISSING
        if said := parts.get("unclear", "").strip()[-300:]:
            if "nit name" in said:
                raise InvalidInput(f"service: {said}", hint="of a template name an instance, such as getty@tty1")
            raise RemoteFailed(f"systemd does not answer: {said}", hint="see with command_exec what systemctl says")
        pairs = [line.partition("=") for line in lines_of(parts["facts"])]
        facts = {key: value for key, _, value in pairs}
        state = facts.get("ActiveState", "")
        enabled = {"enabled": True, "enabled-runtime": True, "alias": True, "disabled": False, "masked": False}
        return ServiceState(
            exists=True,
            exit_code=_code(parts),
            output=parts["output"].strip(),
            active=state in {"active", "reloading", "activating"},
            enabled=enabled.get(facts.get("UnitFileState", "")),
            detail=f"{state} ({facts.get('SubState', '')})" if state else "template",
        )


@dataclass(frozen=True)
class InitScripts:
    """Scripts in /etc/init.d, run by OpenRC or by System V init."""

    name: str
    text: str

    def ask(self, service: str, action: Action) -> PartsAsked:
        """The script for an action."""
        return ask_parts(self.text, [service, action])

    def parse(self, parts: Mapping[str, str]) -> ServiceState:
        """What the init script said."""
        if "missing" in parts:
            return MISSING
        state = parts["state"].strip()
        return ServiceState(
            exists=True,
            exit_code=_code(parts),
            output=parts["output"].strip(),
            active=state == "0",
            enabled=bool(parts["enabled"].strip()),
            detail={"0": "started", "3": "stopped"}.get(state, f"status {state}"),
        )


MISSING = ServiceState(exists=False, exit_code=4, output="", active=False, enabled=None, detail="")

MANAGERS: Mapping[str, ServiceManager] = {
    "systemd": Systemd(),
    "openrc": InitScripts("openrc", _OPENRC),
    "sysvinit": InitScripts("sysvinit", _SYSV),
}


def choose(platform: Platform) -> ServiceManager:
    """The machine's service manager.

    Raises:
        Unsupported: It has none that is known.
    """
    manager = MANAGERS.get(platform.service_manager or "")
    if manager is None:
        raise Unsupported(
            "no service manager was found on the machine: neither systemd nor OpenRC nor System V init",
            hint="start the program itself with command_background",
        )
    return manager


def _code(parts: Mapping[str, str]) -> int:
    return number(parts["code"].strip(), 1)
