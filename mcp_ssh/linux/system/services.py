"""Service managers: systemd (systemctl(1)), OpenRC (openrc-run(8), rc-update(8)), System V init (service(8)).

Each is one script: it checks that the service exists, runs the action, and reads the state afterwards, all in one round
trip. After `start`, `restart` and `reload` it reads the state again a second later, until two readings agree: many
services die, or begin to restart in a loop, only after their manager has reported success. The exit codes of `status`
are those of the Linux Standard Base (Core 5.0, 22.2): 0 running, 1 and 2 dead, 3 not running, 4 unknown.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from mcp_ssh.errors import InvalidInput, RemoteFailed, Unsupported
from mcp_ssh.linux.lines import lines_of, number
from mcp_ssh.linux.parts import PartsAsked, ask_parts
from mcp_ssh.linux.system.platform import Platform

ServiceCommand = Literal["start", "stop", "restart", "reload", "status", "enable", "disable"]


@dataclass(frozen=True)
class ServiceState:
    """A service after the action.

    Attributes:
        exists: Whether the manager knows it; where not, nothing was done and the rest means nothing.
        exit_code: Of the action.
        output: What the action printed, or for `status` the manager's own report.
        active: Whether it runs and stays up; None where the init script cannot tell.
        enabled: Whether it starts with the machine; None where the manager cannot tell.
        detail: The manager's own word for its state.
        restarts: How often the manager restarted it by itself; None where the manager does not count.
        was_active: Whether it ran before the action.
        new_run: Whether the action began a new run of it; None where the manager does not number the runs.
        finished: Whether it is a task that ran to its end without error, so that nothing has to run now.
        static: Whether it can be neither enabled nor disabled.
        log: The last lines of its log, read only where the action did not bring it up.
    """

    exists: bool
    exit_code: int
    output: str
    active: bool | None
    enabled: bool | None
    detail: str
    restarts: int | None = None
    was_active: bool = False
    new_run: bool | None = None
    finished: bool = False
    static: bool = False
    log: str = ""


class ServiceManager(Protocol):
    """What a machine starts its services with."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    def ask(self, service: str, action: ServiceCommand) -> PartsAsked:
        """The script that does the action and tells the state."""
        ...

    def parse(self, parts: Mapping[str, str]) -> ServiceState:
        """What it answered."""
        ...


def find_problem(action: ServiceCommand, state: ServiceState) -> str | None:
    """Explain why the service is not as the action asks, or return None where it is.

    The state decides, not the exit code: many init scripts and `update-rc.d` exit with an error after they did the
    work, and others with 0 after they did not. The exit code counts only where no state shows the effect: for `reload`,
    for a `restart` of what ran before, and where the manager cannot tell the state.
    """
    match action:
        case "status":
            return None
        case "enable" | "disable":
            return _enabling_problem(action, state)
        case "stop":
            return (
                f"it still runs: {state.detail}" if state.active else _exit_problem(state, counts=state.active is None)
            )
        case "start":
            return _running_problem(state) or _exit_problem(state, counts=state.active is None)
        case _:
            seen = action == "restart" and bool(state.new_run or (state.active and not state.was_active))
            return _running_problem(state) or _exit_problem(state, counts=not seen)


def _enabling_problem(action: ServiceCommand, state: ServiceState) -> str | None:
    if state.enabled is None:
        static = action == "enable" and state.static
        return "it has no [Install] section, so it cannot be enabled" if static else _exit_problem(state)
    if state.enabled == (action == "enable"):
        return None
    return "it starts with the machine" if state.enabled else "it does not start with the machine"


def _running_problem(state: ServiceState) -> str | None:
    if state.active or state.finished or state.active is None:
        return None
    return f"it does not stay up: {state.detail}"


def _exit_problem(state: ServiceState, *, counts: bool = True) -> str | None:
    return f"exit code {state.exit_code}" if counts and state.exit_code else None


# Reads the state with `look` until two readings, a second apart, agree. $1: how many more readings there may be.
_SETTLE = r"""
settle() {
    looks=$1 settled=yes seen=$(look)
    while [ "$looks" -gt 0 ] && unclear "$seen"; do
        sleep 1
        settled=no looks=$((looks - 1)) before=$seen seen=$(look)
        [ "$seen" != "$before" ] || { settled=yes; break; }
    done
    part settled; echo "$settled"
}
"""
_LOG_BYTES = 3000

# $1: the service. $2: the action. A unit whose file is gone is one as long as it runs. A template has no state of its
# own, but can be enabled. Units without a main process (targets, sockets) are read once.
_SYSTEMD = (
    _SETTLE
    + r"""
unit=$1
case $unit in
    *.service | *.socket | *.timer | *.target | *.path | *.slice | *.scope) ;;
    *.mount | *.automount | *.swap | *.device) ;;
    *) unit=$unit.service ;;
esac
look() {
    systemctl show -p LoadState -p ActiveState -p SubState -p UnitFileState -p Type -p Result \
        -p MainPID -p ExecMainStatus -p NRestarts -p InvocationID -- "$unit" 2>/dev/null
}
unclear() {
    case $1 in *SubState=exited*) return 1 ;; *MainPID=*) ;; *) return 1 ;; esac
    case $1 in *ActiveState=active* | *ActiveState=reloading* | *ActiveState=activating*) ;; *) return 1 ;; esac
}
log() {
    timeout 3 journalctl --sync >/dev/null 2>&1
    journalctl --quiet --no-pager --lines=15 --output=short-iso --unit="$unit" 2>/dev/null | tail -c "$bytes"
}
bytes=$3
now=$(look)
case $2:$now in
    *LoadState=not-found*ActiveState=inactive* | *ActiveState=inactive*LoadState=not-found*) part missing ;;
    enable:* | disable:* | *:*LoadState=*)
        if [ "$2" = status ]; then
            said=$(systemctl status --no-pager --lines=10 -- "$unit" 2>&1); code=0
        else
            said=$(systemctl "$2" -- "$unit" 2>&1); code=$?
        fi
        part before; printf "%s\n" "$now"
        part code; echo "$code"
        part output; printf "%s\n" "$said"
        case $2:$now in
            start:* | restart:* | reload:*) settle 3 ;;
            status:*NRestarts=[1-9]*) settle 1 ;;
            *) settle 0 ;;
        esac
        part facts; printf "%s\n" "${seen:-UnitFileState=$(systemctl is-enabled -- "$unit" 2>/dev/null)}"
        case $2:$code:$settled:$seen in
            st*:0:yes:*ActiveState=active* | re*:0:yes:*ActiveState=active* | stop:* | status:*) ;;
            st* | re*) part log; log ;;
        esac
        ;;
    *) part unclear; systemctl show -p LoadState -- "$unit" 2>&1 ;;
esac
"""
)

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

# `status` names what an init script's `status` exits with. $1: the service. $2: the action. $3: how long a log may be.
# The log is what OpenRC's output_log and error_log name, else the service's lines in the system's log. That may have
# been rotated a moment ago: BusyBox's syslogd does so at 200 KiB and names the old one .0, logrotate names it .1.
_INIT = (
    _ACT
    + _SETTLE
    + r"""
service=$1 action=$2 bytes=$3
look() { code=$(state_of "$service"); echo "$code $(cat "/run/openrc/options/$service/child_pid" 2>/dev/null)"; }
unclear() { [ "$action" != stop ] || case $1 in 0*) ;; *) return 1 ;; esac; }
log() {
    sed -n "s/^[[:space:]]*\(output_log\|error_log\)=[\"']*\([^\"' ]*\).*/\2/p" \
        "/etc/init.d/$service" "/etc/conf.d/$service" 2>/dev/null |
        sed "s/\${\(RC_SVCNAME\|SVCNAME\)}/$service/; s/\$\(RC_SVCNAME\|SVCNAME\)/$service/" | sort -u |
        while IFS= read -r file; do [ ! -f "$file" ] || tail -n 15 -- "$file"; done
    for file in "/var/log/$service.log" "/var/log/$service/error.log"; do
        [ ! -f "$file" ] || tail -n 15 -- "$file"
    done
    for file in /var/log/messages /var/log/syslog /var/log/daemon.log; do
        for part in "$file.0" "$file.1" "$file"; do [ ! -f "$part" ] || tail -c 300000 -- "$part"; done |
            grep -F -- "$service" | tail -n 15
    done
}
if [ ! -f "/etc/init.d/$1" ] || [ ! -x "/etc/init.d/$1" ]; then
    part missing
else
    part before; look
    case $2 in
        status) said=$(act run "$1" status); code=0 ;;
        enable) said=$(enable "$1" 2>&1); code=$? ;;
        disable) said=$(disable "$1" 2>&1); code=$? ;;
        *) said=$(act run "$1" "$2"); code=$? ;;
    esac
    part code; echo "$code"
    part output; printf "%s\n" "$said"
    part enabled; enabled "$1"
    restarts=$(cat "/run/openrc/options/$1/start_count" 2>/dev/null)
    case $2:${restarts:-0} in
        start:* | restart:* | reload:* | stop:*) settle 3 ;;
        status:[1-9]*) settle 1 ;;
        *) settle 0 ;;
    esac
    part state; printf "%s\n" "$seen"
    part restarts; cat "/run/openrc/options/$1/start_count" 2>/dev/null
    case $2:$code:$settled:$seen in
        st*:0:yes:0* | re*:0:yes:0* | stop:* | status:*) ;;
        st* | re*) part log; log 2>/dev/null | tail -c "$bytes" ;;
    esac
fi
"""
)

# Runlevels `shutdown` and `nonetwork` are not those that a machine boots into.
_OPENRC = (
    r"""
run() { rc-service "$@"; }
state_of() { rc-service "$1" status >/dev/null 2>&1; echo $?; }
enable() { rc-update add "$1" default; }
disable() { rc-update -a del "$1"; }
enabled() { ls -d "/etc/runlevels/"*"/$1" 2>/dev/null | grep -v -e "/shutdown/[^/]*$" -e "/nonetwork/[^/]*$"; }
"""
    + _INIT
)

# A script that does not know the word `status` exits with a code that means something else.
_SYSV = (
    r"""
levels() {
    if command -v update-rc.d >/dev/null 2>&1; then update-rc.d "$1" "$2"; else chkconfig "$1" "$3"; fi
}
run() { service "$@"; }
state_of() {
    if grep -qw status "/etc/init.d/$1"; then service "$1" status >/dev/null 2>&1; echo $?; else echo 4; fi
}
enable() { levels "$1" defaults on && levels "$1" enable on; }
disable() { levels "$1" disable off; }
enabled() { ls -d /etc/rc[2-5].d/S[0-9][0-9]"$1" /etc/rc.d/rc[2-5].d/S[0-9][0-9]"$1" 2>/dev/null; }
"""
    + _INIT
)

_RUNNING = frozenset({"active", "reloading", "refreshing"})
"""What `systemctl is-active` counts as active: `activating (auto-restart)` is the wait between two crashes."""
_ENABLED = {"enabled": True, "enabled-runtime": True, "alias": True, "disabled": False, "masked": False}


_UNMET = re.compile(r"skipped because of an unmet condition|Condition check resulted in")
"""What the log says where a unit's conditions kept it from starting, which `systemctl start` reports as success."""


@dataclass(frozen=True)
class Systemd:
    """Units of systemd."""

    name: str = "systemd"

    def ask(self, service: str, action: ServiceCommand) -> PartsAsked:
        """The script for an action."""
        return ask_parts(_SYSTEMD, [service, action, str(_LOG_BYTES)])

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
        before, facts = _facts(parts["before"]), _facts(parts["facts"])
        state = facts.get("ActiveState", "")
        settled = parts["settled"].strip() == "yes"
        restarts = facts.get("NRestarts", "")
        log = parts.get("log", "").strip()
        last = log.rpartition("\n")[2]
        return ServiceState(
            exists=True,
            exit_code=_code(parts),
            output=parts["output"].strip(),
            active=state in _RUNNING and settled,
            enabled=_ENABLED.get(facts.get("UnitFileState", "")),
            detail=_describe(facts, settled=settled) if state else "template",
            restarts=int(restarts) if restarts.isdecimal() else None,
            was_active=before.get("ActiveState") in _RUNNING,
            new_run=facts["InvocationID"] != before.get("InvocationID") if facts.get("InvocationID") else None,
            finished=_has_finished(facts) and not _UNMET.search(last),
            static=facts.get("UnitFileState") == "static",
            log=log,
        )


def _facts(text: str) -> dict[str, str]:
    pairs = [line.partition("=") for line in lines_of(text)]
    return {key: value for key, _, value in pairs}


def _has_finished(facts: Mapping[str, str]) -> bool:
    ended = facts.get("Type") == "oneshot" and facts.get("ActiveState") == "inactive"
    return ended and facts.get("Result") == "success"


def _describe(facts: Mapping[str, str], *, settled: bool) -> str:
    """The manager's own words for a state, and what explains one that is not wanted."""
    state = facts.get("ActiveState", "")
    more = [
        (not settled, f"restarts in a loop, {facts.get('NRestarts') or 'several'} times so far"),
        (state != "active" and facts.get("Result", "success") != "success", f"result {facts.get('Result')}"),
    ]
    return ", ".join([f"{state} ({facts.get('SubState', '')})", *(text for applies, text in more if applies)])


@dataclass(frozen=True)
class InitScripts:
    """Scripts in /etc/init.d, run by OpenRC or by System V init."""

    name: str
    text: str
    states: Mapping[str, str]

    def ask(self, service: str, action: ServiceCommand) -> PartsAsked:
        """The script for an action."""
        return ask_parts(self.text, [service, action, str(_LOG_BYTES)])

    def parse(self, parts: Mapping[str, str]) -> ServiceState:
        """What the init script said."""
        if "missing" in parts:
            return MISSING
        code = parts["state"].strip().partition(" ")[0]
        settled = parts["settled"].strip() == "yes"
        restarts = parts["restarts"].strip()
        detail = self.states.get(code, f"unknown (status {code})")
        return ServiceState(
            exists=True,
            exit_code=_code(parts),
            output=parts["output"].strip(),
            active=code == "0" and settled if code in self.states else None,
            enabled=bool(parts["enabled"].strip()),
            detail=detail if settled or code != "0" else f"{detail}, restarts in a loop",
            restarts=int(restarts) if restarts.isdecimal() else None,
            was_active=parts["before"].strip().partition(" ")[0] == "0",
            log=parts.get("log", "").strip(),
        )


_LSB_STATES = {"0": "started", "1": "crashed", "2": "crashed", "3": "stopped"}
"""What the exit code of `status` means to the Linux Standard Base."""

MISSING = ServiceState(exists=False, exit_code=4, output="", active=False, enabled=None, detail="")

MANAGERS: Mapping[str, ServiceManager] = {
    "systemd": Systemd(),
    "openrc": InitScripts(
        "openrc", _OPENRC, {**_LSB_STATES, "4": "stopping", "8": "starting", "16": "inactive", "32": "crashed"}
    ),
    "sysvinit": InitScripts("sysvinit", _SYSV, _LSB_STATES),
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
