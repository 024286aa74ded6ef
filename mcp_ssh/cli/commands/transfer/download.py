"""Download a file or folder from a machine, with a progress bar; after a cut the same command resumes."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path, PurePosixPath

from mcp_ssh.cli.commands.transfer.commands import no_folder, options, transfer
from mcp_ssh.cli.target import HELP
from mcp_ssh.cli.terminal import usage


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `ssh-steward download` takes."""
    parser.add_argument("machine", metavar="MACHINE", help=HELP)
    parser.add_argument("remote", metavar="REMOTE", help="file or folder there")
    parser.add_argument(
        "local",
        metavar="LOCAL",
        nargs="?",
        help="path here; an existing folder is one to put it in; - is standard output (default: its name)",
    )
    options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Download, and return the exit code."""
    if parsed.local == "-":
        return _to_standard_output(parsed)
    name = PurePosixPath(parsed.remote).name
    local = Path(parsed.local).expanduser() if parsed.local else Path()
    if local.is_dir() or (parsed.local or "").endswith("/"):
        if name in {"", ".", "..", "~"}:
            raise usage(f"{parsed.remote!r} has no name of its own", "give LOCAL, the folder to make here")
        local /= name
    given = {"remote_path": parsed.remote, "local_path": str(local.absolute())}
    return transfer(parsed, "file_download", given, name or parsed.remote)


def _to_standard_output(parsed: argparse.Namespace) -> int:
    """Download a file beside, see that it is whole, and only then print it."""
    with tempfile.TemporaryDirectory(prefix="mcp-ssh-") as folder:
        local = Path(folder) / "file"
        given = {"remote_path": parsed.remote, "local_path": str(local)}
        title = PurePosixPath(parsed.remote).name or parsed.remote
        code = transfer(parsed, "file_download", given, title, to_output=True)
        if local.is_dir():
            raise no_folder(parsed.remote)
        if code == 0:
            with local.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    return code
