"""Clients that we did not write: TypeScript's SDK in both its versions, and the inspector, over stdio and HTTP."""

import functools
import json
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from mcp_ssh.app import open_app
from mcp_ssh.config import Config
from tests.fleet.hosts import Host
from tests.hosts.machine import login, trust
from tests.hosts.servers import TOKEN, serve
from tests.protocol.npm import INSPECTOR, run

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
@pytest.mark.parametrize("script", ["v1", "v2", "v2 auto"])
async def test_a_typescript_client_lists_and_calls(
    node: str, mcp_home: Path, deb: Host, door: dict[str, Any], script: str
) -> None:
    async with open_app(mcp_home, Config()) as app:
        await trust(app, deb)
    said = {"command": "printf '\\303\\251\\n'; echo err >&2; exit 3"}
    calls = [
        {"name": "session_connect", "arguments": login(deb, "dev")},
        {"name": "command_exec", "arguments": said},
        {"name": "command_exec", "arguments": {"command": ""}},
    ]
    name, _, mode = script.partition(" ")
    wish = json.dumps({**door, "mode": mode, "calls": calls})
    text = (SCRIPTS / f"{name}.mjs").read_text()
    # From standard input, so that it finds its modules where npm has put them.
    argv = [node, "--input-type=module", "-", wish]
    done = await anyio.to_thread.run_sync(functools.partial(run, argv, mcp_home, text))
    assert done.returncode == 0, done.stderr
    saw = json.loads(done.stdout)
    assert saw.get("version") == ERAS[script]
    assert "command_exec" in {tool["name"] for tool in saw["tools"]}
    connected, executed, refused = saw["answers"]
    assert not connected.get("isError"), connected
    found = executed["structuredContent"]
    assert (found["stdout"], found["stderr"], found["exit_code"]) == ("é\n", "err\n", 3)
    assert refused["isError"] is True
    assert json.loads(refused["content"][0]["text"])["code"] == "invalid_input"


@pytest.mark.requirement("mcp.clients")
@pytest.mark.parametrize("toolset", ["core", "all"])
async def test_the_inspector_finds_no_fault_in_the_lists(
    node: str, mcp_home: Path, door: dict[str, Any], toolset: str
) -> None:
    look = ["--method", "tools/list", "--strict"]
    if "url" in door:
        name, value = next(iter(door["headers"].items()))
        url = door["url"] + ("" if toolset == "core" else f"/{toolset}")
        argv = [url, "--transport", "http", "--header", f"{name}: {value}", *look]
    else:
        argv = [door["command"], *door["args"], "--toolsets", toolset, *look]
        argv = ["-e", f"MCP_SSH_HOME={mcp_home}", *argv]
    done = await anyio.to_thread.run_sync(functools.partial(run, [node, str(INSPECTOR), "--cli", *argv], mcp_home))
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["tools"]) > 10
    assert done.stderr == ""
