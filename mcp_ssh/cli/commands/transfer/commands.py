"""What `upload` and `download` share: the call, the bar, and what they say at the end."""

import argparse
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcp_ssh.cli import logging_setup
from mcp_ssh.cli.commands.check.findings import short
from mcp_ssh.cli.local_call import TerminalCall
from mcp_ssh.cli.progress_bar import Bar, readable
from mcp_ssh.cli.target import SUDO_HELP, login_arguments, session_on
from mcp_ssh.cli.terminal import Failure, print_json, say, usage
from mcp_ssh.cli.values import seconds
from mcp_ssh.errors import ToolError
from mcp_ssh.messages.printable import printable

if TYPE_CHECKING:
    from mcp_ssh.app import App


def options(parser: argparse.ArgumentParser) -> None:
    """What both take beside machine and paths."""
    login_arguments(parser, "-i")
    parser.add_argument("--sudo", action="store_true", help=SUDO_HELP)
    parser.add_argument(
        "--timeout", type=seconds(86_400), default=3600.0, metavar="SECONDS", help="for everything (default: 3600)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


@dataclass
class _Watched(TerminalCall):
    """A call whose progress is a bar."""

    bar: Bar | None = None

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Move the bar."""
        del message
        if self.bar is not None:
            self.bar.move(done, total)


def transfer(
    parsed: argparse.Namespace, tool: str, arguments: Mapping[str, str], title: str, *, to_output: bool = False
) -> int:
    """Call the tool, show how far it is, and return the exit code.

    Args:
        parsed: The command line.
        tool: `file_upload` or `file_download`.
        arguments: What the tool takes.
        title: What the bar is called.
        to_output: Standard output takes the file: a folder is refused before anything is fetched, and nothing is said.
    """
    from mcp_ssh.cli.run_async import run_async

    for path in filter(_is_no_text, arguments.values()):
        raise Failure(
            f"{path}: the name is not UTF-8, so it cannot be given", "give its folder, which may hold such names"
        )
    logging_setup.set_up_command(verbose=parsed.verbose, as_json=parsed.log_json)
    given: dict[str, Any] = {**arguments, "timeout": parsed.timeout}
    if parsed.sudo:
        given["become"] = {}
    return run_async(_transfer, parsed, tool, given, title, to_output)


def _is_no_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return True
    return False


async def _transfer(
    parsed: argparse.Namespace,
    tool: str,
    given: Mapping[str, Any],
    title: str,
    to_output: bool,  # noqa: FBT001
) -> None:
    from mcp_ssh.dispatch import dispatch
    from mcp_ssh.tools import REGISTRY

    call = _Watched()
    async with session_on(parsed, parsed.machine, call) as (app, _, session_id):
        if to_output and await _is_folder(app, call, session_id, given["remote_path"]):
            raise no_folder(given["remote_path"])
        began = time.monotonic()
        with Bar(title) as call.bar:
            result = await dispatch(app, REGISTRY[tool], {**given, "session_id": session_id}, call)
            body = result.model_dump(mode="json", exclude_unset=True)
            call.bar.move(body["size"], body["size"])
        if parsed.json and not to_output:
            print_json(body)
        elif not to_output:
            say(_summary(body, given, time.monotonic() - began))


async def _is_folder(app: "App", call: _Watched, session_id: str, path: str) -> bool:
    """Whether a look says so. Where it cannot be had, since rights or rules are in the way, the transfer will tell."""
    from mcp_ssh.dispatch import dispatch
    from mcp_ssh.tools import REGISTRY

    with contextlib.suppress(ToolError):
        found = await dispatch(app, REGISTRY["file_stat"], {"path": path, "session_id": session_id}, call)
        return bool(found.model_dump()["is_dir"])
    return False


def no_folder(path: str) -> Failure:
    """The failure of a folder that should go to standard output."""
    return usage(f"{path!r} is a folder, which standard output cannot take", "give LOCAL, a path here")


def _summary(body: Mapping[str, Any], given: Mapping[str, Any], took_s: float) -> str:
    goal = printable(body["path"] if body["status"] == "uploaded" else short(given["local_path"]))
    size = int(body["size"])
    count = f" in {body['count']} file{'' if body['count'] == 1 else 's'}" if "count" in body else ""
    speed = f", {readable(size / took_s)}/s" if took_s > 0 else ""
    resumed = f", {readable(body['resumed_bytes'])} of them before" if body.get("resumed_bytes") else ""
    left_out = f"; left out: {', '.join(map(printable, body['skipped']))}" if body.get("skipped") else ""
    sha256 = f"\nsha256 {body['sha256']}, the same on both sides" if body.get("sha256") else ""
    return f"{body['status']} {goal}: {readable(size)}{count}{resumed}{speed}{left_out}{sha256}"
