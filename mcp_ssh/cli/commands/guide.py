"""Print how to work with the server over HTTP: the page it serves at /guide."""

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `ssh-steward guide` takes."""
    parser.add_argument("--prompts", action="store_true", help="the ready instructions for agents instead")


def run(parsed: argparse.Namespace) -> int:
    """Print the page, and return the exit code."""
    from mcp_ssh.config.models import home, load
    from mcp_ssh.tools import REGISTRY
    from rest_bridge.docs.guide import guide, prompts_page
    from rest_bridge.families.registry import FAMILIES

    print(prompts_page() if parsed.prompts else guide(REGISTRY, FAMILIES, load(home())), end="")
    return 0
