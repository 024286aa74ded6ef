"""The processes of a machine: numbers from /proc (proc(5)), command lines from procps or from /proc."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mcp_ssh.linux.lines import LINE_LIMIT, is_number, lines_of, number
from mcp_ssh.linux.parts import PartsAsked, ask_parts
from mcp_ssh.linux.system.facts import ACCOUNTS, parse_accounts, read_decimal

# A name may hold a newline, and with it what looks like the line of another process: so the file stands before each
# line of it. $1: bytes of each text.
_ASK = (
    r"""
most=$1
part uptime; cat /proc/uptime
part ticks; getconf CLK_TCK 2>/dev/null || echo 100
part memory; head -n 3 /proc/meminfo
part stat; grep -H "" /proc/[0-9]*/stat 2>/dev/null | head -c "$most"
part status; grep -H -e "^Uid:" -e "^VmRSS:" /proc/[0-9]*/status 2>/dev/null | head -c "$most"
part commands
if ps --version >/dev/null 2>&1; then
    LC_ALL=C.UTF-8 ps -ww -e -o pid= -o args=
else
    for folder in /proc/[0-9]*; do
        line=$(head -c 4096 "$folder/cmdline" | tr "\0\n" "  ") 2>/dev/null
        printf "%s %s\n" "${folder#/proc/}" "$line"
    done
fi | cut -b 1-4096 | head -c "$most"
"""
    + ACCOUNTS
)

TEXT_BYTES = 2 * 1024 * 1024
"""The most that each of the texts about all processes may hold."""


@dataclass(frozen=True)
class Process:
    """One process. Processor time is a percentage of one processor over its whole life, as ps(1) has it."""

    pid: int
    ppid: int
    user: str
    state: str
    cpu_percent: float
    memory_percent: float
    memory_bytes: int
    elapsed_s: float
    command: str


def ask_processes() -> PartsAsked:
    """Ask for the processes."""
    return ask_parts(_ASK, [str(TEXT_BYTES)])


@dataclass(frozen=True)
class Processes:
    """The processes by pid, those of the question itself among them, and whether some were left out."""

    rows: list[Process]
    truncated: bool


def parse_processes(parts: Mapping[str, str]) -> Processes:
    """All processes that the answer holds."""
    names = {account.uid: account.username for account in parse_accounts(parts)}
    numbers = _numbers(parts["status"])
    commands = _commands(parts["commands"])
    machine = _Machine(
        uptime_s=read_decimal(parts["uptime"]),
        ticks=max(number(parts["ticks"].strip(), 100), 1),
        memory=max(_memory(parts["memory"]), 1),
    )
    found: list[Process] = []
    for pid, text in _stats(parts["stat"]).items():
        # The name ends at the last parenthesis, whatever it holds.
        head, _, tail = text.rpartition(") ")
        fields = tail.split()
        if len(fields) < _FIELDS or not all(map(is_number, fields[1:_FIELDS])):
            continue
        name = head.partition(" (")[2].replace("\n", " ")
        uid = numbers.get((pid, "Uid"), -1)
        memory = numbers.get((pid, "VmRSS"), 0) * 1024
        # Of proc(5)'s numbering, the first of these is field 3: utime is 14, stime 15, starttime 22.
        used, elapsed_s = number(fields[11]) + number(fields[12]), machine.elapsed_s(number(fields[19]))
        found.append(
            Process(
                pid=pid,
                ppid=number(fields[1]),
                user=names.get(uid, str(uid)),
                state=fields[0][:1],
                cpu_percent=round(used / machine.ticks / elapsed_s * 100, 1) if elapsed_s else 0.0,
                memory_percent=round(memory / machine.memory * 100, 1),
                memory_bytes=memory,
                elapsed_s=round(elapsed_s, 1),
                command=commands.get(pid) or f"[{name}]",
            )
        )
    cut = any(len(parts[each]) >= TEXT_BYTES - LINE_LIMIT for each in ("stat", "status", "commands"))
    return Processes(sorted(found, key=lambda each: each.pid), cut)


_FIELDS = 20
"""Fields of a line of stat behind the name, up to the one for the start."""


@dataclass(frozen=True)
class _Machine:
    uptime_s: float
    ticks: int
    memory: int

    def elapsed_s(self, started: int) -> float:
        return max(self.uptime_s - started / self.ticks, 0.0)


def _memory(text: str) -> int:
    for line in lines_of(text):
        words = line.split()
        if words[:1] == ["MemTotal:"] and len(words) > 1:
            return number(words[1]) * 1024
    return 0


def _files(text: str, name: str) -> Iterator[tuple[int, str]]:
    """Lines of `grep -H` on /proc/PID/NAME, each with its process."""
    for line in lines_of(text):
        file, _, rest = line.partition(":")
        pid, slash, found = file.removeprefix("/proc/").partition("/")
        if slash and found == name and is_number(pid):
            yield number(pid), rest


def _stats(text: str) -> dict[int, str]:
    found: dict[int, list[str]] = {}
    for pid, line in _files(text, "stat"):
        lines = found.setdefault(pid, [])
        if len(lines) < NAME_LINES:
            lines.append(line)
    return {pid: "\n".join(lines) for pid, lines in found.items()}


NAME_LINES = 16
"""Lines that a process's stat has at most: its name holds 15 characters."""


def _numbers(text: str) -> dict[tuple[int, str], int]:
    found: dict[tuple[int, str], int] = {}
    for pid, line in _files(text, "status"):
        key, _, rest = line.partition(":")
        words = rest.split()
        if words and is_number(words[0]):
            found.setdefault((pid, key), number(words[0]))
    return found


def _commands(text: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for line in lines_of(text):
        pid, _, command = line.lstrip(" ").partition(" ")
        if is_number(pid):
            found[number(pid)] = command.strip()
    return found
