"""The calls that are running, so that whatever ends under them can end each of them properly."""

import contextlib
from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar

import anyio

from mcp_ssh.errors import ToolError
from mcp_ssh.ssh.wire.kill import StopResult

CLOSING_LIMIT_S = 14.0
"""How long running calls may take to end what they started: a sweep, the one before it, and a channel's close."""

_stops: ContextVar[list[StopResult] | None] = ContextVar("stops", default=None)


def record(stopped: StopResult) -> None:
    """Note for the call that is running what became of processes that it had to end early."""
    if (stops := _stops.get()) is not None:
        stops.append(stopped)


def recorded_stops() -> list[StopResult]:
    """What was noted for the call that is running."""
    return list(_stops.get() or ())


class Calls:
    """Running calls of a server or of a session.

    Args:
        ended: The error of a call that comes too late, or is cut short, after what became of what it had started.
    """

    def __init__(self, ended: Callable[[Sequence[StopResult]], ToolError]) -> None:
        self._ended = ended
        self._scopes: set[anyio.CancelScope] = set()
        self._closing = False
        self._stopped: list[StopResult] = []
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
            raise self._ended(())
        stops: list[StopResult] = []
        outer = _stops.get()
        _stops.set(stops)
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                _stops.set(outer)
                if outer is not None:
                    outer += stops
                self._leave(scope, stops)
        if scope.cancelled_caught:
            raise self._ended(stops)

    def _leave(self, scope: anyio.CancelScope, stops: Sequence[StopResult]) -> None:
        self._scopes.discard(scope)
        if self._closing:
            self._stopped += stops
            if not self._scopes:
                self._idle.set()

    async def close(self) -> list[StopResult]:
        """Admit no more calls, cancel those that run, and wait within bounds until each has cleaned up.

        Returns:
            What became of what they had started; unknown for a call that did not come to its end.
        """
        self._closing = True
        if self._scopes:
            for scope in list(self._scopes):
                scope.cancel()
            with anyio.move_on_after(CLOSING_LIMIT_S):
                await self._idle.wait()
        return [*self._stopped, *(StopResult(ended=None) for _ in self._scopes)]
