"""Download a file or folder from a machine, with a progress bar; after a cut the same command goes on."""

import argparse
from pathlib import Path, PurePosixPath

from mcp_ssh.cli.machine import HELP
from mcp_ssh.cli.terminal import usage
from mcp_ssh.cli.transfer_commands import options, transfer


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `mcp-ssh download` takes."""
    parser.add_argument("machine", metavar="MACHINE", help=HELP)
    parser.add_argument("remote", metavar="REMOTE", help="file or folder there")
    parser.add_argument(
        "local",
        metavar="LOCAL",
        nargs="?",
        help="path here; an existing folder is one to put it in (default: its name)",
    )
    options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Download, and return the exit code."""
    name = PurePosixPath(parsed.remote).name
    local = Path(parsed.local).expanduser() if parsed.local else Path()
    if local.is_dir() or (parsed.local or "").endswith("/"):
        if name in {"", ".", "..", "~"}:
            raise usage(f"{parsed.remote!r} has no name of its own", "give LOCAL, the folder to make here")
        local /= name
    given = {"remote_path": parsed.remote, "local_path": str(local.absolute())}
    return transfer(parsed, "file_download", given, name or parsed.remote)
