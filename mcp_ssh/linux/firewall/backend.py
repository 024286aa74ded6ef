"""The packet filters a machine may have, behind one set of words, and how one of them is changed with a way back.

A change is a script that the machine runs by itself, cut off from our connection. It continues only if the rules are as
they were when they were read. Where it may shut us out it first keeps the rules, and puts them back after a while
unless it was told that we still get in: a dead-man's switch.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mcp_ssh.errors import Unsupported
from mcp_ssh.linux.firewall.firewalld import Firewalld
from mcp_ssh.linux.firewall.iptables import Iptables
from mcp_ssh.linux.firewall.model import Family, FilterRule, Table
from mcp_ssh.linux.framing import pack_script
from mcp_ssh.linux.parts import PartsAsked, ask_parts
from mcp_ssh.linux.system.platform import Platform
from mcp_ssh.shell_command import Command, command


class Firewall(Protocol):
    """A packet filter.

    Attributes:
        functions: Shell functions of a family, `$1`, in a folder `$dir`: `state` says what the rules are, `keep` keeps
            them, `undo` puts back what was kept and fails where it cannot, `withdraw` undoes at once what failed
            halfway.
    """

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def functions(self) -> str:
        """The shell functions."""
        ...

    def ask(self, chain: str | None, families: tuple[Family, ...], /) -> PartsAsked:
        """The question for the rules."""
        ...

    def ask_raw(self, families: tuple[Family, ...]) -> PartsAsked:
        """The question for the rules in the form that the program itself reads."""
        ...

    def table(self, parts: Mapping[str, str], family: Family) -> Table:
        """The rules of a family, out of the answer."""
        ...

    def add(self, rule: FilterRule, table: Table, /) -> list[Command]:
        """Put a rule where it takes effect among those that are; nothing where it stands already."""
        ...

    def delete(self, rule: FilterRule) -> Command:
        """Take a rule away."""
        ...

    def flush(self, family: Family, chain: str | None, table: Table, /) -> list[Command]:
        """Take all rules away, of a chain or of all, given those that are."""
        ...

    def policy(self, family: Family, chain: str, target: str, table: Table, /) -> list[Command]:
        """What becomes of packets that no rule of the chain decides; nothing where it is so already."""
        ...

    def ask_kept(self) -> PartsAsked:
        """Ask how the machine saves rules for the next boot."""
        ...

    def save(self, parts: Mapping[str, str], /) -> list[tuple[Family, Command]]:
        """Keep the rules as they are for the next boot, given what the machine answered.

        Raises:
            Unsupported: Nothing on the machine would put them back.
        """
        ...

    def kept_files(self, parts: Mapping[str, str], /) -> list[str]:
        """The files that the rules are kept in, given what the machine answered."""
        ...

    def restore(self, parts: Mapping[str, str], /) -> list[tuple[Family, Command]]:
        """Restore the saved rules.

        Raises:
            NotFound: No rules are saved.
        """
        ...


def choose(platform: Platform) -> Firewall:
    """The machine's firewall.

    Raises:
        Unsupported: It has none that is known.
    """
    if platform.firewall_backend == "firewalld":
        return Firewalld()
    if platform.firewall_backend == "iptables":
        return Iptables()
    raise Unsupported(
        f"the machine's firewall is {platform.firewall_backend or 'none that is known'}; these tools know iptables"
        " and firewalld",
        hint="use command_exec with nft list ruleset",
    )


# ---- changing it -------------------------------------------------------------------------------------------------

_FOLDER = r"""
base=/run; { [ -d /run ] && [ -w /run ]; } || base=/tmp
dir=$base/mcp-ssh-firewall.$1
nap() { sleep 0.05 2>/dev/null || sleep 1; }
begun() { [ -e "$dir/result" ] || [ -e "$dir/armed" ] || [ -e "$dir/fired" ]; }
call_off() { begun || mv "$dir/waiting" "$dir/called_off" 2>/dev/null; }
tell() {
    [ ! -d "$dir" ] || [ -e "$dir/called_off" ] || begun || part starting
    for family in ipv4 ipv6; do
        [ -e "$dir/$family.code" ] || continue
        part "${family}_code"; cat "$dir/$family.code"
        part "${family}_text"; cat "$dir/$family.text"
    done
    for word in result changed unkept called_off armed withdrawn torn disarmed fired undone unrestored; do
        [ ! -e "$dir/$word" ] || part "$word"
    done
    [ ! -e "$dir/called_off" ] || rm -rf "$dir"
}
"""

# $1: a word for the folder. $2: the script. $3: seconds until the way back is taken; 0 where there is none. `waiting`
# is there once: the change takes it to begin, or it is called off, and then can never begin.
_BEGIN = r"""
for other in "$base"/mcp-ssh-firewall.*/armed; do [ ! -e "$other" ] || { part busy; break; }; done
if [ -e "$other" ]; then :
elif [ ! -w "$base" ]; then part no_folder
elif ! mkdir -m 700 "$dir"; then part no_room
elif ! (printf "%s" "$2" >"$dir/change" && : >"$dir/waiting") 2>/dev/null; then
    rm -rf "$dir"
    part no_room
elif [ "$3" = 0 ]; then
    sh "$dir/change" "$dir" >/dev/null 2>&1 </dev/null
    tell
    rm -rf "$dir"
else
    if ! { [ -d /run/systemd/system ] && systemd-run --quiet --collect -- sh "$dir/change" "$dir" 2>/dev/null; }; then
        (unset MCP_SSH_CALL; setsid sh "$dir/change" "$dir" >/dev/null 2>&1 </dev/null &)
    fi
    left=600
    while ! begun && [ "$left" -gt 0 ]; do nap; left=$((left - 1)); done
    call_off
    left=$((($3 + 5) * 20))
    while begun && [ ! -e "$dir/result" ] && [ "$left" -gt 0 ]; do nap; left=$((left - 1)); done
    tell
fi
"""

# $1: the folder. What is to be done comes before these lines, as `set --` and assignments.
_CHANGE = r"""
LC_ALL=C; export LC_ALL
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export PATH
umask 077
same() { [ -z "$2" ] || { rules=$(state "$1" 2>/dev/null); [ "$(printf "%s\n" "$rules" | cksum)" = "$2" ]; }; }
work() {
    child= stop=
    trap 'stop=1; [ -z "$child" ] || kill -KILL "$child" 2>/dev/null' TERM
    while [ $# -gt 1 ] && [ -z "$stop" ]; do
        if [ ! -e "$dir/$1.code" ] || [ "$(cat "$dir/$1.code")" = 0 ]; then
            (eval "exec $2") >>"$dir/$1.text" 2>&1 & child=$!
            [ -z "$stop" ] || kill -KILL "$child"
            wait "$child"; code=$?
            if [ -n "$stop" ]; then wait "$child"; else echo "$code" >"$dir/$1.code"; fi
            child=
        fi
        shift 2
    done
    [ -z "$stop" ] || return 0
    ! grep -qvx 0 "$dir"/*.code 2>/dev/null || withdraw
    : >"$dir/result"
}
linger() {
    passed=0
    while [ -d "$dir" ] && [ "$passed" -lt 60 ]; do sleep 1; passed=$((passed + 1)); done
    rm -rf "$dir"
}
leave() {
    : >"$dir/$1"
    : >"$dir/result"
    [ "$seconds" = 0 ] || linger
    exit
}
same ipv4 "$sum4" && same ipv6 "$sum6" || leave changed
if [ "$seconds" = 0 ]; then work "$@"; exit; fi
for family in $families; do keep "$family" || leave unkept; done
mv "$dir/waiting" "$dir/armed" || exit
work "$@" & worker=$!
passed=0
while [ -e "$dir/armed" ] && [ "$passed" -lt "$seconds" ]; do sleep 1; passed=$((passed + 1)); done
if mv "$dir/armed" "$dir/fired" 2>/dev/null; then
    kill -TERM "$worker" 2>/dev/null; wait "$worker"
    for family in $families; do undo "$family" || : >"$dir/unrestored"; done
    : >"$dir/undone"
fi
linger
"""

# $1: the word. $2: "disarm" to have the change stay, if it is whole; "call_off" to keep it from beginning; else only to
# look.
_ASK = r"""
[ "$2" != disarm ] || [ ! -e "$dir/result" ] || mv "$dir/armed" "$dir/disarmed" 2>/dev/null
[ "$2" != call_off ] || call_off
left=200
while [ -e "$dir/fired" ] && [ ! -e "$dir/undone" ] && [ "$left" -gt 0 ]; do nap; left=$((left - 1)); done
tell
"""


@dataclass(frozen=True)
class FirewallChange:
    """A change that a machine makes by itself.

    Attributes:
        steps: Whose rules are changed, and the command, in order; the first that fails ends its family.
        chain: What was read: a chain, or all where there is none.
        sums: Of the rules as they were read; with others nothing is done.
        rollback_s: Seconds until the old rules come back unless `ask_disarm` came first; 0 where they never do.
    """

    firewall: Firewall
    steps: Sequence[tuple[Family, Command]]
    chain: str | None
    sums: Mapping[Family, str]
    rollback_s: int
    word: str = field(default_factory=lambda: secrets.token_hex(8))

    def ask(self) -> PartsAsked:
        """Begin with it, and say what its commands said once they ended."""
        given = command("set", "--", *(word for family, each in self.steps for word in (family, each.line())))
        values = {
            "seconds": str(self.rollback_s),
            "chain": self.chain or "",
            "families": " ".join(dict(self.steps)),
            "sum4": self.sums.get("ipv4", ""),
            "sum6": self.sums.get("ipv6", ""),
        }
        assigned = [f"{name}={command(value).line()}" for name, value in values.items()]
        lines = ["dir=$1", *assigned, given.line(), pack_script(self.firewall.functions), pack_script(_CHANGE), ""]
        return ask_parts(_FOLDER + _BEGIN, [self.word, "\n".join(lines), str(self.rollback_s)])

    def ask_disarm(self) -> PartsAsked:
        """Have the change stay if all its commands have ended, and say what became of it."""
        return ask_parts(_FOLDER + _ASK, [self.word, "disarm"])

    def ask_end(self, *, late: bool = False) -> PartsAsked:
        """Say what became of it; where the old rules are coming back, once they are there.

        Args:
            late: Call it off for good if it has not begun.
        """
        return ask_parts(_FOLDER + _ASK, [self.word, "call_off" if late else "look"])
