"""How many channels a machine gives one connection, learned from what it refuses, and whose turn it is."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncssh

ASSUMED = 10
"""Channels a connection has until a machine shows otherwise: sshd's MaxSessions (sshd_config(5))."""

CALLS = 8
"""Calls at once on one connection: more gain nothing, since starting a shell is what takes a machine its time."""


class Transport:
    """One SSH transport of a connection, and the channels on it.

    One channel is kept for ending what runs on the others, so calls get one less than the machine gives.

    Attributes:
        link: The connection.
        held: Channels that are open or being opened.
        open: Channels that are open.
        closed: Channels that were open, so far.
        limit: Channels the machine gives.
    """

    def __init__(self, connection: "asyncssh.SSHClientConnection") -> None:
        self.connection = connection
        self.held = 0
        self.open = 0
        self.closed = 0
        self.limit = ASSUMED

    @property
    def alive(self) -> bool:
        """Whether the connection stands, as far as keepalives tell."""
        return not self.connection.is_closed()

    @property
    def for_calls(self) -> int:
        """How many calls may run at once."""
        return max(1, min(CALLS, self.limit - 1)) if self.alive else 0

    @property
    def room(self) -> int:
        """How many channels more there may be."""
        return self.limit - self.held

    def has_opened(self) -> None:
        """A channel was opened: the machine gives at least as many."""
        self.open += 1
        self.limit = max(self.limit, self.open)

    def has_closed(self) -> None:
        """A channel that was open is gone."""
        self.open -= 1
        self.held -= 1
        self.closed += 1

    def was_refused(self, closed_before: int) -> None:
        """A channel was refused, and not for the first time.

        sshd frees a place a moment after the channel is gone, so a refusal tells of the limit only where no channel has
        gone since the refusal before it.

        Args:
            closed_before: `closed` at the refusal before.
        """
        if self.closed == closed_before:
            self.limit = max(1, self.open)


class FifoLimiter:
    """Who may run, in the order they came.

    Args:
        capacity: How many may, now.
    """

    def __init__(self, capacity: Callable[[], int]) -> None:
        self._capacity = capacity
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        """How many wait; one that was cancelled does not, though it may still stand in the queue."""
        return sum(1 for each in self._waiting if not each.done())

    @property
    def free(self) -> int:
        """How many more may come at once."""
        return max(0, self._capacity() - self._taken)

    @property
    def full(self) -> bool:
        """Whether one who comes now has to wait."""
        return self._taken >= self._capacity() or not all(each.done() for each in self._waiting)

    async def enter(self) -> None:
        """Wait for a turn. The caller calls `leave` once its turn is over."""
        if not self.full:
            self._taken += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # the turn came in the same moment
                self.leave()
            else:
                with contextlib.suppress(ValueError):  # `admit` may have dropped it already
                    self._waiting.remove(turn)
            raise

    def leave(self) -> None:
        """Pass the turn on."""
        self._taken -= 1
        self.admit()

    def admit(self) -> None:
        """Let in those that may enter now; skip a waiter that was cancelled in this turn of the loop."""
        while self._waiting and self._taken < self._capacity():
            turn = self._waiting.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)
