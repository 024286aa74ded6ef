"""The rooms, one a noun, and the registry of all their tools."""

from mcp_ssh.tool import tools_of
from mcp_ssh.tools import (
    blob,
    command,
    config,
    connection,
    file,
    firewall,
    hostkey,
    session,
    setup,
    shell,
    system,
    tunnel,
)

REGISTRY = tools_of(session, connection, command, shell, file, system, setup, firewall, tunnel, hostkey, blob, config)
