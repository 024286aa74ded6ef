"""The software of a machine: what it has, what there is, and changes to it, by its own package manager."""

from mcp_ssh.tools.setup.install import remove, requirements, update
from mcp_ssh.tools.setup.query import check, search, upgradable

__all__ = ["check", "remove", "requirements", "search", "update", "upgradable"]
