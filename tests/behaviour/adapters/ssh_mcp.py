"""ssh-mcp of npm."""

from typing import Any

from mcp import StdioServerParameters

from tests.behaviour.adapter import PEERS_FOLDER, Adapter


class SshMcp(Adapter):
    """Its profiles and time limits are in a file; approvals are off, for nobody is there to approve."""

    name = "ssh-mcp"
    version = "2.11.0"

    def server(self) -> StdioServerParameters:
        machine = self.machine
        config = self.home / "config.toml"
        config.write_text(
            f'[defaults]\ndefaultProfile = "box"\ncommandTimeoutMs = {int(self.timeout_s * 1000)}\n'
            f'[[profiles]]\nname = "box"\nhost = "{machine.host}"\nport = {machine.port}\nuser = "{machine.user}"\n'
            f'auth = "key"\nkeyRef = "{machine.key_path}"\nrole = "admin"\napprovalPolicy = "auto"\ngroup = "dev"\n'
        )
        config.chmod(0o600)
        self.home.chmod(0o700)
        script = PEERS_FOLDER / "node_modules/ssh-mcp/build/index.js"
        return StdioServerParameters(command="node", args=[str(script), f"--config={config}"], env=self.environment())

    def exec(self, command: str, timeout_s: float) -> tuple[str, dict[str, Any]]:
        return "run-command", {"command": command}
