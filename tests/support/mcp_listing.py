"""`tools/list` as the official client gets it, and every schema within."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from mcp import Client, types

from mcp_ssh.app import open_app
from mcp_ssh.mcp_server import build_server
from mcp_ssh.tool import Caller, Role
from mcp_ssh.tools import REGISTRY
from mcp_ssh.toolsets import ToolsetSelection

OWNER = Caller(id="stdio", role=Role.ADMIN, owner=True)


async def listed_by(folder: Path, surface: ToolsetSelection) -> list[types.Tool]:
    async with open_app(folder) as app, Client(build_server(app, REGISTRY, surface, caller=OWNER)) as client:
        return (await client.list_tools()).tools


def schemas(node: Any) -> Iterator[dict[str, Any]]:
    """Every schema within one, itself included."""
    if isinstance(node, list):
        for each in cast("list[Any]", node):
            yield from schemas(each)
    if not isinstance(node, dict):
        return
    schema = cast("dict[str, Any]", node)
    yield schema
    for key, value in schema.items():
        if key in {"properties", "patternProperties"}:
            for each in value.values():
                yield from schemas(each)
        elif key not in {"default", "enum", "const", "examples", "required"}:
            yield from schemas(value)
