"""The tunnels of a session: forwards of TCP ports through its connection (RFC 4254, 7), which end with the session."""

import asyncio
import contextlib
import errno
import secrets
import socket
import time
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import anyio

from mcp_ssh.errors import Conflict, InvalidInput, NotFound, PermissionDenied, TimedOut, ToolError, TooMany
from mcp_ssh.ssh.connection.connection import Connection
from mcp_ssh.ssh.errors import connection_lost
from mcp_ssh.tunnels.state import Close, LinkLost, Listening, TunnelLife, after

if TYPE_CHECKING:
    import asyncssh

OPEN_LIMIT_S = 15.0
"""How long a listener may take to come up."""
CLOSE_LIMIT_S = 2.0
"""How long a machine may take to say that it no longer listens."""
MOST = 64
"""Tunnels that one session may have."""

Direction = Literal["local", "remote"]


@dataclass
class Tunnel:
    """One forward.

    A `local` one listens on this server's machine and leads to `target_host` as the remote machine sees it; a `remote`
    one listens on the remote machine and leads to `target_host` as this server sees it.
    """

    type: Direction
    bind_address: str
    port: int
    target_host: str
    target_port: int
    life: TunnelLife = field(default_factory=TunnelLife)
    id: str = ""
    listener: "asyncssh.SSHListener | None" = field(default=None, repr=False)
    last_traffic: float = 0.0
    _flows: "weakref.WeakSet[Any]" = field(default_factory=weakref.WeakSet[Any], repr=False)

    def __post_init__(self) -> None:
        self.id = self.id or f"{self.type}_{secrets.token_hex(4)}"

    def carry(self, flow: Any) -> None:
        """A connection goes through it now, for as long as the tunnel is there."""
        self._flows.add(flow)
        flow.data_received = self._noting(flow.data_received)
        flow.write = self._noting(flow.write)
        self.last_traffic = time.monotonic()
        if self.life.state == "closed":
            asyncio.get_running_loop().call_soon(flow.close)

    def _noting(self, pass_on: Callable[..., None]) -> Callable[..., None]:
        """One direction of a connection: data that goes by is traffic of the tunnel."""

        def noted(*data: Any) -> None:
            self.last_traffic = time.monotonic()
            pass_on(*data)

        return noted

    def drop(self) -> None:
        """End the connections through it."""
        for flow in list(self._flows):
            flow.close()


class Tunnels:
    """The tunnels of one session."""

    def __init__(self, link: Connection) -> None:
        self._link = link
        self._tunnels: dict[str, Tunnel] = {}
        self._opening: set[asyncio.Future[Any]] = set()
        self._closed = False

    async def open(self, tunnel: Tunnel) -> Tunnel:
        """Start listening; a port of 0 takes a free one, and the tunnel says which.

        Raises:
            Conflict: The port is taken, or the machine refuses to listen.
            PermissionDenied: The port is for root.
            InvalidInput: There is no such address to listen on.
            TooMany: The session has as many tunnels as it may.
            ConnectFailed: The connection is gone.
        """
        if not self._link.alive:
            raise connection_lost()
        if len(self._live()) >= MOST:
            raise TooMany(f"this session has {MOST} tunnels", hint="close one; tunnel_list names them")
        try:
            with anyio.fail_after(OPEN_LIMIT_S):
                tunnel.listener = await self._open_listener(_listen(self._link, tunnel))
        except TimeoutError as error:
            raise TimedOut(
                f"no listener within {OPEN_LIMIT_S:g} s", hint="look at the link with session_status"
            ) from error
        tunnel.port = tunnel.listener.get_port()
        tunnel.life = after(tunnel.life, Listening())
        if self._closed:
            await self._shut(tunnel)
            raise connection_lost()
        self._tunnels[tunnel.id] = tunnel
        return tunnel

    async def _open_listener(self, listen: "Coroutine[Any, Any, asyncssh.SSHListener]") -> "asyncssh.SSHListener":
        """A listener; one whose opening is cancelled is closed as soon as it comes up."""
        opening = asyncio.ensure_future(listen)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._opening.add(opening)
            opening.add_done_callback(self._close_late)
            raise

    def _close_late(self, opening: "asyncio.Future[asyncssh.SSHListener]") -> None:
        self._opening.discard(opening)
        if not opening.cancelled() and opening.exception() is None:
            opening.result().close()

    def all(self) -> list[Tunnel]:
        """Those that were not closed, in the order they were opened; one whose connection is gone has failed."""
        if not self._link.alive:
            for tunnel in self._tunnels.values():
                tunnel.life = after(tunnel.life, LinkLost())
        return list(self._tunnels.values())

    @property
    def last_traffic(self) -> float:
        """When something went through one of them last, on the monotonic clock; 0 for never."""
        return max((each.last_traffic for each in self._tunnels.values()), default=0.0)

    def __len__(self) -> int:
        return len(self._tunnels)

    def _live(self) -> list[Tunnel]:
        return [each for each in self.all() if each.life.state == "active"]

    async def close(self, tunnel_id: str) -> Tunnel:
        """Stop listening. Connections through it end with it.

        Raises:
            NotFound: There is no such tunnel; the hint names those there are.
        """
        tunnel = self._tunnels.pop(tunnel_id, None)
        if tunnel is None:
            known = ", ".join(self._tunnels) or "none are open"
            raise NotFound("Tunnel not found", hint=f"tunnels of this session: {known}")
        await self._shut(tunnel)
        return tunnel

    async def close_all(self) -> int:
        """Close them all, side by side; how many there were."""
        tunnels = list(self._tunnels.values())
        self._tunnels.clear()
        async with anyio.create_task_group() as group:
            for tunnel in tunnels:
                group.start_soon(self._shut, tunnel)
        return len(tunnels)

    async def end(self) -> None:
        """Close them all, and open none any more."""
        self._closed = True
        await self.close_all()

    async def _shut(self, tunnel: Tunnel) -> None:
        tunnel.life = after(tunnel.life, Close())
        if tunnel.listener is not None:
            tunnel.listener.close()
            tunnel.drop()
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_LIMIT_S), contextlib.suppress(Exception):
                await tunnel.listener.wait_closed()


class _TrackingConnection:
    """A connection that tells its tunnel what goes through: asyncssh's listeners leave that open when they end."""

    def __init__(self, connection: "asyncssh.SSHClientConnection", tunnel: Tunnel) -> None:
        self._connection: Any = connection
        self._tunnel = tunnel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def create_connection(self, make: Callable[[], Any], *ends: Any) -> Any:
        def made() -> Any:
            flow = make()
            self._tunnel.carry(flow)
            return flow

        return await self._connection.create_connection(made, *ends)


def _leading_here(link: Connection, tunnel: Tunnel) -> Callable[[str, int], Any]:
    """What takes a connection to the remote machine's port."""

    async def accepted(_host: str, _port: int) -> Any:
        flow = await link.connection.forward_connection(tunnel.target_host, tunnel.target_port)
        tunnel.carry(flow)
        return flow

    return accepted


async def _listen(link: Connection, tunnel: Tunnel) -> "asyncssh.SSHListener":
    import asyncssh

    ends = (tunnel.bind_address, tunnel.port, tunnel.target_host, tunnel.target_port)
    try:
        if tunnel.type == "local":
            noting: Any = _TrackingConnection(link.connection, tunnel)
            return await asyncssh.SSHClientConnection.forward_local_port(noting, *ends)
        return await link.connection.create_server(_leading_here(link, tunnel), tunnel.bind_address, tunnel.port)
    except asyncssh.ChannelListenError as error:
        raise Conflict(
            f"the machine refused to listen on {where(tunnel)}",
            hint="the port may be taken there, or sshd forbids it (AllowTcpForwarding, PermitListen); try port 0",
        ) from error
    except (OSError, UnicodeError) as error:
        raise _trouble(error, tunnel) from error
    except asyncssh.Error as error:
        raise connection_lost() from error


def _trouble(error: OSError | UnicodeError, tunnel: Tunnel) -> ToolError:
    """Why this machine does not listen."""
    at = where(tunnel)
    if isinstance(error, UnicodeError | socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return InvalidInput(
            f"bind_address: this server's machine has no address {tunnel.bind_address!r}",
            hint="use 127.0.0.1, ::1 or an address of the machine",
        )
    if error.errno == errno.EADDRINUSE:
        return Conflict(f"{at} is taken on this server's machine", hint="choose another port, or 0 for a free one")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return PermissionDenied(f"this server may not listen on {at}", hint="choose a port from 1024 on, or 0")
    return Conflict(
        f"this server cannot listen on {at}: {error.strerror or 'no reason given'}", hint="try another port"
    )


def where(tunnel: Tunnel) -> str:
    """Where a tunnel listens, for messages."""
    address = f"[{tunnel.bind_address}]" if ":" in tunnel.bind_address else tunnel.bind_address
    return f"{address}:{tunnel.port}"
