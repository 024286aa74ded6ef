"""The official MCP client as tests drive it: its transports and eras, who answers it, and what its server keeps."""

import contextlib
import json
import os
import sqlite3
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters, types
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from mcp_ssh.app import App
from mcp_ssh.mcp_server import build_server
from mcp_ssh.tools import REGISTRY
from mcp_ssh.toolsets import ToolsetSelection
from tests.support.doors import caller
from tests.support.servers import TOKEN, serve

ERAS = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])


class Person:
    """Who answers forms by the names of their fields, and is heard of by nobody else."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def __call__(self, context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        assert isinstance(params, types.ElicitRequestFormParams)
        self.asked.append(next(iter(params.requested_schema["properties"])))
        content = {name: self.answers[name] for name in params.requested_schema["properties"] if name in self.answers}
        return types.ElicitResult(action="accept", content=content)


class Model:
    """What a model does: it calls tools, and keeps all that it sent and got."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.log: list[str] = []

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        self.log.append(json.dumps(arguments))
        result = await self.client.call_tool(tool, arguments)
        self.log.append(result.model_dump_json())
        assert not result.is_error, result.content
        assert result.structured_content is not None
        return dict(result.structured_content)


@contextlib.asynccontextmanager
async def client_of(transport: str, mode: str, home: Path, person: Person, logs: Path) -> AsyncGenerator[Client]:
    """The official client, connected to a server whose log is kept."""
    if transport == "http":
        async with (
            serve(home) as server,
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60, trust_env=False) as http,
            Client(
                streamable_http_client(f"{server.url}/mcp", http_client=http), mode=mode, elicitation_callback=person
            ) as client,
        ):
            yield client
        return
    with logs.open("w") as errors:
        parameters = StdioServerParameters(
            command=sys.executable,
            args=["-m", "mcp_ssh", "stdio", "--verbose"],
            env={**os.environ, "MCP_SSH_HOME": str(home)},
        )
        async with Client(stdio_client(parameters, errlog=errors), mode=mode, elicitation_callback=person) as client:
            yield client


def beside(app: App, mode: str = "auto", person: Person | None = None) -> Client:
    """The official client in this process."""
    server = build_server(app, REGISTRY, ToolsetSelection(), caller=caller())
    return Client(server, mode=mode, elicitation_callback=person)


def kept(home: Path, logs: Path) -> str:
    """All that the server wrote down: every row and file of its folder, and its log."""
    with contextlib.closing(sqlite3.connect(home / "state.db")) as database:
        history = "\n".join(map(str, database.execute("SELECT * FROM history")))
    files = "\n".join(path.read_bytes().decode("latin-1") for path in home.rglob("*") if path.is_file())
    return history + files + logs.read_text()
