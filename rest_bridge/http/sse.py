"""Server-sent events (WHATWG HTML, 9.2): a stream's events on one answer that stays open."""

import json
from collections.abc import Mapping
from typing import Any

import anyio
from starlette.types import Send

from mcp_ssh.params import Event, Result

MEDIA_TYPE = "text/event-stream"

QUIET_S = 15.0
"""How long nothing is sent before a comment says that the stream is there, for proxies that give up what is silent."""

LAST_EVENT_S = 3.0
"""How long the last event may take to leave: a reader that takes nothing any more gets none."""


class EventStream:
    """One answer of events. Nothing is sent before it begins, so that a failure before is an answer of its own.

    Args:
        send: Where the answer goes; waits while the client takes no more, so that nothing piles up here.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._turn = anyio.Lock()
        self._sent_at = 0.0
        self.begun = False

    async def begin(self) -> None:
        """Send the head of the answer."""
        if not self.begun:
            self.begun = True
            # Some proxies collect an answer before they pass it on, unless it says otherwise.
            headers = [(b"content-type", MEDIA_TYPE.encode()), (b"x-accel-buffering", b"no")]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._write(": begun\n\n")

    async def send(self, event: Event, event_id: str) -> None:
        """Send an event; waits while the client takes no more."""
        await self.begin()
        await self._write(_event_bytes(event.event, event.model_dump_json(exclude_unset=True), event_id))

    async def keep_alive(self) -> None:
        """Send a comment whenever nothing was sent for a while; never ends."""
        while True:
            wait_s = self._sent_at + QUIET_S - anyio.current_time() if self.begun else QUIET_S
            if wait_s > 0:
                await anyio.sleep(wait_s)
            else:
                await self._write(": alive\n\n")

    async def end(self, result: Result) -> None:
        """Tell how the stream ended, and end the answer."""
        await self.begin()
        await self._last(_event_bytes("end", result.model_dump_json(exclude_unset=True)))

    async def fail(self, body: Mapping[str, Any]) -> None:
        """Tell what went wrong, as an answer's body would, and end the answer."""
        await self._last(_event_bytes("error", json.dumps(body, separators=(",", ":"))))

    async def _last(self, text: str) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(LAST_EVENT_S):
            await self._write(text)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, text: str) -> None:
        async with self._turn:
            await self._send({"type": "http.response.body", "body": text.encode(), "more_body": True})
            self._sent_at = anyio.current_time()


def _event_bytes(name: str, data: str, event_id: str | None = None) -> str:
    """An event: JSON is one line, so its data is one field."""
    identified = "" if event_id is None else f"id: {event_id}\n"
    return f"event: {name}\n{identified}data: {data}\n\n"
