"""The firewall of a machine: its rules, and letting an address in."""

from mcp_ssh.tools.firewall.allow import allow_ip
from mcp_ssh.tools.firewall.rules import backend, raw, rules

__all__ = ["allow_ip", "backend", "raw", "rules"]
