"""Starting a server: quickly to the first answer, and what the first connection needs is got ready right after it."""

import asyncio
import contextlib
import gc
import importlib
import threading

AHEAD_S = 1.0
"""How long after the start the SSH library is imported: the client's first questions come before it."""


def begin() -> None:
    """Collect no garbage while the program is imported: nothing of it is any, and looking takes a sixth of the time."""
    gc.disable()


def begun() -> None:
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
    # Whoever connects earlier imports it; the import lock makes one wait for the other.
    with contextlib.suppress(Exception):
        importlib.import_module("mcp_ssh.ssh.client")
