"""Tunnels: TCP ports forwarded through a session's connection."""

from typing import Annotated, Literal

from pydantic import Field

from mcp_ssh.audit import always
from mcp_ssh.errors import Refused
from mcp_ssh.host_patterns import binds_loopback
from mcp_ssh.params import Host, OnSession, Result, ShellText, TargetHost
from mcp_ssh.sessions.session import Session
from mcp_ssh.tool import Call, Caller, Risk, Role, tool
from mcp_ssh.tunnels.forward import Tunnel
from mcp_ssh.tunnels.state import TunnelState

Listen = Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")]
TargetPort = Annotated[int, Field(ge=1, le=65535, description="Port to lead to.")]
Bind = Annotated[ShellText, Field(min_length=1, max_length=255)]


class TunnelLocalParams(OnSession):
    local_port: Listen
    remote_host: TargetHost = Field(
        description="Where it leads, as the remote machine sees it, such as 127.0.0.1 or db1."
    )
    remote_port: TargetPort
    bind_address: Bind = Field(default="127.0.0.1", description="Address of this server's machine to listen on.")


class TunnelRemoteParams(OnSession):
    remote_port: Listen
    local_host: Host = Field(default="127.0.0.1", description="Where it leads, as this server's machine sees it.")
    local_port: TargetPort
    bind_address: Bind = Field(
        default="127.0.0.1", description="Address of the remote machine to listen on; sshd may allow loopback only."
    )


class TunnelOpenResult(Result):
    tunnel_id: str = Field(description="Id, for tunnel_close.")
    status: TunnelState = Field(description="active.")
    type: Literal["local", "remote"] = Field(description="local or remote.")
    bind_address: str = Field(description="Address it listens on.")
    port: int = Field(description="Port it listens on.")


@tool(
    Risk.CHANGE,
    room="tunnel",
    audit="opened a tunnel from {result.bind_address} port {result.port} here to {remote_host} port {remote_port}",
)
async def local(host: Session, params: TunnelLocalParams, call: Call) -> TunnelOpenResult:
    """Forward a port of this server's machine to a host and port that the remote machine can reach, as `ssh -L` does.

    Use it to reach a database or web page that only the remote machine sees. It ends with the session.
    """
    _may_bind(call.caller, params.bind_address)
    return await _open(
        host, Tunnel("local", params.bind_address, params.local_port, params.remote_host, params.remote_port)
    )


@tool(
    Risk.CHANGE,
    room="tunnel",
    role=Role.ADMIN,
    audit="opened a tunnel from {result.bind_address} port {result.port} there to {local_host} port {local_port} here",
)
async def remote(host: Session, params: TunnelRemoteParams, call: Call) -> TunnelOpenResult:
    """Forward a port of the remote machine to a host and port that this server's machine can reach, as `ssh -R` does.

    It opens this server's network to the remote machine, so it is for admins. It ends with the session.
    """
    return await _open(
        host, Tunnel("remote", params.bind_address, params.remote_port, params.local_host, params.local_port)
    )


async def _open(host: Session, tunnel: Tunnel) -> TunnelOpenResult:
    opened = await host.tunnels.open(tunnel)
    return TunnelOpenResult(
        tunnel_id=opened.id,
        status=opened.life.state,
        type=opened.type,
        bind_address=opened.bind_address,
        port=opened.port,
    )


def _may_bind(caller: Caller, address: str) -> None:
    if caller.owner or caller.role is Role.ADMIN:
        return
    if not binds_loopback(address):
        raise Refused(
            "bind_address: only admins may listen beyond this server's machine itself",
            hint="use 127.0.0.1 or ::1, or a token with the role admin",
        )


class TunnelFacts(Result):
    type: Literal["local", "remote"] = Field(description="local or remote.")
    status: TunnelState = Field(description="active; failed where the link is lost.")
    bind_address: str = Field(description="Address it listens on.")
    local_port: int = Field(description="Port on this server's side.")
    remote_port: int = Field(description="Port on the remote machine's side.")
    remote_host: str | None = Field(description="Where a local one leads.")
    local_host: str | None = Field(description="Where a remote one leads.")
    reason: str | None = Field(default=None, description="Why it failed.")


class TunnelListResult(Result):
    tunnels: dict[str, TunnelFacts] = Field(description="The session's tunnels by id.")
    count: int = Field(description="How many.")


@tool(Risk.READ, room="tunnel", name="list")
async def list_tunnels(host: Session, params: OnSession, call: Call) -> TunnelListResult:
    """List the tunnels of a session, and whether each works."""
    facts = {each.id: _facts(each) for each in host.tunnels.all()}
    return TunnelListResult(tunnels=facts, count=len(facts))


def _facts(tunnel: Tunnel) -> TunnelFacts:
    local = tunnel.type == "local"
    facts = TunnelFacts(
        type=tunnel.type,
        status=tunnel.life.state,
        bind_address=tunnel.bind_address,
        local_port=tunnel.port if local else tunnel.target_port,
        remote_port=tunnel.target_port if local else tunnel.port,
        remote_host=tunnel.target_host if local else None,
        local_host=None if local else tunnel.target_host,
    )
    if tunnel.life.reason:
        facts.reason = tunnel.life.reason
    return facts


class TunnelCloseParams(OnSession):
    tunnel_id: ShellText = Field(min_length=1, max_length=64, description="Id from tunnel_list.")


class TunnelCloseResult(Result):
    status: Literal["closed"] = Field(description="Always `closed`.")
    tunnel_id: str = Field(description="The tunnel that was closed.")


@tool(Risk.CHANGE, room="tunnel", audit="closed the tunnel {tunnel_id}")
async def close(host: Session, params: TunnelCloseParams, call: Call) -> TunnelCloseResult:
    """Close one tunnel; connections through it end."""
    closed = await host.tunnels.close(params.tunnel_id)
    return TunnelCloseResult(status="closed", tunnel_id=closed.id)


class TunnelCloseAllResult(Result):
    status: Literal["closed"] = Field(description="Always `closed`.")
    count: int = Field(description="How many were closed.")


@tool(
    Risk.CHANGE,
    room="tunnel",
    idempotent=True,
    audit=(
        (lambda _, said: said.get("count") == 0, "nothing to change: no tunnel was open"),
        (always, "closed all tunnels: {result.count}"),
    ),
)
async def close_all(host: Session, params: OnSession, call: Call) -> TunnelCloseAllResult:
    """Close every tunnel of a session."""
    return TunnelCloseAllResult(status="closed", count=await host.tunnels.close_all())
