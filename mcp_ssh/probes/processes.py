"""The processes of a machine: numbers from /proc (proc(5)), command lines from procps or from /proc."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mcp_ssh.probes.parts import PartsAsked, ask_parts
from mcp_ssh.probes.vitals import ACCOUNTS, parse_accounts

_ASK = (
    r"""
part uptime; cat /proc/uptime
part ticks; getconf CLK_TCK 2>/dev/null || echo 100
part memory; cat /proc/meminfo
part stat; cat /proc/[0-9]*/stat 2>/dev/null
part status; grep -H -e "^Uid:" -e "^VmRSS:" /proc/[0-9]*/status 2>/dev/null
part commands
if ps --version >/dev/null 2>&1; then
    LC_ALL=C.UTF-8 ps -ww -e -o pid= -o args=
else
    for folder in /proc/[0-9]*; do
        line=$(tr "\0\n" "  " <"$folder/cmdline") 2>/dev/null && printf "%s %s\n" "${folder#/proc/}" "$line"
    done
fi
"""
    + ACCOUNTS
)

# What follows the name in a line of stat. A name is 15 bytes of anything, `)` and newlines included, but no 20 numbers.
_AFTER_NAME = re.compile(r"\) (\S) (\d+)((?: -?\d+){20,})\n")
_STATUS = re.compile(r"^/proc/(\d+)/status:(Uid|VmRSS):\s+(\d+)", re.MULTILINE)
_COMMAND = re.compile(r"^ *(\d+) (.*)$", re.MULTILINE)


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
    """The question about processes."""
    return ask_parts(_ASK)


def _stats(text: str) -> Iterator[tuple[int, str, str, int, list[int]]]:
    """Each process's id, name, state, parent, and its numbers from field 5 on."""
    start = 0
    for found in _AFTER_NAME.finditer(text if text.endswith("\n") else f"{text}\n"):
        pid, _, name = text[start : found.start()].partition(" (")
        start = found.end()
        if pid.isdecimal():
            shown = "".join(each if each.isprintable() else "?" for each in name[:64])
            yield int(pid), shown, found[1], int(found[2]), [int(word) for word in found[3].split()]


def parse_processes(parts: Mapping[str, str]) -> list[Process]:
    """All processes by pid; those of the question itself among them."""
    uptime_s, ticks = float(parts["uptime"].split()[0]), int(parts["ticks"].strip() or 100)
    total = int((re.search(r"^MemTotal:\s+(\d+)", parts["memory"], re.MULTILINE) or [0, "1"])[1]) * 1024
    names = {account.uid: account.username for account in parse_accounts(parts)}
    numbers: dict[tuple[int, str], int] = {
        (int(pid), key): int(value) for pid, key, value in _STATUS.findall(parts["status"])
    }
    commands = {int(pid): command.strip() for pid, command in _COMMAND.findall(parts["commands"])}
    found: list[Process] = []
    for pid, name, state, ppid, fields in _stats(parts["stat"]):
        # Of proc(5)'s numbering, the first of these is field 5: utime is 14, stime 15, starttime 22.
        elapsed_s = max(uptime_s - fields[17] / ticks, 0.0)
        memory = numbers.get((pid, "VmRSS"), 0) * 1024
        uid = numbers.get((pid, "Uid"), -1)
        found.append(
            Process(
                pid=pid,
                ppid=ppid,
                user=names.get(uid, str(uid)),
                state=state,
                cpu_percent=round((fields[9] + fields[10]) / ticks / elapsed_s * 100, 1) if elapsed_s else 0.0,
                memory_percent=round(memory / total * 100, 1),
                memory_bytes=memory,
                elapsed_s=round(elapsed_s, 1),
                command=commands.get(pid) or f"[{name}]",
            )
        )
    return sorted(found, key=lambda each: each.pid)
