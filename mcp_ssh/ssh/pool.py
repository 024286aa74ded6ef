"""The live sessions of this process: whose they are, which one a call means, and when they end."""

import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio

from mcp_ssh.errors import NotFound, TooMany
from mcp_ssh.ssh.kill import Stopped
from mcp_ssh.ssh.login import Resolver
from mcp_ssh.ssh.session import Session
from mcp_ssh.tool import Caller, Role

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""How often idle sessions and revoked tokens are looked for."""

MOST_LOST = 20
"""Sessions of a caller whose connection was lost, and which are remembered so that calls on them are told so."""


class Sessions:
    """All sessions, in the order they were opened."""

    def __init__(self, limit: int, idle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._sessions: dict[str, Session] = {}
        self._limit = limit
        self._idle_s = idle_s
        self._clock = clock
        self._opening: dict[str, int] = {}
        self._turns: dict[tuple[str, str], anyio.Lock] = {}

    def seen_by(self, caller: Caller) -> list[Session]:
        """The sessions a caller may use: its own, or all for an admin, on machines its token is for."""
        return [each for each in self._sessions.values() if _may_see(caller, each)]

    async def open(self, caller: Caller, connect: Callable[[], Awaitable[Session]]) -> Session:
        """Connect and keep the session.

        Raises:
            TooMany: The caller has as many sessions as the config allows.
        """
        live = sum(1 for each in self._sessions.values() if each.caller_id == caller.id and each.connected)
        if live + self._opening.get(caller.id, 0) >= self._limit:
            raise TooMany(
                f"you have {self._limit} sessions open, as many as ssh.max_concurrent_connections allows",
                hint="close one with session_disconnect; session_list names them",
            )
        self._opening[caller.id] = self._opening.get(caller.id, 0) + 1
        try:
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

    def find(self, caller: Caller, name: str | None) -> Session:
        """The session a call means: by id, by `user@host[:port]`, by an alias, or the caller's first connected one.

        Raises:
            NotFound: None fits; `details` list those that would.
        """
        mine = self.seen_by(caller)
        if name is None:
            own = [each for each in mine if each.caller_id == caller.id]
            chosen = next((each for each in own if each.connected), None)
        else:
            fitting = [each for each in mine if name in {each.id, each.name, f"{each.name}:{each.port}"}]
            fitting += [each for each in mine if name == each.alias and each.caller_id == caller.id]
            chosen = next((each for each in fitting if each.connected), fitting[0] if fitting else None)
        if chosen is None:
            raise _none(name, mine)
        return chosen

    async def find_or_open(
        self,
        caller: Caller,
        name: str | None,
        resolvers: Sequence[Resolver],
        connect: Callable[[Mapping[str, Any]], Awaitable[Session]],
    ) -> Session:
        """The session a call means; where it names a machine that can be connected to by name, that is done first.

        Calls that use a name for the first time at once share one session.

        Args:
            caller: Whose call it is.
            name: As for `find`.
            resolvers: Asked in order what the name stands for.
            connect: Opens a session with what `session_connect` takes.

        Raises:
            NotFound: No session fits, and the name stands for nothing.
            ConnectFailed: And whatever else comes of connecting.
        """
        if (found := self._live(caller, name)) is not None or name is None:
            return found or self.find(caller, name)
        async with self._turn(caller, name):
            if (found := self._live(caller, name)) is not None:
                return found
            for resolve in resolvers:
                if (wanted := await resolve(caller, name)) is not None:
                    return await self._opened(caller, name, partial(connect, wanted))
        return self.find(caller, name)

    def _live(self, caller: Caller, name: str | None) -> Session | None:
        """The session of this name, unless it is dead and the name could give a new one."""
        try:
            found = self.find(caller, name)
        except NotFound:
            return None
        return None if found.alias == name and not found.connected else found

    async def _opened(self, caller: Caller, name: str, connect: Callable[[], Awaitable[Session]]) -> Session:
        session = await self.open(caller, connect)
        session.alias = name
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

    async def close(self, session: Session) -> Stopped | None:
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
        """End sessions side by side: together they take no longer than the slowest."""
        async with anyio.create_task_group() as group:
            for session in sessions:
                group.start_soon(self.close, session)

    async def tend(self, admitted: Callable[[], Awaitable[set[str]]]) -> None:
        """Go on ending the sessions of remote callers that nobody used for the configured time, or whose token is gone.

        Args:
            admitted: The ids of the callers that may still come.
        """
        while True:
            await anyio.sleep(min(LOOK_S, self._idle_s))
            remote = [each for each in self._sessions.values() if each.expires]
            if not remote:
                continue
            try:
                known = await admitted()
            except Exception as error:  # noqa: BLE001 this task lives as long as the server; the next look may succeed
                log.warning("who may still come could not be read: %s", type(error).__name__)
                continue
            await self._close_together([each for each in remote if self._is_idle(each) or each.caller_id not in known])

    def _is_idle(self, session: Session) -> bool:
        return not len(session.calls) and self._clock() - session.last_used > self._idle_s


def _may_see(caller: Caller, session: Session) -> bool:
    return (session.caller_id == caller.id or caller.role is Role.ADMIN) and caller.reaches(session.host)


def _none(name: str | None, mine: list[Session]) -> NotFound:
    known = [f"{each.id} ({each.name}{'' if each.connected else ', not connected'})" for each in mine[:20]]
    which = "No active session" if name is None else f"No active session {name!r}"
    hint = f"your sessions: {', '.join(known)}" if known else "open one with session_connect"
    return NotFound(which, hint=hint, details={"sessions": [each.id for each in mine[:20]]})
