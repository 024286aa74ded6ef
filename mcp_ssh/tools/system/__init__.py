"""The machine itself, one room in several modules: what it is, how it does, what runs on it."""

from mcp_ssh.tools.system.platform import platform

__all__ = ["platform"]
