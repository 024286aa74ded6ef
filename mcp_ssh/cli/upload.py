"""Upload a file or folder to a machine, with a progress bar; after a cut the same command goes on."""

import argparse
from pathlib import Path

from mcp_ssh.cli.machine import HELP
from mcp_ssh.cli.terminal import Failure, usage
from mcp_ssh.cli.transfer_commands import options, transfer


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `mcp-ssh upload` takes."""
    parser.add_argument("machine", metavar="MACHINE", help=HELP)
    parser.add_argument("local", metavar="LOCAL", help="file or folder here")
    parser.add_argument(
        "remote", metavar="REMOTE", nargs="?", help="path there; ending in /, a folder to put it in (default: its name)"
    )
    parser.add_argument("--permissions", metavar="DIGITS", help="octal permissions of the file there, such as 644")
    options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Upload, and return the exit code."""
    local = Path(parsed.local).expanduser()
    if not local.exists():
        raise Failure(f"{parsed.local}: no such file or folder", "check the path")
    name = local.resolve().name
    remote = parsed.remote or name
    if not remote:
        raise usage("the root folder has no name", "give REMOTE, the folder there")
    goal = f"{remote}{name}" if remote.endswith("/") else remote
    given = {"local_path": str(local.absolute()), "remote_path": goal}
    permissions = {"permissions": parsed.permissions} if parsed.permissions else {}
    return transfer(parsed, "file_upload", {**given, **permissions}, name)
