"""Every tool for machines on a host of every distribution family."""

import functools
import json
import os
from typing import Any

import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.tools import REGISTRY
from tests.fleet.hosts import Host
from tests.fleet.table import EVERY
from tests.support import matrix
from tests.support.doors import Direct, Fault
from tests.support.machine import opened
from tests.support.matrix import AFTER, BEFORE, RESULTS, ROOMS, STEPS
from tests.support.packages import CLEAN

WRITES = "MCP_SSH_MATRIX" in os.environ
"""`make matrix`: what is seen becomes the table of docs/compatibility.md."""


async def root(host: Host, script: str) -> str:
    return (await anyio.to_thread.run_sync(functools.partial(host.console, ["sh", "-c", script]))).stdout


def filled(given: Any, known: dict[str, str]) -> Any:
    return {name: value.format(**known) if isinstance(value, str) else value for name, value in given.items()}


@pytest.mark.requirement("families.matrix")
async def test_every_tool_works_on_a_machine_of_every_family(app: App, every: Host) -> None:
    await root(every, CLEAN[every.name])
    known = {"sleeper": (await root(every, BEFORE)).strip()}
    way = Direct(app)
    on = await opened(way, app, every, "root")
    cells: dict[str, str] = {}
    try:
        for step in STEPS:
            assert cells.get(step.tool, "✓") == "✓"
            try:
                said = await way.call(REGISTRY[step.tool], {**on, **filled(step.given, known)})
            except Fault as fault:
                cells[step.tool] = f"{fault.code}: {fault}"
                continue
            wrong = {name: said.get(name) for name, value in step.has.items() if said.get(name) != value}
            cells[step.tool] = f"{wrong}" if wrong else "✓"
            if step.kept:
                known[step.kept] = said[step.kept]
    finally:
        await root(every, AFTER)
    assert {name: cell for name, cell in cells.items() if cell != "✓"} == {}
    note(every.name, cells)


def note(host: str, cells: dict[str, str]) -> None:
    """Write what was seen where it was asked for; else it is what the table says."""
    seen: dict[str, dict[str, str]] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    if WRITES:
        seen = {tool: {**seen.get(tool, {}), host: cell} for tool, cell in cells.items()}
        RESULTS.write_text(json.dumps(seen, ensure_ascii=False, indent=1) + "\n", "utf-8")
    assert {tool: each[host] for tool, each in seen.items()} == cells


def test_the_table_has_every_tool_for_machines() -> None:
    tools = {tool.name for tool in REGISTRY.values() if tool.room in ROOMS}
    assert tools == {step.tool for step in STEPS}
    assert all(row.count("|") == len(EVERY) + 2 for row in matrix.table().splitlines())
