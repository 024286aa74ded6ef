"""The shells of a session as tests use them."""

from typing import Any

import anyio

from mcp_ssh.app import App
from mcp_ssh.tools import shell
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Way
from tests.support.machine import opened


class Room:
    """The shells of one session, as a test uses them."""

    def __init__(self, way: Way, on: dict[str, str]) -> None:
        self.way = way
        self.on = on

    async def __call__(self, tool: Any, shell: str = "default", **arguments: Any) -> dict[str, Any]:
        return await self.way.call(tool, {**self.on, "shell": shell, **arguments})

    async def says(self, wanted: str, name: str = "default", **arguments: Any) -> str:
        """Read on until that was said; all that was said until then."""
        said = ""
        with anyio.fail_after(20):
            while wanted not in said:
                said += (await self(shell.read, name, wait_s=5, **arguments))["output"]
        return said

    async def asks(self, kind: str, name: str = "default") -> dict[str, Any]:
        """Read on until a read says that this is waited for; that read."""
        with anyio.fail_after(20):
            while True:
                read = await self(shell.read, name, wait_s=5)
                if read.get("waiting_input", {}).get("kind") == kind:
                    return read


async def room(app: App, host: Host, user: str = "dev") -> Room:
    way = Direct(app)
    return Room(way, await opened(way, app, host, user))
