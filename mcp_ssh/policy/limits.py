"""How many calls a caller may make at once, and in a minute."""

import contextlib
import math
import time
from collections.abc import Callable, Generator
from contextvars import ContextVar
from dataclasses import dataclass

from mcp_ssh.errors import TooMany


@dataclass
class _Place:
    """What a call took for itself, and may lend to one call at a time that it makes in turn, as long as it runs."""

    caller_id: str
    free: bool = True
    lent_before: bool = False
    over: bool = False


@dataclass
class _Use:
    """What one caller uses: calls that run, and how many more it may start now."""

    running: int
    left: float
    at: float


_place: ContextVar[_Place | None] = ContextVar("place", default=None)


@contextlib.contextmanager
def _taken(caller_id: str) -> Generator[None]:
    place = _Place(caller_id)
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)
        place.over = True  # what the call left running has no part in it any more


class CallLimits:
    """Counts the calls of each caller. A call that only passes on to another, as tool_call does, counts once.

    The calls of a minute are a bucket: full at first, filled again evenly.
    """

    def __init__(self, at_once: int, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._at_once = at_once
        self._per_minute = per_minute
        self._clock = clock
        self._uses: dict[str, _Use] = {}

    def set_bounds(self, at_once: int, per_minute: int) -> None:
        """Take other bounds; calls that run go on, and what a caller has used of its minute stays used."""
        for use in self._uses.values():
            use.left = min(per_minute, use.left + max(0, per_minute - self._per_minute))
        self._at_once, self._per_minute = at_once, per_minute

    @contextlib.contextmanager
    def admit(self, caller_id: str) -> Generator[None]:
        """Let a call run, and count it while it does.

        Raises:
            TooMany: The caller has as many running, or started as many in the last minute; says how long to wait.
        """
        outer = _place.get()
        if outer is not None and outer.caller_id == caller_id and outer.free and not outer.over:
            with self._lent(outer, caller_id):
                yield
            return
        use = self._use(caller_id)
        if use.running >= self._at_once:
            raise TooMany(
                f"you have {self._at_once} calls running, as many as security.max_calls_at_once allows",
                hint="wait until one of them ends",
                details={"retry_after_s": 1},
            )
        self._start(use)
        use.running += 1
        try:
            with _taken(caller_id):
                yield
        finally:
            use.running -= 1
            self._forget(caller_id)

    @contextlib.contextmanager
    def _lent(self, outer: _Place, caller_id: str) -> Generator[None]:
        if outer.lent_before:
            self._start(self._use(caller_id))
        outer.free, outer.lent_before = False, True
        try:
            with _taken(caller_id):
                yield
        finally:
            outer.free = True

    def _use(self, caller_id: str) -> _Use:
        now = self._clock()
        use = self._uses.setdefault(caller_id, _Use(0, self._per_minute, now))
        use.left = min(self._per_minute, use.left + (now - use.at) * self._per_minute / 60)
        use.at = now
        return use

    def _start(self, use: _Use) -> None:
        if not self._per_minute:
            return
        if use.left < 1:
            wait_s = math.ceil((1 - use.left) * 60 / self._per_minute)
            raise TooMany(
                f"you made {self._per_minute} calls within a minute, as many as security.max_calls_per_minute allows",
                hint=f"wait {wait_s} s, then call again",
                details={"retry_after_s": wait_s},
            )
        use.left -= 1

    def _forget(self, caller_id: str) -> None:
        """What says nothing is not kept."""
        use = self._use(caller_id)
        if not use.running and use.left >= self._per_minute:
            del self._uses[caller_id]


class Rate:
    """Counts what a caller does within a minute, whichever call it does it in.

    The allowance of a minute is a bucket: full at first, filled again evenly.
    """

    def __init__(
        self, what: str, setting: str, per_minute: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what = what
        self._setting = setting
        self._per_minute = per_minute
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def expect(self, caller_id: str) -> None:
        """See that the caller has something left.

        Raises:
            TooMany: It has not; says how long to wait.
        """
        most, left = self._now(caller_id)
        if left < 1:
            wait_s = math.ceil((1 - left) * 60 / most)
            raise TooMany(
                f"you made {most} {self._what} within a minute, as many as {self._setting} allows",
                hint=f"wait {wait_s} s, then call again",
                details={"retry_after_s": wait_s},
            )

    def count(self, caller_id: str) -> None:
        """Take one from what the caller has left."""
        _, left = self._now(caller_id)
        self._left[caller_id] = (max(0.0, left - 1), self._clock())

    def _now(self, caller_id: str) -> tuple[int, float]:
        most, now = self._per_minute(), self._clock()
        left, at = self._left.get(caller_id, (float(most), now))
        left = min(float(most), left + (now - at) * most / 60)
        if left >= most:
            self._left.pop(caller_id, None)
        return most, left
