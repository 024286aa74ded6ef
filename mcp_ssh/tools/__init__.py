"""The rooms, one a noun, and the registry of all their tools."""

from mcp_ssh.tool import tools_of
from mcp_ssh.tools import command, session

REGISTRY = tools_of(session, command)
