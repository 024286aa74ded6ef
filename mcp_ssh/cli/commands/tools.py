"""List the tools: name, risk and what each does."""

import argparse
from typing import TYPE_CHECKING, Any

from mcp_ssh.cli.terminal import print_json, print_table

if TYPE_CHECKING:
    from mcp_ssh.tool import AnyTool


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `ssh-steward tools` takes."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="everything about each tool, schemas included, as JSON")
    form.add_argument("--markdown", action="store_true", help="a Markdown table")


def run(parsed: argparse.Namespace) -> int:
    """Print the list, and return the exit code."""
    from mcp_ssh.tools import REGISTRY

    tools = list(REGISTRY.values())
    if parsed.json:
        print_json([describe_tool(tool) for tool in tools])
    elif parsed.markdown:
        print(markdown(tools), end="")
    else:
        print_table(["tool", "risk", "what it does"], [[tool.name, risk(tool), first_sentence(tool)] for tool in tools])
    return 0


def risk(tool: "AnyTool") -> str:
    """What the tool may do to a machine: read, change or destroy."""
    return tool.risk.name.lower()


def first_sentence(tool: "AnyTool") -> str:
    """The first line of the tool's description, which is a sentence."""
    return tool.description.partition("\n")[0]


def describe_tool(tool: "AnyTool") -> dict[str, Any]:
    """Everything a program may want to know of a tool."""
    return {
        "name": tool.name,
        "room": tool.room,
        "title": tool.title,
        "risk": risk(tool),
        "role": tool.role.name.lower(),
        "confirm": tool.confirm,
        "description": tool.description,
        "input_schema": tool.input_schema,
        "output_schema": tool.output_schema,
    }


def markdown(tools: "list[AnyTool]") -> str:
    """A Markdown table of tools."""
    rows = [
        f"| `{tool.name}` | {risk(tool)} | {tool.role.name.lower()} | {cell(first_sentence(tool))} |" for tool in tools
    ]
    return "\n".join(["| Tool | Risk | Role | What it does |", "| --- | --- | --- | --- |", *rows]) + "\n"


def cell(text: str) -> str:
    """Text that stays within one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
