"""Sessions: connect to a machine, see what is open, disconnect."""

import contextlib
from collections.abc import Generator
from typing import Literal

from pydantic import Field

from mcp_ssh.app import App
from mcp_ssh.errors import AuthFailed, ConnectFailed, HostKeyUnconfirmed, TimedOut
from mcp_ssh.params import Params, Result, ShellText
from mcp_ssh.sessions.target import Connect
from mcp_ssh.tool import Call, Caller, Risk, tool


class SessionConnectResult(Result):
    status: Literal["connected"] = Field(description="Always `connected`.")
    session_id: str = Field(description="12 hex digits; pass it to other tools.")
    host: str = Field(description="The machine.")
    username: str = Field(description="The account.")
    features: list[str] = Field(description="What the account may use: sftp, shell, exec, background_tasks, tunnels.")


class SessionParams(Params):
    session_id: ShellText = Field(
        min_length=1,
        max_length=512,
        description="Session id, or user@host[:port] or the name of one of your own sessions.",
    )


class SessionDisconnectResult(Result):
    status: Literal["disconnected"] = Field(description="Always `disconnected`.")
    session_id: str = Field(description="The session that ended.")
    stopped: bool | Literal["unknown"] | None = Field(
        default=None, description="Where commands or shells were running: whether all their processes have ended."
    )
    survivors: list[int] | None = Field(default=None, description="Process ids that could not be ended.")


class SessionStatusResult(Result):
    session_id: str = Field(description="The session.")
    connected: bool = Field(description="Whether its link stands.")
    host: str = Field(description="The machine.")
    username: str = Field(description="The account.")


class SessionListParams(Params):
    pass


class SessionSummary(Result):
    connected: bool = Field(description="Whether its link stands.")
    host: str = Field(description="The machine.")
    username: str = Field(description="The account.")
    port: int = Field(description="The port.")


class SessionListResult(Result):
    sessions: dict[str, SessionSummary] = Field(description="Your sessions by id, oldest first.")


@contextlib.contextmanager
def _count_scan(app: App, caller: Caller) -> Generator[None]:
    """Count a connection that comes to no login among the caller's scans: it tells as much about a port."""
    if caller.owner:
        yield
        return
    app.scans.expect(caller.id)
    try:
        yield
    except AuthFailed:
        raise
    except (ConnectFailed, HostKeyUnconfirmed, TimedOut):
        app.scans.count(caller.id)
        raise


async def _by_name(app: App, caller: Caller, given: Connect) -> tuple[Connect, str | None]:
    """What to connect to where `host` is the name of a saved connection, and the name that the session then has.

    Arguments of the call come before what was saved. Saved secrets are for the saved account alone, so they stay out
    where the call gives another account or port, or another way to log in.
    """
    saved = await app.find_named_target(caller, given.host) if given.host else None
    if saved is None or saved == {"host": given.host}:  # an alias: its options are read where the login is made
        return given, None
    more = {name: getattr(given, name) for name in given.model_fields_set if name != "host"}
    more = {name: value for name, value in more.items() if value is not None}
    same = all(name not in more or more[name] == saved.get(name) for name in ("username", "port"))
    if not same or any(more.get(name) for name in ("password", "key_path", "key_content", "use_agent")):
        saved = {name: value for name, value in saved.items() if name in {"host", "username", "port"}}
    return Connect.model_validate({**saved, **more}), given.host if same else None


@tool(Risk.READ, room="session", idempotent=False, open_world=True)
async def connect(app: App, params: Connect, call: Call) -> SessionConnectResult:
    """Connect to a Linux machine over SSH and keep the session open for other tools.

    What is left out comes from the server's config, and for its owner from ~/.ssh/config, whose aliases and jump hosts
    work. Leave passwords out: where a secret is missing or the host key is new, the user is asked past you. Where
    that cannot be, the error says what to give; for a host key let the user compare the fingerprint, then
    hostkey_accept. A refused login is not tried again.
    """
    version = await app.store.connections.version(call.caller, params.host) if params.host else None
    wanted, name = await _by_name(app, call.caller, params)
    with _count_scan(app, call.caller):
        session = await app.sessions.open(call.caller, lambda: app.asking(call).open(wanted))
    if name is not None:
        session.alias, session.name_version = name, version
    return SessionConnectResult(
        status="connected",
        session_id=session.id,
        host=session.host,
        username=session.username,
        features=list(session.account.features),
    )


@tool(Risk.READ, room="session", idempotent=False)
async def disconnect(app: App, params: SessionParams, call: Call) -> SessionDisconnectResult:
    """Close a session and its connection.

    Commands that are running on it are ended first; `stopped` says whether that worked.
    """
    session = app.sessions.find(call.caller, params.session_id)
    stopped = await app.sessions.close(session)
    ended = SessionDisconnectResult(status="disconnected", session_id=session.id)
    if stopped is not None:
        ended.stopped = stopped.as_field()
        if stopped.survivors:
            ended.survivors = stopped.survivors
    return ended


@tool(Risk.READ, room="session")
async def status(app: App, params: SessionParams, call: Call) -> SessionStatusResult:
    """Say whether a session is still connected.

    A dead link is found by keepalives, within three of ssh.keepalive_interval.
    """
    session = app.sessions.find(call.caller, params.session_id)
    return SessionStatusResult(
        session_id=session.id, connected=session.connected, host=session.host, username=session.username
    )


@tool(Risk.READ, room="session", name="list")
async def list_sessions(app: App, params: SessionListParams, call: Call) -> SessionListResult:
    """List your open SSH sessions."""
    return SessionListResult(
        sessions={
            each.id: SessionSummary(connected=each.connected, host=each.host, username=each.username, port=each.port)
            for each in app.sessions.seen_by(call.caller)
        }
    )
