"""uvicorn's HTTP protocol with deadlines for all that a peer sends and takes, and with a share of the connections."""

import asyncio
import contextlib
import fcntl
import ssl
import sys
import termios
from collections.abc import Callable
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from mcp_ssh.mcp_server import CALLER_KEY
from rest_bridge.http import middleware
from rest_bridge.http.connections import Connections, peer_of

KEEP_ALIVE_S = 65
"""Longer than the 60 s for which proxies and clients keep connections, so that they close them, not we."""

FIRST_BYTE_S = 10.0
"""How long a new connection may be silent, and how long a TLS handshake may take."""

HEAD_S = 30.0
"""How long the head of a request may take from its first byte."""

BODY_GRACE_S = 5.0
"""How much later than the middleware the protocol ends a body: the middleware has an answer to give."""

TAKING_S = 60.0
"""How long a peer may take less than `LEAST_TAKEN` of an answer that waits for it."""

LEAST_TAKEN = 16 * 1024
"""Bytes that a peer has to take within `TAKING_S`: a slow line does, a peer that only drips does not."""

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 80\r\nRetry-After: 5\r\n"
    b'Connection: close\r\n\r\n{"detail":"this server has too many open connections","code":"too_many"}        '
)
_SLOW_HEAD = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class _Taking:
    """Ends a connection whose peer takes too little of what waits for it.

    Args:
        transport: The connection.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._left = self._what_is_left()
        self._timer = asyncio.get_running_loop().call_later(TAKING_S, self._look)

    def _look(self) -> None:
        left = self._what_is_left()
        if not self._transport.get_write_buffer_size():
            return
        if self._left - left < LEAST_TAKEN:
            self._transport.abort()
            return
        self._left = left
        self._timer = asyncio.get_running_loop().call_later(TAKING_S, self._look)

    def _what_is_left(self) -> int:
        """Bytes that the peer has not acknowledged, those that the kernel holds included: it takes more in bursts."""
        in_kernel = b"\0\0\0\0"
        with contextlib.suppress(OSError, ValueError):
            in_kernel = fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, in_kernel)
        return self._transport.get_write_buffer_size() + int.from_bytes(in_kernel, sys.byteorder)

    def cancel(self) -> None:
        """Watch no longer."""
        self._timer.cancel()


class _Answering:
    """A transport on which the head of an answer leaves with its body: two packets wake a client twice."""

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's and TLS's are one in all but name
        self._loop = asyncio.get_running_loop()
        self._waiting = b""
        self.rest: _Taking | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send it with what waits; where nothing does, it waits for what follows in this turn of the loop."""
        if self._waiting:
            self._flush(data)
        elif data:
            self._waiting = data
            self._loop.call_soon(self._flush)

    def _flush(self, more: bytes = b"") -> None:
        waiting, self._waiting = self._waiting, b""
        if waiting and not self._transport.is_closing():
            self._transport.write(waiting + more)

    def close(self) -> None:
        """Send what waits, then close; a peer that does not take it is not waited for without end."""
        self._flush()
        if not self._transport.is_closing() and self._transport.get_write_buffer_size():
            self.rest = _Taking(self._transport)
        self._transport.close()


class BoundedProtocol(H11Protocol):
    """uvicorn's parser on h11, which bounds the head of a request and is the same everywhere."""

    def __init__(self, all_of_server: Connections, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._all = all_of_server
        self._was_admitted = False
        self._awaited: tuple[str, object] = ("", None)
        self._deadline: asyncio.TimerHandle | None = None
        self._taking: _Taking | None = None
        self.peer = ""

    @property
    def answering(self) -> bool:
        """Whether a request on this connection is being answered."""
        cycle = self._latest
        return cycle is not None and not cycle.response_complete

    @property
    def _latest(self) -> RequestResponseCycle | None:
        """The request that came last; uvicorn does not say in its types that there may be none."""
        return self.cycle

    @property
    def trusted(self) -> bool:
        """Whether a request on this connection was admitted."""
        cycle = self._latest
        return self._was_admitted or (cycle is not None and CALLER_KEY in cycle.scope)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take part in the server, if there is room."""
        super().connection_made(cast("asyncio.Transport", _Answering(transport)))
        self.peer = peer_of(transport.get_extra_info("peername"))
        if self._all.admit(self):
            self._watch()
        else:
            self.transport.write(_FULL)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave nothing behind."""
        self._all.forget(self)
        rest = cast("_Answering", self.transport).rest
        for each in (self._deadline, self._taking, rest, self.timeout_keep_alive_task):
            if each is not None:
                each.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in a piece of a request."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        self._was_admitted = self.trusted
        self._all.note_use(self)
        super().on_response_complete()
        self._watch()

    def give_up(self) -> None:
        """Close an idle connection for another one."""
        (self.transport.abort if self.answering else self.transport.close)()

    def _watch(self) -> None:
        """Set the deadline of what the peer owes now: it runs from when that began, however often it sends a byte."""
        awaited = self._what_is_awaited()
        if awaited == self._awaited:
            return
        self._awaited = awaited
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        limits = {
            "first byte": FIRST_BYTE_S,
            "head": HEAD_S,
            "body": middleware.BODY_LIMIT_S + BODY_GRACE_S,
            "next": KEEP_ALIVE_S,
        }
        if awaited[0]:
            self._deadline = self.loop.call_later(limits[awaited[0]], self._too_late)

    def _what_is_awaited(self) -> tuple[str, object]:
        """What the peer owes, and after which request; nothing while it waits for us."""
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            return "body", self.cycle
        if state is not h11.IDLE or self.transport.is_closing():
            return "", None
        last = self._latest
        if self._awaited == ("head", last) or self.conn.trailing_data[0]:
            return "head", last
        if self.timeout_keep_alive_task is not None:
            return "", None  # uvicorn has a timer for it, but for what ends behind its answer
        return "first byte" if last is None else "next", last

    def _too_late(self) -> None:
        if self.transport.is_closing():
            return
        if self._awaited[0] == "head":
            self.transport.write(_SLOW_HEAD)
        if self._awaited[0] == "body":
            self.transport.abort()
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        """Wait for the peer to take what was sent, within bounds."""
        super().pause_writing()
        if self._taking is None:
            self._taking = _Taking(self.transport)

    def resume_writing(self) -> None:
        """Send more."""
        super().resume_writing()
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None


class Handshake(asyncio.Protocol):
    """A connection up to the end of its TLS handshake, counted from its first packet on."""

    trusted = False
    answering = False

    def __init__(
        self, all_of_server: Connections, context: ssl.SSLContext, made: Callable[[], asyncio.Protocol]
    ) -> None:
        self._all = all_of_server
        self._context = context
        self._made = made
        self._transport: asyncio.Transport | None = None
        self._encrypted = False
        self._early = b""
        self._task: asyncio.Task[None] | None = None
        self.peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake, if there is room."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.pause_reading()
        self.peer = peer_of(transport.get_extra_info("peername"))
        if self._all.admit(self):
            self._task = asyncio.get_running_loop().create_task(self._shake(self._transport))
        else:
            self._transport.abort()

    async def _shake(self, transport: asyncio.Transport) -> None:
        try:
            # A peer that hangs up, speaks no TLS or stays silent gets no answer.
            with contextlib.suppress(OSError, TimeoutError):
                self._encrypted = True  # from here on all that comes to this protocol has gone through TLS
                tls = await asyncio.get_running_loop().start_tls(
                    transport, self, self._context, server_side=True, ssl_handshake_timeout=FIRST_BYTE_S
                )
                self._all.forget(self)
                if tls is not None and not tls.is_closing():
                    self._hand_over(tls)
                    return
            transport.abort()
        finally:
            self._all.forget(self)

    def _hand_over(self, tls: asyncio.Transport) -> None:
        protocol = self._made()
        tls.set_protocol(protocol)
        protocol.connection_made(tls)
        if self._early:
            protocol.data_received(self._early)

    def data_received(self, data: bytes) -> None:
        """Keep what comes right behind the handshake for the protocol that follows."""
        if self._encrypted:
            self._early += data
        elif self._transport is not None:
            self._transport.abort()

    def give_up(self) -> None:
        """Close it for another connection."""
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._transport.abort()
