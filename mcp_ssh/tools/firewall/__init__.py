"""The firewall of a machine: its rules, changing them without being shut out, and keeping them."""

from mcp_ssh.tools.firewall.persistence import restore, save
from mcp_ssh.tools.firewall.rule_add import allow_ip, allow_port, block_ip, block_port, rule_add, rule_add_range
from mcp_ssh.tools.firewall.rule_delete import flush, policy, rule_delete
from mcp_ssh.tools.firewall.rules import backend, raw, rules

__all__ = [
    "allow_ip",
    "allow_port",
    "backend",
    "block_ip",
    "block_port",
    "flush",
    "policy",
    "raw",
    "restore",
    "rule_add",
    "rule_add_range",
    "rule_delete",
    "rules",
    "save",
]
