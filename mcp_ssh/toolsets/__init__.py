"""Which tools an endpoint lists, and the tools through which it reaches the others."""

from mcp_ssh.toolsets.arguments import argument_schema, decode_arguments
from mcp_ssh.toolsets.meta_tools import TOOLS, MetaToolContext, NonInteractiveCall, brought
from mcp_ssh.toolsets.search import lookup, suggest_tools
from mcp_ssh.toolsets.selection import CORE, PRESETS, ToolsetSelection, parse, toolsets

__all__ = [
    "CORE",
    "PRESETS",
    "TOOLS",
    "MetaToolContext",
    "NonInteractiveCall",
    "ToolsetSelection",
    "argument_schema",
    "brought",
    "decode_arguments",
    "lookup",
    "parse",
    "suggest_tools",
    "toolsets",
]
