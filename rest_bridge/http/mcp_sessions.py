"""The MCP sessions of each caller: a share for each, and at its bound the longest idle one goes.

Many clients never end a session. Clients of 2026-07-28 have none, and are not counted.
"""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rest_bridge.http.auth import caller_of

SHARE = 100
"""How many sessions one caller has at once, over all MCP paths."""

MOST = 1000
"""How many sessions there are in all."""

ENDING_S = 5.0
"""How long the end of one session may take."""

_ID = b"mcp-session-id"


@dataclass
class _Session:
    """One session: where it is ended and as whom, and how many requests run in it."""

    endpoint: ASGIApp
    scope: Scope
    requests: int = 0


class McpSessions:
    """The sessions of every caller, each caller's in the order of their last use."""

    def __init__(self, share: int = SHARE, most: int = MOST) -> None:
        self._share = share
        self._most = most
        self._callers: dict[str, dict[str, _Session]] = {}

    def count_sessions(self, endpoint: ASGIApp) -> ASGIApp:
        """An endpoint of the SDK whose sessions count."""

        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            caller, given = caller_of(scope).id, _value(scope["headers"])
            answered: list[Message] = []

            async def sending(message: Message) -> None:
                if message["type"] == "http.response.start":
                    answered.append(message)
                    if given is None and message["status"] < 400:
                        self._note_begin(caller, endpoint, scope, message)
                await send(message)

            # A stream that waits for news is open as long as its client is, so it is no use.
            works = scope["method"] != "GET"
            with self._using(caller, given, works=works):
                await endpoint(scope, receive, sending)
            if given is None:
                await self._make_room(caller)
            elif _has_ended(scope["method"], answered):
                self._forget(caller, given)

        return call

    def _note_begin(self, caller: str, endpoint: ASGIApp, scope: Scope, answer: Message) -> None:
        if made := _value(answer.get("headers", ())):
            # The headers have the token, which nobody needs any more.
            self._callers.setdefault(caller, {})[made] = _Session(endpoint, {**scope, "headers": []})

    @contextlib.contextmanager
    def _using(self, caller: str, session_id: str | None, *, works: bool) -> Generator[None]:
        session = self._note_use(caller, session_id)
        if session is None:
            yield
            return
        session.requests += works
        try:
            yield
        finally:
            session.requests -= works

    def _note_use(self, caller: str, session_id: str | None) -> _Session | None:
        own = self._callers.get(caller, {})
        if session_id is None or (session := own.pop(session_id, None)) is None:
            return None
        own[session_id] = session
        return session

    def _forget(self, caller: str, session_id: str) -> None:
        own = self._callers.get(caller, {})
        own.pop(session_id, None)
        if not own:
            self._callers.pop(caller, None)

    async def _make_room(self, caller: str) -> None:
        while len(self._callers.get(caller, ())) > self._share:
            await self._end_longest_idle(caller)
        while sum(map(len, self._callers.values())) > self._most:
            await self._end_longest_idle(max(self._callers, key=lambda each: len(self._callers[each])))

    async def _end_longest_idle(self, caller: str) -> None:
        """End one session of a caller as its client would: by DELETE. Its next request is 404, and it begins again."""
        own = self._callers[caller]
        session_id = min(own, key=lambda each: own[each].requests > 0)
        session = own[session_id]
        self._forget(caller, session_id)
        headers = [(_ID, session_id.encode())]
        scope = {**session.scope, "method": "DELETE", "headers": headers, "query_string": b""}

        async def nothing_more() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def unheard(message: Message) -> None:
            del message

        with anyio.CancelScope(shield=True), anyio.move_on_after(ENDING_S):
            await session.endpoint(scope, nothing_more, unheard)


def _value(headers: "list[tuple[bytes, bytes]] | tuple[()]") -> str | None:
    return next((value.decode("latin-1") for name, value in headers if name.lower() == _ID), None)


def _has_ended(method: str, answered: list[Message]) -> bool:
    """Whether the SDK ended a session, or does not know it any more."""
    return bool(answered) and (answered[0]["status"] == 404 or (method == "DELETE" and answered[0]["status"] < 300))
