"""The machine's processes."""

from typing import Literal

from pydantic import Field

from mcp_ssh.linux.lines import ROW_LIMIT
from mcp_ssh.linux.system.facts import ACCOUNTS_BYTES
from mcp_ssh.linux.system.processes import TEXT_BYTES, ask_processes, parse_processes
from mcp_ssh.params import LoginName, OnSession, Result
from mcp_ssh.sessions.query import parts_of
from mcp_ssh.sessions.session import Session
from mcp_ssh.tool import Call, Risk, tool

PROCESSES_BYTES = 3 * TEXT_BYTES + 2 * ACCOUNTS_BYTES


class SystemProcessesParams(OnSession):
    user: LoginName | None = Field(default=None, max_length=256, description="Only those of this account.")
    sort: Literal["pid", "cpu", "memory"] = Field(default="pid", description="cpu and memory: the largest first.")
    limit: int | None = Field(default=None, ge=1, le=10_000, description="List this many at most.")


class ProcessFacts(Result):
    pid: int = Field(description="Process id.")
    ppid: int = Field(description="Its parent's.")
    user: str = Field(description="Account it runs as.")
    state: str = Field(description="R running, S sleeping, D waiting for a disk, T stopped, Z ended but not collected.")
    cpu_percent: float = Field(description="Processor time over its life, in percent of one processor.")
    memory_percent: float = Field(description="Resident memory, in percent of all.")
    memory_bytes: int = Field(description="Resident memory.")
    elapsed_s: float = Field(description="Seconds since it started.")
    command: str = Field(description="Command line; in brackets the name of one that has none.")


class SystemProcessesResult(Result):
    processes: list[ProcessFacts] = Field(description="Processes.")
    count: int = Field(description="How many fit, listed or not.")
    truncated: bool | None = Field(default=None, description="True where the machine has more than could be read.")


@tool(Risk.READ, room="system")
async def processes(host: Session, params: SystemProcessesParams, call: Call) -> SystemProcessesResult:
    """List the machine's processes with their user, processor and memory use: what runs, what eats CPU or memory."""
    known = await parts_of(host, ask_processes(), parse_processes, limit=PROCESSES_BYTES)
    found = [each for each in known.rows if params.user is None or each.user == params.user]
    if params.sort != "pid":
        found.sort(key=lambda each: each.cpu_percent if params.sort == "cpu" else each.memory_bytes, reverse=True)
    names = ProcessFacts.model_fields
    listed = found[: params.limit or ROW_LIMIT]
    facts = [ProcessFacts(**{name: getattr(each, name) for name in names}) for each in listed]
    result = SystemProcessesResult(processes=facts, count=len(found))
    if known.truncated or len(listed) < min(len(found), params.limit or len(found)):
        result.truncated = True
    return result
