"""The HTTP server process: listens, says where, and ends what runs before it goes."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import signal
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import uvicorn
from starlette.applications import Starlette

from mcp_ssh.app import App
from mcp_ssh.errors import Conflict, InvalidInput
from mcp_ssh.host_patterns import binds_loopback
from mcp_ssh.tool import Registry
from mcp_ssh.toolsets import ToolsetSelection
from rest_bridge.api.route import Family
from rest_bridge.app import build
from rest_bridge.http.connections import Connections, connections
from rest_bridge.http.middleware import OpenRequests
from rest_bridge.http.protocol import KEEP_ALIVE_S, BoundedProtocol, Handshake

log = logging.getLogger(__name__)

GRACE_S = 3
"""How long answers may take to leave once every call has ended."""

LAST_WORDS_S = 0.3
"""How long after the calls' end streams stay open, for the answers that are on their way in them."""

ACCEPTED_AT_ONCE = 32
"""How many connections the loop takes in one turn: none of them is counted before the turn after the next."""

BACKLOG = 2048
"""How many connections the kernel keeps until they are taken."""

MAX_HEAD_BYTES = 64 * 1024
"""Largest request line with headers, and so the longest command in a query."""


@dataclass(frozen=True)
class Tls:
    """A certificate chain and its private key, files in PEM."""

    certificate: Path
    key: Path | None = None


class _Server(uvicorn.Server):
    """uvicorn that says when it listens, and leaves signals to us."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(BACKLOG)  # asyncio would take as many in one turn, and run out of descriptors
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Nothing: `serve` has the signals, since the calls have to end before the server does."""
        yield


async def serve(
    app: App,
    registry: Registry,
    families: Sequence[Family],
    *,
    host: str,
    port: int,
    surface: ToolsetSelection | None = None,
    tls: Tls | None = None,
    on_bound: Callable[[], Awaitable[None]] | None = None,
    on_ready: Callable[[str], None] | None = None,
    signals: bool = True,
) -> None:
    """Serve until a signal comes or the caller is cancelled; then end running calls, then connections.

    Args:
        app: What the calls run on.
        registry: The tools of the MCP endpoints.
        families: The REST tables.
        host: Address or name to listen on.
        port: Port to listen on; 0 takes a free one.
        surface: What `/mcp` lists; the core tools by default.
        tls: Serve HTTPS with this certificate; without, an address beyond this machine needs a proxy in front.
        on_bound: Awaited once the address is ours, before the first request.
        on_ready: Told the address, for clients on this machine, once the server listens.
        signals: Whether SIGTERM and SIGINT are ours; never outside the main thread.

    Raises:
        InvalidInput: The address would be open beyond this machine or is none of this machine's, or the certificate
            cannot be used.
        Conflict: The port is taken.
    """
    open_requests = OpenRequests()
    http = build(app, registry, families, surface=surface, bound=host, open_requests=open_requests)
    every = connections(behind_proxy=app.config.server.behind_proxy)
    settings = _settings(http, tls, every)
    sockets = await listen(host, port, open_to_all=app.config.server.behind_proxy or tls is not None)
    scheme = "http" if tls is None else "https"
    address = url_of(host, sockets, scheme)
    if on_bound is not None:
        await on_bound()
    if app.config.server.auth_mode == "none":
        log.warning("server.auth_mode is none: every program on this machine is admin at %s", address)

    def ready() -> None:
        log.info("listening on %s", address)
        if on_ready is not None:
            on_ready(url_of(_reached_by(host, sockets), sockets, scheme))

    server = _Server(settings, ready)
    async with anyio.create_task_group() as group:

        async def run() -> None:
            # Shielded: a cancelled server still has to end calls and answers in order, in bounded time.
            with anyio.CancelScope(shield=True):
                await server.serve(sockets)
            group.cancel_scope.cancel()

        group.start_soon(run)
        try:
            async with _stop_signals(wanted=signals) as stopping:
                await stopping.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await _stop(server, app, open_requests)
                every.give_up_handshakes()


async def _stop(server: uvicorn.Server, app: App, open_requests: OpenRequests) -> None:
    """End calls first, so that their callers are told; then what streams; the server waits for the rest."""
    await app.calls.close()
    server.should_exit = True
    await anyio.sleep(LAST_WORDS_S)
    open_requests.end()


def _settings(http: Starlette, tls: Tls | None, every: Connections) -> uvicorn.Config:
    settings = uvicorn.Config(
        http,
        http=cast("type[asyncio.Protocol]", partial(BoundedProtocol, every)),
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        backlog=ACCEPTED_AT_ONCE,
        ws="none",
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        # Request lines hold commands, which no log may have.
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
        # Any text will do: without one OpenSSL would ask for an encrypted key's passphrase on the terminal.
        ssl_keyfile_password="-" if tls else None,
    )
    try:
        settings.load()
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(
            f"the certificate or its key cannot be used: {error.strerror or error}", hint="both are files in PEM"
        ) from error
    if settings.ssl is not None:
        settings.http_protocol_class = cast("type[asyncio.Protocol]", partial(_handshake, every, settings.ssl))
        settings.ssl = None  # the handshake is ours, since it counts, too
    return settings


def _handshake(every: Connections, context: ssl.SSLContext, **options: Any) -> Handshake:
    return Handshake(every, context, partial(BoundedProtocol, every, **options))


@contextlib.asynccontextmanager
async def _stop_signals(*, wanted: bool) -> AsyncGenerator[anyio.Event]:
    """An event set by SIGTERM or SIGINT."""
    stopping = anyio.Event()
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    async def wait() -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            async for each in received:
                log.info("stopping: %s", signal.Signals(each).name)
                stopping.set()

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        yield stopping
        group.cancel_scope.cancel()


async def listen(host: str, port: int, *, open_to_all: bool) -> list[socket.socket]:
    """Sockets bound to every address of a host name, all on one port.

    Args:
        host: Address or name.
        port: Port; 0 takes a free one.
        open_to_all: Whether addresses beyond this machine are allowed, since what passes there is encrypted.

    Raises:
        InvalidInput: The name has no address here, or one that reaches beyond this machine.
        Conflict: The port is taken.
    """
    found = await _addresses(host)
    if not open_to_all and (open_to := [each for _, each in found if not binds_loopback(each)]):
        raise InvalidInput(
            f"{open_to[0]} can be reached from other machines, and what passes there would be readable",
            hint="listen on 127.0.0.1, or give --tls-cert and --tls-key, or a TLS proxy in front and --behind-proxy",
        )
    sockets: list[socket.socket] = []
    try:
        for family, address in found:
            taken = sockets[0].getsockname()[1] if sockets else port
            sockets.append(_bind(family, address, taken))
    except OSError as error:
        for each in sockets:
            each.close()
        raise _refused_bind(error, host, port) from error
    return sockets


async def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    try:
        found = await anyio.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InvalidInput(f"there is no address for {host!r}", hint="give 127.0.0.1, or set server.host") from error
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _bind(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    # asyncio sets TCP_NODELAY only where the protocol is said; without, an answer waits 40 ms for its second half.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    made.setblocking(False)  # noqa: FBT003 the standard library has no other way
    return made


def _refused_bind(error: OSError, host: str, port: int) -> InvalidInput | Conflict:
    if error.errno == errno.EADDRINUSE:
        return Conflict(
            f"port {port} of {host} is taken, perhaps by another ssh-steward",
            hint="give another --port; 0 takes a free one",
        )
    if error.errno == errno.EACCES:
        return InvalidInput(f"port {port} is for root alone", hint="give a --port from 1024 on")
    return InvalidInput(f"{host} is not an address of this machine", hint="listen on 127.0.0.1")


def _reached_by(host: str, sockets: Sequence[socket.socket]) -> str:
    """The host by which clients on this machine reach the server: one that means every address is none of its names."""
    address = str(sockets[0].getsockname()[0])
    if not ipaddress.ip_address(address.partition("%")[0]).is_unspecified:
        return host
    return "::1" if ":" in address else "127.0.0.1"


def url_of(host: str, sockets: Sequence[socket.socket], scheme: str) -> str:
    """The address of a server that listens there."""
    port = sockets[0].getsockname()[1]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
