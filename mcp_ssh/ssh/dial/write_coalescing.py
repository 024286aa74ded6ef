"""The first stretch of a connection, on which all that is written in one turn of the loop leaves as one.

asyncssh writes a message of padding before every packet, and every one of the two by itself: half of all system calls
of an upload. Its public `tunnel` argument takes any object that makes connections; this one makes plain ones, and puts
a transport before them that joins writes.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Any, cast

READ_BYTES = 64 * 1024
"""The most that is handed on at once: with each packet it takes, asyncssh copies what it has not taken apart yet."""

PROMPT_BYTES = 64 * 1024
"""How much of what comes first is acknowledged at once. Until a session begins OpenSSH's sshd sends no small packet
before the last one is acknowledged (Nagle); the kernel here would wait 40 ms with that, in the middle of a login."""

FIRST_BYTES = 40_000
"""How much of what comes first is kept, so that a failed negotiation can be explained."""

_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux alone has it


class Connector:
    """Makes one connection, for asyncssh to speak on; what it is given goes to asyncio's `create_connection`.

    Args:
        socket: A socket that is connected already.
        addresses: Otherwise, where to connect to: the first address that answers. No name is looked up.
        local_address: The address of this machine to connect from.
    """

    def __init__(self, socket: Any = None, addresses: Sequence[str] = (), local_address: str | None = None) -> None:
        self._socket = socket
        self._addresses = addresses
        self.first = bytearray()
        """What the machine sent first, until the connection is logged in."""
        self._options: dict[str, Any] = {"local_addr": (local_address, 0)} if local_address else {}

    async def create_connection(
        self, factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Connect; the protocol sees nothing but a transport.

        Raises:
            OSError: It cannot be reached.
        """
        del host
        protocol = factory()
        if self._socket is not None:
            return await self._connect(protocol, sock=self._socket)
        refusal: OSError | None = None
        for address in self._addresses:
            try:
                return await self._connect(protocol, host=address, port=port, **self._options)
            except OSError as error:
                refusal = error
        raise refusal or OSError("there is no address to connect to")

    async def _connect(self, protocol: asyncio.Protocol, **where: Any) -> tuple[asyncio.Transport, asyncio.Protocol]:
        relay = _Relay(protocol, self.first)
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: relay, **where)
        return transport, protocol


class _Relay(asyncio.Protocol):
    """Hands on what asyncio tells of the connection."""

    def __init__(self, protocol: asyncio.Protocol, first: bytearray) -> None:
        self._protocol = protocol
        self._first = first
        self._prompt_bytes = PROMPT_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # What create_connection makes; uvloop's is one in all but name.
        self._joined = Joined(cast("asyncio.Transport", transport))
        self._protocol.connection_made(self._joined)

    def data_received(self, data: bytes) -> None:
        if self._prompt_bytes > 0:
            self._first += data[: FIRST_BYTES - len(self._first)]
        for start in range(0, len(data), READ_BYTES):
            self._protocol.data_received(data[start : start + READ_BYTES])
        if self._prompt_bytes > 0:
            self._prompt_bytes -= len(data)
            self._joined.acknowledge()

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._joined.drop()
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


class Joined(asyncio.Transport):
    """A transport whose writes of one turn of the loop leave as one; everything else is the other transport's."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._written: list[bytes | bytearray | memoryview] = []
        self._over = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, at the end of this turn; after the end of the connection there is nobody to send it to."""
        if self._over:
            return
        if not self._written:
            self._loop.call_soon(self._flush)
        self._written.append(bytes(data))

    def _flush(self) -> None:
        written, self._written = self._written, []
        if written:
            self._transport.write(b"".join(written))

    def acknowledge(self) -> None:
        """Tell the other side now what has arrived here, where this is TCP and the kernel lets us say so."""
        ours = self._transport.get_extra_info("socket")
        if _QUICKACK is not None and ours is not None:
            with contextlib.suppress(OSError):  # no TCP, or closed already
                ours.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def drop(self) -> None:
        """The connection is over. What is asked of it then asyncio's transport passes over, and uvloop's objects to."""
        self._over = True
        self._written.clear()

    def get_write_buffer_size(self) -> int:
        """Bytes that have not been sent."""
        return 0 if self._over else self._transport.get_write_buffer_size() + sum(map(len, self._written))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the other transport knows."""
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._over or self._transport.is_closing()

    def close(self) -> None:
        """Send the rest, then close."""
        if not self._over:
            self._flush()
            self._transport.close()

    def abort(self) -> None:
        """Close without waiting. What was written has its one chance to leave, as it would have had without us."""
        if not self._over:
            self._flush()
            self._transport.abort()
            self.drop()

    def pause_reading(self) -> None:
        """Take nothing more for now."""
        if not self._over:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on."""
        if not self._over:
            self._transport.resume_reading()
