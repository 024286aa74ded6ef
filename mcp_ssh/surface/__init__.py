"""Which tools an endpoint lists, and the tools through which it reaches the others."""

from mcp_ssh.surface.arguments import argument_schema, decoded
from mcp_ssh.surface.choice import CORE, PRESETS, Surface, parse, toolsets
from mcp_ssh.surface.search import lookup, suggest_tools
from mcp_ssh.surface.tool import TOOLS, Reach, Silent, brought

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
