"""Clients that we did not write: TypeScript's SDK in both its versions, and the inspector, over stdio and HTTP."""

import functools
import json
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import anyio.to_thread
import pytest

from mcp_ssh.app import open_app
from mcp_ssh.config.models import Config
from tests.fleet.hosts import Host
from tests.protocol.npm import INSPECTOR, fixture_server, run
from tests.support.machine import login, trust
from tests.support.servers import TOKEN, serve

SCRIPTS = Path(__file__).with_name("typescript")
ERAS = {"v1": None, "v2": "2025-11-25", "v2 auto": "2026-07-28"}  # the first SDK does not tell
SERVER = {"command": sys.executable, "args": ["-m", "mcp_ssh", "stdio"]}


@pytest.fixture(params=["stdio", "http"])
async def door(request: pytest.FixtureRequest, mcp_home: Path) -> AsyncGenerator[dict[str, Any]]:
    """Where a client finds a real server of ours."""
    if request.param == "stdio":
        names = ("PATH", "HOME", "MCP_SSH_HOME")
        yield {**SERVER, "env": {name: os.environ[name] for name in names}}
        return
    async with serve(mcp_home) as server:
        yield {"url": f"{server.url}/mcp", "headers": {"Authorization": f"Bearer {TOKEN}"}}


@pytest.mark.requirement("mcp.clients")
async def test_typescript_clients_list_and_call(node: str, mcp_home: Path, deb: Host, door: dict[str, Any]) -> None:
    async with open_app(mcp_home, Config()) as app:
        await trust(app, deb)
    for script, version in ERAS.items():
        saw = await seen(script, node, mcp_home, deb, door)
        assert saw.get("version") == version
        assert "command_exec" in {tool["name"] for tool in saw["tools"]}
        connected, executed, refused = saw["answers"]
        assert not connected.get("isError"), connected
        found = executed["structuredContent"]
        assert (found["stdout"], found["stderr"], found["exit_code"]) == ("é\n", "err\n", 3)
        assert refused["isError"] is True
        assert json.loads(refused["content"][0]["text"])["code"] == "invalid_input"


async def seen(script: str, node: str, home: Path, host: Host, door: dict[str, Any]) -> dict[str, Any]:
    """What a client in TypeScript saw of a server, and of a machine through it."""
    said = {"command": "printf '\\303\\251\\n'; echo err >&2; exit 3"}
    calls = [
        {"name": "session_connect", "arguments": login(host, "dev")},
        {"name": "command_exec", "arguments": said},
        {"name": "command_exec", "arguments": {"command": ""}},
    ]
    name, _, mode = script.partition(" ")
    wish = json.dumps({**door, "mode": mode, "calls": calls})
    text = (SCRIPTS / f"{name}.mjs").read_text()
    # From standard input, so that it finds its modules where npm has put them.
    argv = [node, "--input-type=module", "-", wish]
    done = await anyio.to_thread.run_sync(functools.partial(run, argv, home, text))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.requirement("mcp.clients")
async def test_the_inspector_finds_no_fault_in_the_lists(node: str, mcp_home: Path, door: dict[str, Any]) -> None:
    for toolset in ("core", "all"):
        if "url" in door:
            name, value = next(iter(door["headers"].items()))
            url = door["url"] + ("" if toolset == "core" else f"/{toolset}")
            where = [url, "--transport", "http", "--header", f"{name}: {value}"]
        else:
            where = ["-e", f"MCP_SSH_HOME={mcp_home}", door["command"], *door["args"], "--toolsets", toolset]
        done = await anyio.to_thread.run_sync(inspected, node, mcp_home, where)
        assert (done.returncode, done.stderr) == (0, "")
        assert len(json.loads(done.stdout)["tools"]) > 10


def inspected(node: str, home: Path, where: list[str]) -> "CompletedProcess[str]":
    return run([node, str(INSPECTOR), "--cli", *where, "--method", "tools/list", "--strict"], home)


def test_the_inspector_finds_fault_with_a_list_that_has_one(node: str, tmp_path: Path) -> None:
    """The negative control: a schema that not every client can read."""
    with fixture_server() as url:
        done = inspected(node, tmp_path, [url, "--transport", "http"])
    assert "test_unportable" in done.stderr
