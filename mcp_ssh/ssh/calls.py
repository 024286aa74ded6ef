"""The calls that are running, so that whatever ends under them can end each of them properly."""

import contextlib
from collections.abc import Callable, Generator

import anyio

from mcp_ssh.errors import ToolError

CLOSING_LIMIT_S = 12.0
"""How long running calls may take to end what they started."""


class Calls:
    """Running calls of a server or of a session.

    Args:
        ended: The error of a call that comes too late, or is cut short.
    """

    def __init__(self, ended: Callable[[], ToolError]) -> None:
        self._ended = ended
        self._scopes: set[anyio.CancelScope] = set()
        self._closing = False
        self._idle = anyio.Event()

    def __len__(self) -> int:
        return len(self._scopes)

    @contextlib.contextmanager
    def running(self) -> Generator[None]:
        """Hold a place among the running calls.

        Raises:
            ToolError: The one given, before or during the call.
        """
        if self._closing:
            raise self._ended()
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
                if self._closing and not self._scopes:
                    self._idle.set()
        if scope.cancelled_caught:
            raise self._ended()

    async def close(self) -> None:
        """Admit no more calls, cancel those that run, and wait within bounds until each has cleaned up."""
        self._closing = True
        if not self._scopes:
            return
        for scope in list(self._scopes):
            scope.cancel()
        with anyio.move_on_after(CLOSING_LIMIT_S):
            await self._idle.wait()
