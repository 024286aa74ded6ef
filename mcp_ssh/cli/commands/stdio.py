"""Serve the tools over MCP on standard input and output, as MCP clients start it."""

import argparse

from mcp_ssh.cli import event_loop, logging_setup


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `ssh-steward stdio` takes."""
    surface_arguments(parser)


def surface_arguments(parser: argparse.ArgumentParser) -> None:
    """What a server may be told about the tools it lists."""
    parser.add_argument(
        "--toolsets",
        default="core",
        metavar="NAMES",
        help="tools to list: all, core, or names of toolsets such as session,file (default: core)",
    )
    parser.add_argument("--read-only", action="store_true", help="only tools that change nothing")


def run(parsed: argparse.Namespace) -> int:
    """Serve until the client leaves, and return the exit code."""
    event_loop.begin()
    event_loop.run(_serve, parsed)
    return 0


async def _serve(parsed: argparse.Namespace) -> None:
    from mcp_ssh import toolsets
    from mcp_ssh.app import open_app
    from mcp_ssh.config.models import home, load
    from mcp_ssh.mcp_server import serve_stdio
    from mcp_ssh.tools import REGISTRY

    folder = home()
    config = load(folder)
    logging_setup.set_up(config, verbose=parsed.verbose, as_json=parsed.log_json)
    shown = toolsets.parse(parsed.toolsets, REGISTRY, read_only=parsed.read_only)
    async with open_app(folder, config, read_only=parsed.read_only) as app:
        event_loop.freeze_garbage()
        await serve_stdio(app, REGISTRY, shown)
