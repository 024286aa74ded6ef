"""Which tools an endpoint lists, and the tools through which it reaches the others."""

from mcp_ssh.toolsets.arguments import argument_schema, decoded
from mcp_ssh.toolsets.meta_tools import TOOLS, Reach, Silent, brought
from mcp_ssh.toolsets.search import lookup, suggest_tools
from mcp_ssh.toolsets.selection import CORE, PRESETS, Surface, parse, toolsets

__all__ = [
    "CORE",
    "PRESETS",
    "TOOLS",
    "Reach",
    "Silent",
    "Surface",
    "argument_schema",
    "brought",
    "decoded",
    "lookup",
    "parse",
    "suggest_tools",
    "toolsets",
]
