"""mcp-remote-ssh of PyPI."""

import json
from typing import Any

from mcp import Client, StdioServerParameters, types

from tests.behaviour.adapter import PEERS_FOLDER, Adapter


class McpRemoteSsh(Adapter):
    """It takes everything from the calls."""

    name = "mcp-remote-ssh"
    version = "0.4.0"
    session_id = ""

    def server(self) -> StdioServerParameters:
        program = str(PEERS_FOLDER / "mcp-remote-ssh/bin/mcp-remote-ssh")
        return StdioServerParameters(command=program, args=[], env=self.environment())

    async def connect(self, client: Client) -> types.CallToolResult | None:
        machine = self.machine
        login = {"host": machine.host, "port": machine.port, "username": machine.user, "key_path": machine.key_path}
        result = await client.call_tool("ssh_connect", login)
        found: Any = result.structured_content or json.loads(getattr(result.content[0], "text", "{}"))
        found = found.get("result", found)
        found = json.loads(found) if isinstance(found, str) else found
        self.session_id = found.get("session_id", "")
        return result

    def exec(self, command: str, timeout_s: float) -> tuple[str, dict[str, Any]]:
        return "ssh_execute", {"session_id": self.session_id, "command": command, "timeout": int(timeout_s)}
