"""Ending every process of a call, and saying truly whether it worked.

Closing a channel ends nothing on the remote side, and sshd ignores signals sent through the channel of a root login. So
a second channel runs a script there that looks for the call's processes in /proc (proc(5)), sends TERM, then KILL, and
looks again until none is left. A process belongs to the call if its environment or command line holds the call's
cookie, if it is in a session (setsid(2)) whose leader belongs to the call, or if its parent belongs to it.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mcp_ssh.linux.framing import pack_script
from mcp_ssh.shell_command import Command, script

GRACE_S = 0.3
"""Between TERM and KILL: time to clean up, short enough that a caller does not wait for those who ignore TERM."""

MOST_TOGETHER = 24
"""Calls that one sweep ends at most: its command line must fit into 9000 bytes (Dropbear)."""


@dataclass(frozen=True)
class StopResult:
    """What became of a call's processes.

    Attributes:
        ended: None where nobody could look.
        survivors: Processes that were found and could not be ended.
        found: Whether any process was seen at all.
    """

    ended: bool | None
    survivors: list[int] = field(default_factory=list[int])
    found: bool = True

    def as_field(self) -> bool | Literal["unknown"]:
        """As results say it: true, false or "unknown"."""
        return "unknown" if self.ended is None else self.ended


def combine(stops: Iterable[StopResult]) -> StopResult:
    """What became of the processes of several calls together; all have ended where there were none."""
    known = list(stops)
    if survivors := sorted({pid for each in known for pid in each.survivors}):
        return StopResult(ended=False, survivors=survivors)
    return StopResult(ended=None if any(not each.ended for each in known) else True)


@dataclass(frozen=True)
class KillTarget:
    """A call whose processes are to end.

    Attributes:
        cookie: Value of `MCP_SSH_CALL` in them.
        pid: The call's login shell, where it said which process it is.
        elapsed_s: Seconds since the call began: a younger process with that id is another one.
    """

    cookie: str
    pid: int | None
    elapsed_s: float

    def words(self) -> list[str]:
        """The call as the sweep's arguments. The cookie comes in halves, so that no command line holds it."""
        half = len(self.cookie) // 2
        return [self.cookie[:half], self.cookie[half:], str(self.pid or 0), str(int(self.elapsed_s))]


# $1: milliseconds between TERM and KILL. $2: a word of no meaning. Then four words a call: see `KillTarget.words`.
# Built-ins only, but for grep and sleep. A shell reads byte by byte, so grep looks through the machine's processes.
_SWEEP = pack_script(
    r"""
grace=$1 mark=$2 blind= any_found= targets= known_leaders= newline='
'
shift 2
read_stat() {
    line=
    while IFS= read -r part || [ -n "$part" ]; do line=$part; done 2>/dev/null <"$1/stat"
    [ -n "$line" ]
}
old_enough() {
    age=$1
    read -r up _ <uptime
    set -- ${line##*) }
    [ $((${up%%.*} - ${20} / 100)) -ge $((age - 2)) ]
}
look_for() {
    cookies= leaders=
    while [ $# -ge 4 ]; do
        cookies=$cookies${cookies:+$newline}$1$2
        case $known_leaders in
        *" $3 "*) leaders="$leaders$3 " ;;
        *) [ "$3" -gt 1 ] && read_stat "$3" && old_enough "$4" && leaders="$leaders$3 " ;;
        esac
        shift 4
    done
    return 0
}
each_call() {
    while [ $# -ge 5 ]; do
        "$1" "$2" "$3" "$4" "$5"
        word=$1
        shift 5
        set -- "$word" "$@"
    done
}
kill_group() { [ "$3" -le 1 ] || kill -KILL -- "-$3" 2>/dev/null; echo unknown; }
cd /proc && [ -r self/stat ] || { each_call kill_group "$@"; exit 0; }
nap() { sleep "$1" 2>/dev/null || sleep 1; }
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
# Adds to `found` and `targets` what a line of the table tells: `PID/stat:) STATE PARENT GROUP SESSION `.
weigh() {
    pid=${line%%/stat:*} rest=${line#*/stat:) }
    listed="$listed$pid "
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
living() {
    read_stat "$1" || return 1
    case ${line##*) } in [ZX]*) return 1 ;; esac
}
# One scan: what is marked or was found before, then in the table of that moment what belongs to those, until there is
# no more. This script's own line shows that grep saw the table: too many files for one command line would be none.
# A process may call itself anything, newlines included, but in 15 bytes: eight numbers in a row are not in a name. What
# is marked and lives is a target even where the table has no line of it.
scan() {
    found=" $leaders${targets# } " grown=yes
    files=$(holding "$cookies" [0-9]*/environ [0-9]*/cmdline) || blind=yes
    for file in $files; do found="$found${file%%/*} "; done
    table=$(LC_ALL=C grep -HsoE '\) [A-Za-z]( -?[0-9]+){8} ' [0-9]*/stat)
    while [ -n "$grown" ]; do
        any=$$ grown= seen= targets= listed=" "
        for pid in $found; do any="$any|$pid"; done
        lines=$(printf '%s\n' "$table" |
            LC_ALL=C grep -E "^($any)/stat|\\) [A-Za-z] ($any) |\\) [A-Za-z] [0-9]+ [0-9]+ ($any) ")
        set -f
        IFS=$newline
        for line in $lines; do weigh; done
        unset IFS
        set +f
    done
    for pid in $found; do
        case $listed in *" $pid "*) continue ;; esac
        [ "$pid" -le 1 ] || ! living "$pid" || targets="$targets $pid"
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
        if living "$pid"; then return 0; fi
    done
    return 1
}
look_for "$@"
known_leaders=" $leaders"
# A stopped process acts on TERM only once it continues.
scan && any_found=yes && signal TERM && signal CONT
waited=0
while [ "$waited" -lt "$grace" ] && alive; do nap 0.05; waited=$((waited + 50)); done
# Ended is what two scans in a row do not find. Who outlives three KILLs is not ours to end.
clean=0 pass=0
while [ "$clean" -lt 2 ] && [ "$pass" -lt 20 ]; do
    before=$targets pass=$((pass + 1))
    if ! scan; then clean=$((clean + 1)); continue; fi
    clean=0 waited=0 any_found=yes
    signal KILL
    while [ "$waited" -lt 10 ] && alive; do nap 0.02; waited=$((waited + 1)); done
    [ "$targets" != "$before" ] || pass=$((pass + 6))
done
say_clean() {
    if [ "$way" = none ] || [ -n "$blind" ]; then echo unknown
    elif [ -n "$any_found" ]; then echo ended
    else echo none; fi
}
# Adds to `told` what is left of one call.
look_at_one() {
    targets=
    look_for "$@"
    scan
    told="$told$targets$newline" named="$named$targets "
}
# What is left and belongs to no call alone may belong to any of them.
say_each() {
    left=$targets told= named=
    each_call look_at_one "$@"
    for pid in $left; do
        case $named in *" $pid "*) ;; *) blind=yes ;; esac
    done
    printf %s "$told" | while IFS= read -r line; do
        if [ -n "$line" ]; then echo "left $line"; else say_clean; fi
    done
}
if [ "$clean" -ge 2 ] || ! scan; then each_call say_clean "$@"
elif [ $# = 4 ]; then echo "left$targets"
else say_each "$@"; fi
"""
)


def sweep(*targets: KillTarget) -> Command:
    """The command that ends the processes of calls; `parse` reads the last lines of its output.

    Args:
        targets: The calls, `MOST_TOGETHER` at most.
    """
    words = [word for each in targets for word in each.words()]
    return script(_SWEEP, [str(int(GRACE_S * 1000)), secrets.token_hex(8), *words])


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


def parse(output: bytes, calls: int = 1) -> list[StopResult]:
    """What became of each of so many calls, from the standard output of the sweep or of `look`."""
    lines = output.decode("utf-8", "replace").split("\n")
    told = [each for each in map(_parse_line, lines) if each is not None][-calls:]
    return told if len(told) == calls else [StopResult(ended=None)] * calls


def _parse_line(line: str) -> StopResult | None:
    word, _, rest = line.partition(" ")
    if word == "left":
        return StopResult(ended=False, survivors=[int(pid) for pid in rest.split() if pid.isdigit()])
    return _WORDS.get(line)


_WORDS = {
    "ended": StopResult(ended=True),
    "none": StopResult(ended=True, found=False),
    "unknown": StopResult(ended=None),
}
