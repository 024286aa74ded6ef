"""The firewall of a machine: its rules."""

from mcp_ssh.tools.firewall.rules import backend, raw, rules

__all__ = ["backend", "raw", "rules"]
