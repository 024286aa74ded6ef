"""Starting a server: quickly to the first answer, and what the first connection needs is got ready right after it."""

import asyncio
import contextlib
import gc
import importlib
import importlib.util
import os
import resource
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

from mcp_ssh.cli.terminal import usage

_Arguments = TypeVarTuple("_Arguments")

LOOP_VARIABLE = "MCP_SSH_LOOP"
"""Which loop a server runs on, `asyncio` or `uvloop`; without it uvloop where that is installed."""

AHEAD_S = 1.0
"""How long after the start the SSH library is imported: the client's first questions come before it."""


DESCRIPTORS = 65_536
"""How many descriptors are asked for. Programs that a server starts get the same limit, and some close each in turn."""

OPEN_MAX = 10_240
"""The most that macOS gives where it names no bound."""


def begin() -> None:
    """Make the process ready to serve.

    No garbage is collected while the program is imported: nothing of it is any, and looking takes a sixth of the time.
    """
    gc.disable()
    raise_descriptor_limit()


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open files to the hard one: connections, SSH and files share it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    for wanted in (most, min(most, OPEN_MAX)):
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            return
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return


def run(serve: Callable[[*_Arguments], Awaitable[None]], *arguments: *_Arguments) -> None:
    """Run a server to its end, on uvloop where that is installed, else on asyncio's own loop.

    Raises:
        Failure: `MCP_SSH_LOOP` names another loop, or one that is not here.
    """
    import anyio

    present = importlib.util.find_spec("uvloop") is not None
    wanted = os.environ.get(LOOP_VARIABLE) or ("uvloop" if present else "asyncio")
    if wanted not in {"asyncio", "uvloop"}:
        raise usage(f"{LOOP_VARIABLE} is {wanted[:40]!r}", "it is asyncio or uvloop")
    if wanted == "uvloop" and not present:
        raise usage(f"{LOOP_VARIABLE} is uvloop, which is not installed", "install ssh-steward[uvloop]")
    anyio.run(serve, *arguments, backend_options={"use_uvloop": wanted == "uvloop"})


def freeze_garbage() -> None:
    """What there is now stays, and is never looked through again; from here on garbage is collected.

    Scheduled to run at the loop's next turn, so that what follows at once, up to the first wait, is part of the start.
    """
    asyncio.get_running_loop().call_soon(_collect)
    ahead = threading.Timer(AHEAD_S, _import_ssh)
    ahead.daemon = True
    ahead.start()


def _collect() -> None:
    gc.freeze()
    gc.enable()


def _import_ssh() -> None:
    # A call that connects earlier imports it; the import lock makes one wait for the other.
    with contextlib.suppress(Exception):
        importlib.import_module("mcp_ssh.ssh.dial.client")
