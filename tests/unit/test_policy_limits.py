"""Each caller has bounds of its own, through every door, and is told how long to wait."""

from typing import Any

import anyio
import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import TooMany
from mcp_ssh.policy import CallLimits
from mcp_ssh.tools import session
from tests.support.doors import DirectCall, Fault, caller, open_way


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Callers:
    """Calls that run until they are told to end, each in a task of its own."""

    def __init__(self, limits: CallLimits, group: anyio.abc.TaskGroup) -> None:
        self.limits, self.group, self.end = limits, group, anyio.Event()

    async def _call(self, who: str, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        with self.limits.admit(who):
            task_status.started()
            await self.end.wait()

    async def call(self, who: str) -> None:
        await self.group.start(self._call, who)


@pytest.mark.requirement("policy.limits")
async def test_calls_at_once_are_bounded_for_each_caller() -> None:
    limits = CallLimits(2, 0)
    async with anyio.create_task_group() as group:
        callers = Callers(limits, group)
        await callers.call("anna")
        await callers.call("anna")
        with pytest.raises(TooMany) as refusal, limits.admit("anna"):
            pass
        assert "max_calls_at_once" in refusal.value.message
        await callers.call("bert")
        callers.end.set()
    with limits.admit("anna"):
        pass
    assert limits._uses == {}  # pyright: ignore[reportPrivateUsage]


@pytest.mark.requirement("policy.limits")
def test_calls_in_a_minute_are_bounded_and_the_error_says_how_long_to_wait() -> None:
    clock = Clock()
    limits = CallLimits(9, 6, clock)

    def call() -> None:
        with limits.admit("anna"):
            pass

    for _ in range(6):
        call()
    with pytest.raises(TooMany) as refusal:
        call()
    assert refusal.value.details == {"retry_after_s": 10}
    with limits.admit("bert"):
        pass
    clock.now += 9.9
    with pytest.raises(TooMany):
        call()
    clock.now += 0.2
    call()
    clock.now += 3600
    for _ in range(6):
        call()


@pytest.mark.requirement("policy.limits")
async def test_a_call_within_a_call_takes_its_place_and_only_one_does() -> None:
    limits = CallLimits(1, 2, Clock())
    with limits.admit("anna"):
        with limits.admit("anna"):  # as tool_call makes the call that it was asked for
            with limits.admit("anna"):
                pass
            async with anyio.create_task_group() as group:
                callers = Callers(limits, group)
                with pytest.raises(TooMany):  # the place is lent already
                    await callers.call("bert-and-anna")
                    await callers.call("bert-and-anna")
                callers.end.set()
        with limits.admit("anna"):  # the second in turn counts for the minute
            pass
        with pytest.raises(TooMany), limits.admit("anna"):
            pass


@pytest.mark.requirement("policy.limits")
@pytest.mark.parametrize("door", ["direct", "mcp", "rest"])
async def test_every_door_counts(mcp_home: Any, door: str) -> None:
    config = Config.model_validate({"security": {"max_calls_per_minute": 2}})
    async with open_app(mcp_home, config) as app, open_way(door, app) as way:
        for _ in range(2):
            await way.call(session.list_sessions, {})
        with pytest.raises(Fault) as refusal:
            await way.call(session.list_sessions, {})
        assert refusal.value.code == "too_many"
        assert refusal.value.status in {None, 429}
        assert refusal.value.payload["details"]["retry_after_s"] > 0
        await app.store.history.flush()
        assert [each.outcome for each in await app.store.history.list(9)] == ["too_many", "ok", "ok"]


async def test_without_bounds_nothing_is_refused(app: App) -> None:
    for _ in range(200):
        await dispatch(app, session.list_sessions, {}, DirectCall(caller()))
