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
# but for grep and sleep. A shell reads byte by byte, so it is grep that looks through the machine's processes.
_SWEEP = r"""
cookie=$1$2 leader=$3 age=$4 grace=$5 mark=$6 blind= newline='
'
cd /proc && [ -r self/stat ] || { kill -KILL -- "-$leader" 2>/dev/null; echo unknown; exit 0; }
nap() { sleep "$1" 2>/dev/null || sleep 1; }
read_stat() {
    line=
    while IFS= read -r part || [ -n "$part" ]; do line=$part; done 2>/dev/null <"$1/stat"
    [ -n "$line" ]
}
old_enough() {
    read -r up _ <uptime
    set -- ${line##*) }
    [ $((${up%%.*} - ${20} / 100)) -ge $((age - 2)) ]
}
[ "$leader" -gt 1 ] && { read_stat "$leader" && old_enough || leader=0; }
# These files hold NULs, behind which not every grep looks: one that finds the last word of this script's own command
# line does, and BusyBox's does with -z. The list of files is made before grep starts, so grep never finds itself.
holding() {
    pattern=$1
    shift
    case $way in
    quick) grep -lsF -e "$pattern" "$@" ;;
    zero) grep -lszF -e "$pattern" "$@" ;;
    *) for file in "$@"; do tr '\0' '\n' <"$file" | grep -qF -e "$pattern" && echo "$file"; done ;;
    esac 2>/dev/null
    [ $? -lt 126 ]
}
for way in quick zero slow none; do [ -z "$(holding "$mark" "$$/cmdline")" ] || break; done
# Adds to `found` and `targets` what a line of the table tells: `PID/stat:PID (NAME) STATE PARENT GROUP SESSION `. A
# name may hold anything, a newline on old kernels too, so both ids must agree.
weigh() {
    pid=${line%%/stat:*} rest=${line#*/stat:}
    [ "$pid" = "${rest%% *}" ] || return 0
    rest=${rest##*) }
    case $rest in [ZX]*) return 0 ;; esac
    [ "$pid" != $$ ] || { seen=yes; return 0; }
    rest=${rest#* }
    parent=${rest%% *} rest=${rest#* } rest=${rest#* }
    case $found in
    *" $pid "*) ;;
    *" $parent "* | *" ${rest%% *} "*) found="$found$pid " grown=yes ;;
    *) return 0 ;;
    esac
    [ "$pid" -le 1 ] || targets="$targets $pid"
}
# One scan: who is marked, then in the table of that moment who belongs to those, until there are no more. This script's
# own line shows that grep saw the table: too many files for one command line would be none.
scan() {
    found=" " grown=yes
    files=$(holding "$cookie" [0-9]*/environ [0-9]*/cmdline) || blind=yes
    for file in $files; do found="$found${file%%/*} "; done
    [ "$leader" -le 1 ] || found="$found$leader "
    table=$(LC_ALL=C grep -HsoE '^[0-9]+ .*\) [A-Za-z] [0-9]+ [0-9]+ [0-9]+ ' [0-9]*/stat)
    while [ -n "$grown" ]; do
        any=$$ grown= seen= targets=
        for pid in $found; do any="$any|$pid"; done
        lines=$(printf '%s\n' "$table" |
            LC_ALL=C grep -E "stat:($any) |\\) [A-Za-z] ($any) |\\) [A-Za-z] [0-9]+ [0-9]+ ($any) ")
        set -f
        IFS=$newline
        for line in $lines; do weigh; done
        unset IFS
        set +f
    done
    [ -n "$seen" ] || blind=yes
    [ -n "$targets" ]
}
signal() {
    for pid in $targets; do
        kill -s "$1" "$pid" 2>/dev/null || { [ -d "$pid" ] && sudo -n kill -s "$1" "$pid" 2>/dev/null; }
    done
    return 0
}
# Whether one of those that were found is still there. As long as it is, there is no need to look for others.
alive() {
    for pid in $targets; do
        read_stat "$pid" || continue
        case ${line##*) } in [ZX]*) ;; *) return 0 ;; esac
    done
    return 1
}
# A stopped process acts on TERM only once it goes on.
scan && signal TERM && signal CONT
waited=0
while [ "$waited" -lt "$grace" ] && alive; do nap 0.05; waited=$((waited + 50)); done
# Ended is what two scans in a row do not find. Who outlives three KILLs is not ours to end.
clean=0 pass=0
while [ "$clean" -lt 2 ] && [ "$pass" -lt 20 ]; do
    before=$targets pass=$((pass + 1))
    if ! scan; then clean=$((clean + 1)); continue; fi
    clean=0 waited=0
    signal KILL
    while [ "$waited" -lt 10 ] && alive; do nap 0.02; waited=$((waited + 1)); done
    [ "$targets" != "$before" ] || pass=$((pass + 6))
done
if [ "$clean" -lt 2 ] && scan; then echo "left$targets"
elif [ "$way" = none ] || [ -n "$blind" ]; then echo unknown
else echo ended; fi
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
