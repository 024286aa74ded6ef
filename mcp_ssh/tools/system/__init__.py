"""The machine itself, one room in several modules: what it is, how it does, what runs on it, what lies on it."""

from mcp_ssh.tools.system.platform import platform
from mcp_ssh.tools.system.processes import processes
from mcp_ssh.tools.system.search import find, grep
from mcp_ssh.tools.system.services import kill, service
from mcp_ssh.tools.system.text import head, tail
from mcp_ssh.tools.system.vitals import cpu, disk, memory, network, uptime, users

__all__ = [
    "cpu", "disk", "find", "grep", "head", "kill", "memory", "network", "platform", "processes", "service", "tail",
    "uptime", "users",
]  # fmt: skip
