"""The live sessions of this process: whose they are, which one a call means, and when they end."""

import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio

from mcp_ssh.errors import InvalidInput, NotFound, TooMany
from mcp_ssh.sessions.login_planner import Resolver
from mcp_ssh.sessions.session import Session
from mcp_ssh.ssh.wire.kill import StopResult
from mcp_ssh.tool import OWNER_ID, Caller, Role

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""How often idle sessions and revoked tokens are looked for."""

MOST_LOST = 20
"""Sessions of a caller whose connection was lost, and which are remembered so that calls on them are told so."""


class SessionRegistry:
    """All sessions, in the order they were opened."""

    def __init__(self, limit: int, idle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._sessions: dict[str, Session] = {}
        self._limit = limit
        self._idle_s = idle_s
        self._clock = clock
        self._opening: dict[str, int] = {}
        self._turns: dict[tuple[str, str], anyio.Lock] = {}

    def set_bounds(self, limit: int, idle_s: float) -> None:
        """Take another limit for each caller, and another time until idle sessions end."""
        self._limit, self._idle_s = limit, idle_s

    def seen_by(self, caller: Caller) -> list[Session]:
        """The sessions a caller may use: its own, or all for an admin, on machines its token is for."""
        return [each for each in self._sessions.values() if _may_see(caller, each)]

    async def open(self, caller: Caller, connect: Callable[[], Awaitable[Session]]) -> Session:
        """Connect and keep the session. At the limit, sessions that were opened by name and are not in use give way.

        Raises:
            TooMany: The caller has as many sessions as the config allows, and needs all of them.
        """
        self._opening[caller.id] = self._opening.get(caller.id, 0) + 1
        try:
            await self._make_room(caller)
            session = await connect()
        finally:
            self._opening[caller.id] -= 1
            if not self._opening[caller.id]:
                del self._opening[caller.id]
        self._sessions[session.id] = session
        lost = [each for each in self._sessions.values() if each.caller_id == caller.id and not each.connected]
        for each in lost[:-MOST_LOST]:
            await self.close(each)
        return session

    async def _make_room(self, caller: Caller) -> None:
        """Close the least recently used sessions of the caller that can be evicted, as far as the limit needs it."""
        while self._live_count(caller) + self._opening[caller.id] > self._limit:
            idle = [each for each in self._sessions.values() if each.caller_id == caller.id and each.evictable]
            if not idle:
                raise TooMany(
                    f"you have {self._limit} sessions open, as many as ssh.max_concurrent_connections allows",
                    hint="close one with session_disconnect; session_list names them",
                )
            await self.close(min(idle, key=lambda each: each.last_active))

    def _live_count(self, caller: Caller) -> int:
        return sum(1 for each in self._sessions.values() if each.caller_id == caller.id and each.connected)

    def room(self, caller: Caller) -> int:
        """How many sessions the caller may have in use beside those that it has opened and that do not give way."""
        kept = [each for each in self._sessions.values() if each.caller_id == caller.id and each.connected]
        return max(1, self._limit - sum(1 for each in kept if not each.evictable))

    def own(self, caller: Caller) -> list[Session]:
        """The caller's own sessions, on machines its token is for: those that a name can mean."""
        return [each for each in self.seen_by(caller) if each.caller_id == caller.id]

    def find(self, caller: Caller, name: str | None) -> Session:
        """The session a call means: by id, or one of the caller's own by name, or its first connected one.

        A name is `user@host[:port]`, a saved connection or an alias. Another caller's session is reached by id only.

        Raises:
            NotFound: None fits; `details` list those that would.
        """
        known = None if name is None else self._sessions.get(name)
        if known is not None and _may_see(caller, known):
            return known
        fitting = [each for each in self.own(caller) if name is None or name in _names(each)]
        chosen = next((each for each in fitting if each.connected), None)
        if chosen is None and name is not None and fitting:
            chosen = fitting[0]
        if chosen is None:
            raise _none(name, self.seen_by(caller))
        return chosen

    def find_each(self, caller: Caller, names: Iterable[str]) -> dict[str, Session]:
        """The open sessions that these names mean, without those that mean none; `find` for many names at once."""
        meant: dict[str | None, Session] = {}
        for each in sorted(self.own(caller), key=lambda one: not one.connected):
            for name in _names(each):
                meant.setdefault(name, each)
        known = {name: self._sessions.get(name) or meant.get(name) for name in names}
        return {name: each for name, each in known.items() if each is not None and _may_see(caller, each)}

    def expect_one_place(self, caller: Caller) -> None:
        """Let a call without a session id go on, or say why not: it would have to guess where to make a change.

        Raises:
            InvalidInput: The caller has sessions on several machines or accounts; names them.
        """
        open_ones = [each for each in self.own(caller) if each.connected]
        if len({each.name for each in open_ones}) > 1:
            shown = ", ".join(f"{each.id} ({each.name})" for each in open_ones[:20])
            raise InvalidInput(
                "session_id: is required, since several machines or accounts are open",
                hint=f"give one of your sessions: {shown}",
                details={"sessions": [each.id for each in open_ones[:20]]},
            )

    def forget_name(self, owner_id: str, *names: str) -> None:
        """Take names away from the open sessions of those whose names they are; the sessions keep their ids.

        Args:
            owner_id: Whose names they are, as `Caller.owner_id` has it.
            names: What no longer means the machine it meant.
        """
        for each in self._sessions.values():
            if each.alias in names and owner_id == (each.caller_id if each.expires else OWNER_ID):
                each.alias = None

    async def find_or_open(
        self,
        caller: Caller,
        name: str | None,
        resolvers: Sequence[Resolver],
        connect: Callable[[Mapping[str, Any]], Awaitable[Session]],
        version: Callable[[Caller, str], Awaitable[str | None]],
    ) -> Session:
        """The session a call means; where it names a machine that can be connected to by name, that is done first.

        Calls that use a name for the first time at once share one session.

        Args:
            caller: Whose call it is.
            name: As for `find`.
            resolvers: Asked in order what the name stands for.
            connect: Opens a session with what `session_connect` takes.
            version: What changes when a name comes to mean another saved connection, also by another process.

        Raises:
            NotFound: No session fits, and the name stands for nothing.
            ConnectFailed: And whatever else comes of connecting.
        """
        if name is None:
            return self.find(caller, name)
        if (found := await self._current(caller, name, version)) is not None:
            return found  # the caller reserves it before anything else can run
        async with self._turn(caller, name):
            if (found := await self._current(caller, name, version)) is not None:
                return found
            now = await version(caller, name)
            for resolve in resolvers:
                if (wanted := await resolve(caller, name)) is not None:
                    opened = await self._open_by_name(caller, name, partial(connect, wanted))
                    opened.name_version = now
                    return opened
        return self.find(caller, name)

    async def _current(
        self, caller: Caller, name: str, version: Callable[[Caller, str], Awaitable[str | None]]
    ) -> Session | None:
        """The session of this name; `None` where that is lost or was of another machine, so that the name opens one."""
        named = [each for each in self.own(caller) if each.alias == name]
        if named:
            now = await version(caller, name)
            for each in named:
                if each.name_version != now:
                    each.alias = None
        try:
            found = self.find(caller, name)
        except NotFound:
            return None
        return None if found.alias == name and not found.connected else found

    async def _open_by_name(self, caller: Caller, name: str, connect: Callable[[], Awaitable[Session]]) -> Session:
        session = await self.open(caller, connect)
        session.alias = name
        session.by_name = True
        with session.reserve():
            for dead in [each for each in self._sessions.values() if each.alias == name and not each.connected]:
                if dead.caller_id == caller.id:
                    await self.close(dead)
        return session

    @contextlib.asynccontextmanager
    async def _turn(self, caller: Caller, name: str) -> AsyncGenerator[None]:
        key = (caller.id, name)
        lock = self._turns.setdefault(key, anyio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.statistics().tasks_waiting and self._turns.get(key) is lock and not lock.locked():
                del self._turns[key]

    async def close(self, session: Session) -> StopResult | None:
        """Forget a session and end its connection, unless somebody is at that already.

        Returns:
            What became of the processes of its calls and shells; None where nothing ran.
        """
        if self._sessions.pop(session.id, None) is None:
            return None
        return await session.close()

    async def close_of(self, caller_id: str) -> None:
        """End all sessions of one caller, as when its token is revoked."""
        await self._close_together([each for each in self._sessions.values() if each.caller_id == caller_id])

    async def close_all(self) -> None:
        """End all sessions at once."""
        await self._close_together(list(self._sessions.values()))

    async def _close_together(self, sessions: Sequence[Session]) -> None:
        """End sessions side by side: together they take no longer than the slowest.

        They are taken out at once, so that no call that comes meanwhile finds one that is about to close.
        """
        taken = [each for each in sessions if self._sessions.pop(each.id, None) is not None]
        async with anyio.create_task_group() as group:
            for session in taken:
                group.start_soon(session.close)

    async def tend(self, admitted: Callable[[], Awaitable[set[str]]]) -> None:
        """Keep closing sessions that are idle for the configured time, and those whose caller's token is gone.

        Idle sessions of remote callers are closed, and those opened by name, whose name opens them again. What else
        the server's owner opened stays.

        Args:
            admitted: The ids of the callers that may still come.
        """
        while True:
            await anyio.sleep(min(LOOK_S, self._idle_s))
            ending = [each for each in self._sessions.values() if each.expires or each.by_name]
            await self._close_together([each for each in ending if self._is_idle(each)])
            remote = [each for each in self._sessions.values() if each.expires]
            if not remote:
                continue
            try:
                known = await admitted()
            except Exception as error:  # noqa: BLE001 this task lives as long as the server; the next look may succeed
                log.warning("who may still come could not be read: %s", type(error).__name__)
                continue
            await self._close_together([each for each in remote if each.caller_id not in known])

    def _is_idle(self, session: Session) -> bool:
        return not session.in_use and self._clock() - session.last_active > self._idle_s


def _may_see(caller: Caller, session: Session) -> bool:
    return (session.caller_id == caller.id or caller.role is Role.ADMIN) and caller.reaches(session.machine)


def _names(session: Session) -> set[str | None]:
    return {session.name, f"{session.name}:{session.port}", session.alias}


def _none(name: str | None, mine: list[Session]) -> NotFound:
    known = [f"{each.id} ({each.name}{'' if each.connected else ', not connected'})" for each in mine[:20]]
    which = "No active session" if name is None else f"No active session {name!r}"
    hint = f"your sessions: {', '.join(known)}" if known else "open one with session_connect"
    return NotFound(which, hint=hint, details={"sessions": [each.id for each in mine[:20]]})
