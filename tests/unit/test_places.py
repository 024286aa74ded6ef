"""Whose turn it is, and what refusals teach: properties over made-up orders of events."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcp_ssh.ssh.connection.limits import ASSUMED, CALLS, FifoLimiter, Transport


class Queue:
    """Turns, and who has one, with every event played by hand."""

    def __init__(self, *, at_once: bool) -> None:
        self.at_once = at_once
        self.capacity = 3
        self.turns = FifoLimiter(lambda: self.capacity)
        self.waiting: list[asyncio.Task[None]] = []
        self.running = 0
        self.order: list[int] = []
        self.came: list[int] = []
        self._number = 0

    async def come(self) -> None:
        self._number += 1
        task = asyncio.ensure_future(self._enter(self._number))
        task.set_name(str(self._number))
        self.waiting.append(task)
        self.came.append(self._number)
        await asyncio.sleep(0)

    async def _enter(self, number: int) -> None:
        await self.turns.enter()
        self.running += 1
        self.order.append(number)

    async def give_up(self, index: int) -> None:
        still = [task for task in self.waiting if not task.done()]
        if not still:
            return
        task = still[index % len(still)]
        task.cancel()
        if not self.at_once:  # else what comes next happens before the task has heard of it
            await asyncio.wait([task])
        if (number := int(task.get_name())) in self.came:
            self.came.remove(number)

    async def leave(self) -> None:
        if self.running:
            self.running -= 1
            self.turns.leave()

    async def become(self, capacity: int) -> None:
        self.capacity = capacity
        self.turns.admit()


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.just(0)),
        st.tuples(st.just("leave"), st.just(0)),
        st.tuples(st.just("give_up"), st.integers(0, 20)),
        st.tuples(st.just("become"), st.integers(1, 6)),
    ),
    max_size=60,
)


@pytest.mark.requirement("speed.limiter")
@settings(max_examples=150, deadline=None)
@given(events=EVENTS, at_once=st.booleans())
@example(events=[("come", 0)] * 5 + [("leave", 0), ("give_up", 0)], at_once=True)
def test_turns_come_in_order_and_never_stay_empty_while_somebody_waits(
    events: list[tuple[str, int]], at_once: bool
) -> None:
    async def play() -> None:
        queue = Queue(at_once=at_once)
        for name, value in events:
            if name == "come":
                await queue.come()
            elif name == "leave":
                await queue.leave()
            else:
                await getattr(queue, name)(value)
            if not at_once:  # else several events meet before anybody notices the first
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting = [task for task in queue.waiting if not task.done()]
        assert queue.order == queue.came[: len(queue.order)]
        assert len(waiting) == len(queue.turns)
        assert not waiting or queue.running >= queue.capacity
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(play())


@pytest.mark.requirement("fault.C1")
def test_a_caller_that_gives_up_as_another_leaves_takes_no_turn_with_it() -> None:
    async def play() -> None:
        turns = FifoLimiter(lambda: 1)
        await turns.enter()
        gives_up, waits = asyncio.ensure_future(turns.enter()), asyncio.ensure_future(turns.enter())
        await asyncio.sleep(0)
        gives_up.cancel()  # it learns of that in the next turn of the loop only
        turns.leave()
        await asyncio.wait([gives_up, waits], timeout=5)
        assert gives_up.cancelled()
        assert waits.done()
        assert waits.exception() is None
        assert (len(turns), turns.free) == (0, 0)
        turns.leave()
        assert turns.free == 1

    asyncio.run(play())


@pytest.mark.requirement("fault.C1")
def test_a_caller_that_gets_its_turn_and_gives_up_at_once_passes_it_on() -> None:
    async def play() -> None:
        turns = FifoLimiter(lambda: 1)
        await turns.enter()
        gives_up, waits = asyncio.ensure_future(turns.enter()), asyncio.ensure_future(turns.enter())
        await asyncio.sleep(0)
        turns.leave()
        gives_up.cancel()
        await asyncio.wait([gives_up, waits], timeout=5)
        assert (gives_up.cancelled(), waits.done(), waits.cancelled()) == (True, True, False)

    asyncio.run(play())


def strand() -> Transport:
    return Transport(cast("Any", SimpleNamespace(is_closed=lambda: False)))


@pytest.mark.requirement("speed.limiter")
@settings(max_examples=150, deadline=None)
@given(limit=st.integers(1, 14), wishes=st.lists(st.booleans(), min_size=1, max_size=80))
@example(limit=12, wishes=[True] * 11 + [False])
def test_a_limit_is_learned_from_refusals_and_from_channels_that_were_opened(limit: int, wishes: list[bool]) -> None:
    known, refused_at, most_open = strand(), None, 0
    for wish in wishes:
        if not wish:
            if known.open:
                known.has_closed()
            continue
        known.held += 1
        if known.open < limit:
            known.has_opened()
            most_open = max(most_open, known.open)
            refused_at = None
            continue
        known.held -= 1
        if refused_at is not None:
            known.was_refused(refused_at)
        refused_at = known.closed
    assert known.limit in {limit, max(most_open, ASSUMED)}
    assert 1 <= known.for_calls <= CALLS
    assert known.limit == 1 or known.for_calls < known.limit


def test_a_refusal_beside_a_channel_that_has_just_gone_teaches_nothing() -> None:
    known = strand()
    for _ in range(3):
        known.held += 1
        known.has_opened()
    before = known.closed
    known.has_closed()
    known.was_refused(before)
    assert known.limit == ASSUMED
