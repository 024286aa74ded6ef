"""Ending every process of a call, and saying truly whether it worked.

Closing a channel ends nothing on the remote side, and sshd ignores signals sent through the channel of a root login. So
a second channel runs a script there that looks for the call's processes in /proc (proc(5)), sends TERM, then KILL, and
looks again until none is left. A process belongs to the call if its environment or command line holds the call's
cookie, if it is in a session (setsid(2)) whose leader belongs to the call, or if its parent belongs to it.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from mcp_ssh.commandline import Command, script

GRACE_S = 0.3
"""Between TERM and KILL: time to clean up, short enough that a caller does not wait for those who ignore TERM."""


@dataclass(frozen=True)
class Stopped:
    """What became of a call's processes: `ended` is None where nobody could look."""

    ended: bool | None
    survivors: list[int] = field(default_factory=list[int])

    def shown(self) -> bool | Literal["unknown"]:
        """As results say it: true, false or "unknown"."""
        return "unknown" if self.ended is None else self.ended


# $1$2: the cookie in two halves, so that no command line of this script holds it. $3: the login shell's process id, or
# 0. $4: seconds since the call began. $5: milliseconds between TERM and KILL. $6: a word of no meaning. Built-ins only,
# but for grep and sleep: a scan of 100 processes takes some 10 ms.
_SWEEP = r"""
cookie=$1$2 leader=$3 age=$4 grace=$5 mark=$6
[ -r /proc/self/stat ] || { kill -KILL -- "-$leader" 2>/dev/null; echo unknown; exit 0; }
nap() { sleep "$1" 2>/dev/null || sleep 1; }
read_stat() {
    line=
    while IFS= read -r part || [ -n "$part" ]; do line=$part; done 2>/dev/null <"/proc/$1/stat"
    [ -n "$line" ]
}
old_enough() {
    read -r up _ </proc/uptime
    set -- ${line##*) }
    [ $((${up%%.*} - ${20} / 100)) -ge $((age - 2)) ]
}
[ "$leader" -gt 1 ] && { read_stat "$leader" && old_enough || leader=0; }
# These files hold NULs, behind which not every grep looks: one that finds the last word of this script's own command
# line does. The list of files is made before grep starts, so grep never finds itself.
holding() {
    pattern=$1
    shift
    if [ "$way" = quick ]; then grep -lsF -e "$pattern" "$@" 2>/dev/null; return 0; fi
    for file in "$@"; do
        { tr '\0' '\n' <"$file" | grep -qF -e "$pattern" && echo "$file"; } 2>/dev/null
    done
    return 0
}
for way in quick slow none; do [ -z "$(holding "$mark" "/proc/$$/cmdline")" ] || break; done
scan() {
    marked=" "
    for file in $(holding "$cookie" /proc/[0-9]*/environ /proc/[0-9]*/cmdline); do
        file=${file#/proc/}
        marked="$marked${file%%/*} "
    done
    [ "$leader" -gt 1 ] && marked="$marked$leader "
    table=
    for folder in /proc/[0-9]*; do
        pid=${folder#/proc/}
        read_stat "$pid" || continue
        set -- ${line##*) }
        case $1 in Z | X) continue ;; esac
        table="$table$pid $2 $4
"
    done
    found=$marked grown=yes
    while [ -n "$grown" ]; do
        grown=
        while read -r pid parent session; do
            case $found in *" $pid "*) continue ;; esac
            case $found in *" $parent "* | *" $session "*) found="$found$pid " grown=yes ;; esac
        done <<EOF
$table
EOF
    done
    targets=
    while read -r pid parent session; do
        [ -n "$pid" ] && [ "$pid" -gt 1 ] && [ "$pid" != $$ ] || continue
        case $found in *" $pid "*) targets="$targets $pid" ;; esac
    done <<EOF
$table
EOF
    [ -n "$targets" ]
}
signal() {
    for pid in $targets; do
        kill -s "$1" "$pid" 2>/dev/null || { [ -d "/proc/$pid" ] && sudo -n kill -s "$1" "$pid" 2>/dev/null; }
    done
    return 0
}
# A stopped process acts on TERM only once it goes on.
scan && signal TERM && signal CONT
waited=0
while [ "$waited" -lt "$grace" ] && scan; do nap 0.05; waited=$((waited + 50)); done
clean=0 pass=0
while [ "$clean" -lt 2 ] && [ "$pass" -lt 20 ]; do
    pass=$((pass + 1))
    if scan; then clean=0; signal KILL; nap 0.02; else clean=$((clean + 1)); fi
done
if scan; then echo "left$targets"; elif [ "$way" = none ]; then echo unknown; else echo ended; fi
"""


def sweep(cookie: str, pid: int | None, elapsed_s: float) -> Command:
    """The command that ends a call's processes; its last line of output is read by `parse`.

    Args:
        cookie: The call's cookie.
        pid: The call's login shell, where it said which process it is.
        elapsed_s: Seconds since the call began: a younger process with that id is another one.
    """
    half = len(cookie) // 2
    numbers = [str(pid or 0), str(int(elapsed_s)), str(int(GRACE_S * 1000))]
    words = [cookie[:half], cookie[half:], *numbers, secrets.token_hex(8)]
    return script(_SWEEP, words)


# What has ended has no folder; nor has another's process where those are hidden (hidepid), so one is looked for first.
_LOOK = r"""
[ -d /proc/1 ] || { echo unknown; exit 0; }
left=
for pid; do [ ! -d "/proc/$pid" ] || left="$left $pid"; done
if [ -n "$left" ]; then echo "left$left"; else echo ended; fi
"""


def look(pids: Sequence[int]) -> Command:
    """The command that tells, in words for `parse`, which processes are still there."""
    return script(_LOOK, [str(pid) for pid in pids])


def parse(output: bytes) -> Stopped:
    """What the sweep found, from its standard output."""
    lines = output.decode("utf-8", "replace").split("\n")
    for line in reversed(lines):
        word, _, rest = line.partition(" ")
        if word == "ended":
            return Stopped(ended=True)
        if word == "left":
            return Stopped(ended=False, survivors=[int(pid) for pid in rest.split() if pid.isdigit()])
        if word == "unknown":
            break
    return Stopped(ended=None)
