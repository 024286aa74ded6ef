"""mcp-ssh-gateway of PyPI."""

import json
from typing import Any

from mcp import StdioServerParameters

from tests.behaviour.adapter import PEERS_FOLDER, Adapter


class McpSshGateway(Adapter):
    """Commands run in terminals; it is asked to wait for the end of each."""

    name = "mcp-ssh-gateway"
    version = "7.0.0"

    def server(self) -> StdioServerParameters:
        machine = self.machine
        box = {"host": machine.host, "port": machine.port, "user": machine.user, "key_path": machine.key_path}
        config = self.home / "servers.json"
        config.write_text(json.dumps({"servers": {"box": box}}))
        program = str(PEERS_FOLDER / "mcp-ssh-gateway/bin/mcp-ssh-gateway")
        return StdioServerParameters(command=program, args=["--servers-config", str(config)], env=self.environment())

    def exec(self, command: str, timeout_s: float) -> tuple[str, dict[str, Any]]:
        return "run", {"server": "box", "command": command, "timeout": timeout_s, "wait": min(timeout_s + 2, 300)}
