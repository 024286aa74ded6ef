"""The machine itself, one room in several modules: what it is, how it does, what runs on it, what lies on it."""

from mcp_ssh.tools.system.archive import archive, extract
from mcp_ssh.tools.system.cron import cron_add, cron_list, cron_remove
from mcp_ssh.tools.system.environment import env_get, env_set
from mcp_ssh.tools.system.permissions import chmod, chown
from mcp_ssh.tools.system.platform import platform
from mcp_ssh.tools.system.processes import processes
from mcp_ssh.tools.system.removal import rmrf
from mcp_ssh.tools.system.search import find, grep
from mcp_ssh.tools.system.services import kill, service
from mcp_ssh.tools.system.text import follow, head, tail
from mcp_ssh.tools.system.vitals import cpu, disk, memory, network, uptime, users

__all__ = [
    "archive", "chmod", "chown", "cpu", "cron_add", "cron_list", "cron_remove", "disk", "env_get", "env_set", "extract",
    "find", "follow", "grep", "head", "kill", "memory", "network", "platform", "processes", "rmrf", "service", "tail",
    "uptime", "users",
]  # fmt: skip
