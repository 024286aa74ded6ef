"""`python -m tests.support.stdio_toys FOLDER`: the toy tools over standard input and output."""

import argparse
import logging
import sys
from pathlib import Path

import anyio

from mcp_ssh.app import open_app
from mcp_ssh.mcp_server import serve_stdio, stdio
from mcp_ssh.tool import tools_of
from mcp_ssh.toolsets import ToolsetSelection
from tests.support import toys


async def main(folder: Path) -> None:
    async with open_app(folder) as app:
        await serve_stdio(app, tools_of(toys), ToolsetSelection(("toys",)))
    (folder / "closed").touch()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=float, default=stdio.EXIT_LIMIT_S, help="seconds until the end by force")
    parser.add_argument("--look", type=float, default=stdio.PARENT_LOOK_S, help="seconds between looks for the parent")
    parser.add_argument(
        "--no-signal", action="store_true", help="as on a system that does not tell of a parent's death"
    )
    given = parser.parse_args()
    stdio.EXIT_LIMIT_S = given.limit
    stdio.PARENT_LOOK_S = given.look
    if given.no_signal:
        sys.platform = "darwin"
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    anyio.run(main, given.folder)
