"""The memory for answers of machines that all callers share."""

import contextlib
from collections.abc import Generator

import anyio
from anyio.lowlevel import RunVar

BUDGET_BYTES = 32 * 1024 * 1024
"""Bytes of answers that the process holds at a time while they arrive and are parsed."""


class AnswerBudget:
    """Memory for answers, in bytes, that all callers share.

    An answer takes room as its bytes arrive; where there is none, it waits, and so its machine does. The eldest answer
    of all never waits, so there is always one that comes to its end. Of the rest a caller takes three quarters at most:
    half for its own eldest answer, a quarter for the others. A sixteenth is every caller's without a wait, whatever
    others hold, since a machine can keep an answer open for as long as its call may run.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0
        self._rooms: dict[AnswerRoom, None] = {}
        self._freed = anyio.Event()

    @contextlib.contextmanager
    def room(self, caller_id: str) -> Generator["AnswerRoom"]:
        """Room for one answer, given back at the end of the block."""
        room = AnswerRoom(self, caller_id)
        self._rooms[room] = None
        try:
            yield room
        finally:
            del self._rooms[room]
            self.taken -= room.taken
            self._freed.set()

    async def take(self, room: "AnswerRoom", wanted: int) -> None:
        """Wait until the room may grow by so many bytes, and let it."""
        while not self._may_take(room, wanted):
            room.waits = True
            if self._freed.is_set():
                self._freed = anyio.Event()
            await self._freed.wait()
        room.waits = False
        room.taken += wanted
        self.taken += wanted

    def _may_take(self, room: "AnswerRoom", wanted: int) -> bool:
        if next(iter(self._rooms)) is room:
            return True
        own = [each for each in self._rooms if each.caller_id == room.caller_id]
        held = sum(each.taken for each in own)
        if held + wanted <= self.total // 16:
            return True
        if own[0] is room:
            fair = room.taken + wanted <= self.total // 2
        else:
            others = held - own[0].taken
            fair = held + wanted <= self.total // 2 and others + wanted <= self.total // 4
        return fair and self.taken + wanted <= self.total


class AnswerRoom:
    """The room that one answer takes.

    Attributes:
        waits: Its bytes wait for room, or waited for it until their call gave up.
    """

    def __init__(self, budget: AnswerBudget, caller_id: str) -> None:
        self.caller_id = caller_id
        self.taken = 0
        self.waits = False
        self._budget = budget

    async def take(self, wanted: int) -> None:
        """Wait for room for so many more bytes."""
        await self._budget.take(self, wanted)


_budget: RunVar[AnswerBudget] = RunVar("answers")


def answer_budget() -> AnswerBudget:
    """The budget of this event loop, which is the process's."""
    try:
        return _budget.get()
    except LookupError:
        _budget.set(budget := AnswerBudget(BUDGET_BYTES))
        return budget
