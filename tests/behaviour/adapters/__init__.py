"""The servers that the suite knows. A further one is a further file, and a line here."""

from tests.behaviour.adapter import Adapter
from tests.behaviour.adapters.mcp_remote_ssh import McpRemoteSsh
from tests.behaviour.adapters.mcp_ssh_gateway import McpSshGateway
from tests.behaviour.adapters.ours import Ours
from tests.behaviour.adapters.ssh_mcp import SshMcp

OURS: type[Adapter] = Ours
PEERS: tuple[type[Adapter], ...] = (SshMcp, McpSshGateway, McpRemoteSsh)
ALL = {each.name: each for each in (OURS, *PEERS)}
