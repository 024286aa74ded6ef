"""`python -m tests.protocol.server`: the HTTP server as `ssh-steward serve` starts it, with the suite's fixtures.

Gate, endpoints, sessions and dispatch are the product's own. It asks for no token, for the suite can send none, and
listens on a free loopback port, which it prints.
"""

import sys
import tempfile
from pathlib import Path

import anyio

from mcp_ssh.app import open_app
from mcp_ssh.config.models import Config
from mcp_ssh.tool import Registry, tools_of
from mcp_ssh.tools import REGISTRY
from rest_bridge.families.registry import FAMILIES
from rest_bridge.http import mcp as mcp_endpoints
from rest_bridge.server import serve
from tests.protocol import fixtures, test

PATH = "/mcp/all"
"""The endpoint that lists every tool, and so the fixtures."""


async def main() -> None:
    """Serve until a signal comes, or standard input ends."""
    build = mcp_endpoints.build_server
    mcp_endpoints.build_server = lambda *given, **named: fixtures.add_to(build(*given, **named))
    registry = Registry([*REGISTRY.values(), *tools_of(test).values()])
    config = Config()
    open_to_all = config.server.model_copy(update={"auth_mode": "none"})
    config = config.model_copy(update={"server": open_to_all})
    with tempfile.TemporaryDirectory(prefix="mcp-ssh-conformance-") as folder:
        async with open_app(Path(folder), config) as app, anyio.create_task_group() as group:
            group.start_soon(_until_input_ends, group.cancel_scope)
            await serve(app, registry, FAMILIES, host="127.0.0.1", port=0, on_ready=_say)
            group.cancel_scope.cancel()


def _say(url: str) -> None:
    print(url + PATH, flush=True)


async def _until_input_ends(scope: anyio.CancelScope) -> None:
    """Go with whoever started this, however that ends."""
    await anyio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
    scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
