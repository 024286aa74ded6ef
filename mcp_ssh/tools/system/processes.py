"""The machine's processes."""

from typing import Literal

from pydantic import Field

from mcp_ssh.params import OnSession, Result, ShellText
from mcp_ssh.probes.processes import ask_processes, parse_processes
from mcp_ssh.ssh.session import Session
from mcp_ssh.tool import Call, Risk, tool
from mcp_ssh.tools.system.vitals import parts_of


class ListProcesses(OnSession):
    user: ShellText | None = Field(default=None, max_length=256, description="Only those of this account.")
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


class ProcessesTold(Result):
    processes: list[ProcessFacts] = Field(description="Processes.")
    count: int = Field(description="How many fit, listed or not.")


@tool(Risk.READ)
async def processes(host: Session, params: ListProcesses, call: Call) -> ProcessesTold:
    """List the machine's processes with their user, processor and memory use: what runs, what eats CPU or memory."""
    found = [
        each
        for each in parse_processes(await parts_of(host, ask_processes()))
        if params.user is None or each.user == params.user
    ]
    if params.sort != "pid":
        found.sort(key=lambda each: each.cpu_percent if params.sort == "cpu" else each.memory_bytes, reverse=True)
    names = ProcessFacts.model_fields
    facts = [ProcessFacts(**{name: getattr(each, name) for name in names}) for each in found[: params.limit]]
    return ProcessesTold(processes=facts, count=len(found))
