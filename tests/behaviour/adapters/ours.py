"""This project."""

import sys
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters, types

from mcp_ssh import __version__
from tests.behaviour.adapter import Adapter


class Ours(Adapter):
    """`ssh-steward stdio`, as the README has clients start it."""

    name = "ssh-steward"
    version = __version__
    session_id = ""

    def server(self) -> StdioServerParameters:
        environment = {**self.environment(), "MCP_SSH_HOME": str(self.home / "mcp-ssh")}
        root = Path(__file__).resolve().parents[3]
        return StdioServerParameters(command=sys.executable, args=["-m", "mcp_ssh", "stdio"], env=environment, cwd=root)

    async def connect(self, client: Client) -> types.CallToolResult | None:
        machine = self.machine
        login = {"host": machine.host, "port": machine.port, "username": machine.user, "key_path": machine.key_path}
        result = await client.call_tool("session_connect", login)
        self.session_id = str((result.structured_content or {}).get("session_id", ""))
        return result

    def exec(self, command: str, timeout_s: float) -> tuple[str, dict[str, Any]]:
        return "command_exec", {"session_id": self.session_id, "command": command, "timeout": timeout_s}
