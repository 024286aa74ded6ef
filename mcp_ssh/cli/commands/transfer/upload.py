"""Upload a file or folder to a machine, with a progress bar; after a cut the same command resumes."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from mcp_ssh.cli.commands.transfer.commands import options, transfer
from mcp_ssh.cli.target import HELP
from mcp_ssh.cli.terminal import Failure, usage


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `ssh-steward upload` takes."""
    parser.add_argument("machine", metavar="MACHINE", help=HELP)
    parser.add_argument("local", metavar="LOCAL", help="file or folder here; - is standard input")
    parser.add_argument(
        "remote", metavar="REMOTE", nargs="?", help="path there; ending in /, a folder to put it in (default: its name)"
    )
    parser.add_argument("--permissions", metavar="DIGITS", help="octal permissions of the file there, such as 644")
    options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Upload, and return the exit code."""
    if parsed.local == "-":
        return _from_standard_input(parsed)
    local = Path(parsed.local).expanduser()
    if not local.exists():
        raise Failure(f"{parsed.local}: no such file or folder", "check the path")
    name = local.resolve().name
    remote = parsed.remote or name
    if not remote:
        raise usage("the root folder has no name", "give REMOTE, the folder there")
    goal = f"{remote}{name}" if remote.endswith("/") else remote
    return _upload(parsed, local.absolute(), goal, name)


def _from_standard_input(parsed: argparse.Namespace) -> int:
    """Take in all of standard input, then upload it, so that input that breaks off changes nothing there."""
    remote = parsed.remote or ""
    if not remote or remote.endswith("/"):
        raise usage("standard input has no name", "give REMOTE, the path of the file there")
    with tempfile.NamedTemporaryFile(prefix="mcp-ssh-") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.flush()
        return _upload(parsed, Path(file.name), remote, remote)


def _upload(parsed: argparse.Namespace, local: Path, remote: str, title: str) -> int:
    given = {"local_path": str(local), "remote_path": remote}
    permissions = {"permissions": parsed.permissions} if parsed.permissions else {}
    return transfer(parsed, "file_upload", {**given, **permissions}, title)
