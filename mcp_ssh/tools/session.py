"""Sessions: connect to a machine, see what is open, disconnect."""

import os
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from mcp_ssh.app import App
from mcp_ssh.errors import InvalidInput, Refused
from mcp_ssh.params import Params, Result, ShellText
from mcp_ssh.policy import may_use_defaults, may_use_identities
from mcp_ssh.ssh import keys
from mcp_ssh.ssh.connect import Attempts, Login, open_session
from mcp_ssh.ssh.session import Session
from mcp_ssh.tool import Call, Risk, tool


class Connect(Params):
    host: ShellText | None = Field(default=None, max_length=255, description="Host name or address of the machine.")
    port: int | None = Field(default=None, ge=1, le=65535, description="TCP port of its SSH server. Default 22.")
    username: ShellText | None = Field(default=None, max_length=255, description="Account to log in as.")
    password: SecretStr | None = Field(default=None, description="Password of that account.")
    key_path: ShellText | None = Field(
        default=None, max_length=4096, description="Private key file on the machine this server runs on."
    )
    key_passphrase: SecretStr | None = Field(default=None, description="Passphrase of an encrypted private key.")
    key_content: SecretStr | None = Field(default=None, description="A private key itself, its file encoded as base64.")
    use_agent: bool = Field(default=False, description="Log in with the keys of this server's ssh-agent.")
    keepalive: bool = Field(default=True, description="Ask the machine now and then whether it is there.")
    retries: int = Field(default=3, ge=1, le=10, description="Tries in all on network failures; logins are tried once.")
    retry_delay: float = Field(
        default=1.0, ge=0.1, le=30, description="Seconds before the second try; doubled for each one after."
    )
    timeout: float | None = Field(
        default=None, gt=0, le=600, description="Seconds for everything, retries included. Default from config, 30."
    )

    @field_validator("host")
    @classmethod
    def _one_host(cls, host: str | None) -> str | None:
        if host is not None and any(each in host for each in " \t\r\n,/@"):
            raise ValueError(
                "must be a host name or an address alone; the account goes into username, the port into port"
            )
        return host.removeprefix("[").removesuffix("]") if host else host

    def time_limit_s(self) -> float:
        """Longer than any deadline inside."""
        return (self.timeout or 600.0) + 5.0


class Connected(Result):
    status: Literal["connected"] = Field(description="Always `connected`.")
    session_id: str = Field(description="12 hex digits; pass it to other tools.")
    host: str = Field(description="The machine.")
    username: str = Field(description="The account.")
    features: list[str] = Field(description="What the account may use: sftp, shell, exec, background_tasks, tunnels.")


class ById(Params):
    session_id: ShellText = Field(
        min_length=1, max_length=512, description="Session id, or user@host[:port] of a live session."
    )


class Disconnected(Result):
    status: Literal["disconnected"] = Field(description="Always `disconnected`.")
    session_id: str = Field(description="The session that ended.")


class Status(Result):
    session_id: str = Field(description="The session.")
    connected: bool = Field(description="Whether its link stands.")
    host: str = Field(description="The machine.")
    username: str = Field(description="The account.")


class Nothing(Params):
    pass


class Listed(Result):
    connected: bool = Field(description="Whether its link stands.")
    host: str = Field(description="The machine.")
    username: str = Field(description="The account.")
    port: int = Field(description="The port.")


class Sessions(Result):
    sessions: dict[str, Listed] = Field(description="Your sessions by id, oldest first.")


@tool(Risk.READ, idempotent=False, open_world=True)
async def connect(app: App, params: Connect, call: Call) -> Connected:
    """Connect to a Linux machine over SSH and keep the session open for other tools.

    Give host and username, and one of password, key_path, key_content or use_agent. What is left out comes from the
    server's config. An unknown host key is refused with its fingerprint: let the user compare it, then hostkey_accept.
    A refused login is not tried again.
    """
    login = await _login(app, params, call)
    timeout_s = params.timeout or app.config.ssh.timeout
    attempts = Attempts(retries=params.retries, delay_s=params.retry_delay, timeout_s=timeout_s)

    async def make() -> Session:
        return await open_session(
            call.caller, login, attempts, host_keys=app.hostkeys, config=app.config, blobs=app.blobs
        )

    session = await app.sessions.open(call.caller, make)
    return Connected(
        status="connected",
        session_id=session.id,
        host=session.host,
        username=session.username,
        features=list(session.account.features),
    )


@tool(Risk.READ, idempotent=False)
async def disconnect(app: App, params: ById, call: Call) -> Disconnected:
    """Close a session and its connection.

    Commands that are running on it are ended first.
    """
    session = app.sessions.find(call.caller, params.session_id)
    await app.sessions.close(session)
    return Disconnected(status="disconnected", session_id=session.id)


@tool(Risk.READ)
async def status(app: App, params: ById, call: Call) -> Status:
    """Say whether a session is still connected.

    A dead link is found by keepalives, within three of ssh.keepalive_interval.
    """
    session = app.sessions.find(call.caller, params.session_id)
    return Status(session_id=session.id, connected=session.connected, host=session.host, username=session.username)


@tool(Risk.READ)
async def list_(app: App, params: Nothing, call: Call) -> Sessions:
    """List your open SSH sessions."""
    return Sessions(
        sessions={
            each.id: Listed(connected=each.connected, host=each.host, username=each.username, port=each.port)
            for each in app.sessions.seen_by(call.caller)
        }
    )


async def _login(app: App, params: Connect, call: Call) -> Login:
    """Fill in what the config has for fields that were left out, and read the keys.

    Configured secrets go to the configured host and account only: whoever names another host gets none of them.

    Raises:
        InvalidInput: No host or username, nothing to log in with, or a key that cannot be used.
        Refused: This caller may not use key files or the agent of this server's owner.
    """
    auth = app.config.auth
    host, username = params.host or auth.default_host, params.username or auth.default_username
    if not host:
        raise InvalidInput("host: is required", hint="give host, or set auth.default_host in config.json")
    if not username:
        raise InvalidInput("username: is required", hint="give username, or set auth.default_username in config.json")
    given = any((params.password, params.key_path, params.key_content, params.use_agent))
    configured = not given and may_use_defaults(params.host, params.username, auth)
    key_path = auth.default_key_path if configured else params.key_path
    passphrase = params.key_passphrase or (auth.default_key_passphrase if configured else None)
    password = params.password or (auth.default_password if configured and auth.default_password else None)
    if (params.key_path or params.use_agent) and not may_use_identities(call.caller, host, app.config.security):
        raise Refused(
            "key_path and use_agent log in as this server's owner, which your role may not for this host",
            hint="send the key as key_content, or have the owner add the host to security.allow_server_identities",
        )
    loaded = [await keys.from_path(key_path, passphrase)] if key_path else []
    if params.key_content:
        loaded.append(await keys.from_content(params.key_content, passphrase))
    if not (loaded or password or params.use_agent):
        raise InvalidInput(
            "nothing to log in with: no password, no key and no agent",
            hint="give one of password, key_path, key_content, or use_agent: true",
        )
    return Login(
        host=host,
        port=params.port or app.config.ssh.default_port,
        username=username,
        password=password,
        keys=tuple(loaded),
        agent_path=_agent_path() if params.use_agent else None,
        keepalive=params.keepalive,
    )


def _agent_path() -> str:
    path = os.environ.get("SSH_AUTH_SOCK")
    if not path:
        raise InvalidInput("use_agent: this server runs without an ssh-agent", hint="use another way to log in")
    return path
