"""Saved connections: machines by name, so that a name is all another tool needs."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from mcp_ssh.app import App
from mcp_ssh.errors import Conflict, InvalidInput, Refused
from mcp_ssh.host_patterns import Machine
from mcp_ssh.params import HostName, LocalPath, LoginName, Params, Result, Secret, ShellText
from mcp_ssh.policy import may_use_identities
from mcp_ssh.sessions.login_planner import is_owners_alias
from mcp_ssh.ssh.auth import private_keys
from mcp_ssh.store.connections import MAX_NAME_CHARS, ConnectionTarget, SavedConnection, SecretName
from mcp_ssh.tool import Call, Risk, tool

ConnectionName = Annotated[
    ShellText,
    Field(
        min_length=1,
        max_length=MAX_NAME_CHARS,
        description="Name of one of your connections, or number or uuid of any you may see.",
    ),
]


class ConnectionAddParams(Params):
    name: ShellText = Field(
        min_length=1,
        max_length=MAX_NAME_CHARS,
        description="Name to call it by, such as web1; then usable as session_id of every tool.",
    )
    host: HostName = Field(min_length=1, max_length=255, description="Host name or address of the machine.")
    port: int | None = Field(default=None, ge=1, le=65535, description="TCP port of its SSH server. Default 22.")
    username: LoginName = Field(min_length=1, max_length=255, description="Account to log in as.")
    category: ShellText | None = Field(
        default=None, min_length=1, max_length=255, description="What to file it under, such as prod/web."
    )
    password: Secret | None = Field(default=None, description="Password of that account.")
    key_path: LocalPath | None = Field(
        default=None, max_length=4096, description="Private key file on the machine this server runs on."
    )
    key_passphrase: Secret | None = Field(default=None, description="Passphrase of an encrypted private key.")
    key_content: Secret | None = Field(default=None, description="A private key itself, its file encoded as base64.")
    use_agent: bool = Field(default=False, description="Log in with the keys of this server's ssh-agent.")
    replace: bool = Field(
        default=False, description="True: overwrite all of a connection with this name, its secrets included."
    )

    @field_validator("host")
    @classmethod
    def _one_host(cls, host: str) -> str:
        if any(each in host for each in " \t\r\n,/@"):
            raise ValueError(
                "must be a host name or an address alone; the account goes into username, the port into port"
            )
        return host.removeprefix("[").removesuffix("]")


class ConnectionResult(Result):
    id: int = Field(description="Its number.")
    uuid: str = Field(description="Its id for programs; it stays when the connection is replaced.")
    name: str = Field(description="Its name; usable as session_id.")
    host: str = Field(description="The machine.")
    port: int = Field(description="The SSH port.")
    username: str = Field(description="The account.")
    category: str | None = Field(default=None, description="What it is filed under.")
    secrets: list[SecretName] = Field(description="Which secrets are kept, sealed; no tool shows them.")
    key_path: str | None = Field(default=None, description="Private key file on the machine this server runs on.")
    use_agent: bool | None = Field(default=None, description="True where this server's ssh-agent logs in.")
    owner: str = Field(description="The caller that saved it.")
    created_at: str = Field(description="When it was saved first, UTC.")
    updated_at: str = Field(description="When it was last replaced, UTC.")
    last_used_at: str | None = Field(default=None, description="When it was last connected through, UTC.")


@tool(Risk.CHANGE, room="connection", audit="saved the connection {name} to {username}@{host}")
async def add(app: App, params: ConnectionAddParams, call: Call) -> ConnectionResult:
    """Save a machine under a name, with what it takes to log in.

    The name then works as session_id of every tool and connects on first use. Nothing is sent to the machine. Secrets
    are sealed and never shown again. Without any, the server owner's keys and ~/.ssh/config log in. Only the caller
    that saved it uses it by name; admins see it, and use it by uuid.
    """
    await _check_alias(call, params.name)
    await _check_login(app, params, call)
    given: dict[SecretName, SecretStr | None] = {
        "password": params.password,
        "key_content": params.key_content,
        "key_passphrase": params.key_passphrase,
    }
    saved = await app.store.connections.add(
        call.caller,
        ConnectionTarget(
            name=params.name,
            category=params.category,
            host=params.host,
            port=params.port,
            username=params.username,
            key_path=params.key_path,
            use_agent=params.use_agent,
        ),
        {name: value for name, value in given.items() if value is not None},
        replace=params.replace,
    )
    app.sessions.forget_name(saved.owner, saved.name, saved.uuid)
    return _result_of(app, saved)


async def _check_alias(call: Call, name: str) -> None:
    """Refuse a name that already means a machine to the server's owner and to admins.

    Raises:
        Conflict: It is an alias of ~/.ssh/config, and the caller is not the owner.
    """
    if not call.caller.owner and await is_owners_alias(name):
        raise Conflict(
            f"name: {name!r} is an alias in the ssh_config of this server's owner", hint="choose another name"
        )


async def _check_login(app: App, params: ConnectionAddParams, call: Call) -> None:
    """See that there is a way to log in which this caller may use, and that the keys are keys.

    The owner's own keys and ~/.ssh/config are a way, too, for those who may use them.

    Raises:
        InvalidInput: No way at all, or a key that cannot be used.
        Refused: The owner's identities, and they are not for this caller.
    """
    owned = may_use_identities(call.caller, Machine.of([params.host]), app.config.security)
    if (params.key_path or params.use_agent) and not owned:
        raise Refused(
            "key_path and use_agent log in as this server's owner, which your role may not for this host",
            hint="give the key as `key_content`, or have the owner add the host to security.allow_server_identities",
        )
    if not (owned or params.password or params.key_content):
        raise InvalidInput("nothing to log in with: no password and no key", hint="give `password` or `key_content`")
    if params.key_path:
        await private_keys.from_path(params.key_path, params.key_passphrase)
    if params.key_content:
        await private_keys.from_content(params.key_content, params.key_passphrase)


class ConnectionParams(Params):
    connection: ConnectionName


@tool(Risk.READ, room="connection")
async def info(app: App, params: ConnectionParams, call: Call) -> ConnectionResult:
    """Show a saved connection: machine, account, and which secrets are kept, never the secrets themselves."""
    return _result_of(app, await app.store.connections.find(call.caller, params.connection))


class ConnectionQueryParams(Params):
    name: ShellText = Field(
        default="*", max_length=MAX_NAME_CHARS, description="Name; * and ? match as in a shell, letter case is ignored."
    )
    category: ShellText | None = Field(
        default=None, max_length=255, description="Category, matched likewise. Omitted: any, and those without one."
    )
    limit: int = Field(default=200, ge=1, le=1000, description="Connections in one answer at most.")
    after: ShellText = Field(
        default="", max_length=MAX_NAME_CHARS + 20, description="Where to begin: next_after of the last answer."
    )


class ConnectionQueryResult(Result):
    connections: list[ConnectionResult] = Field(description="The connections that fit, by name.")
    next_after: str | None = Field(default=None, description="What to give as `after` for the rest; unset at the end.")


@tool(Risk.READ, room="connection")
async def query(app: App, params: ConnectionQueryParams, call: Call) -> ConnectionQueryResult:
    """List saved connections, all or those whose name and category fit a pattern.

    Those that other callers saved are shown to admins only.
    """
    found, after = await app.store.connections.page(
        call.caller, params.name, params.category, limit=params.limit, after=params.after
    )
    answer = ConnectionQueryResult(connections=[_result_of(app, each) for each in found])
    if after is not None:
        answer.next_after = after
    return answer


class ConnectionRemoveResult(Result):
    status: Literal["removed"] = Field(description="Always `removed`.")
    id: int = Field(description="The number it had.")
    uuid: str = Field(description="The uuid it had.")
    name: str = Field(description="The name it had.")


@tool(Risk.CHANGE, room="connection", audit="removed the saved connection {result.name}")
async def remove(app: App, params: ConnectionParams, call: Call) -> ConnectionRemoveResult:
    """Forget a saved connection and its secrets.

    Sessions that are open through it stay open under their ids.
    """
    gone = await app.store.connections.remove(call.caller, params.connection)
    app.sessions.forget_name(gone.owner, gone.name, gone.uuid)
    return ConnectionRemoveResult(status="removed", id=gone.id, uuid=gone.uuid, name=gone.name)


def _result_of(app: App, saved: SavedConnection) -> ConnectionResult:
    optional = {
        "category": saved.category,
        "key_path": saved.key_path,
        "use_agent": saved.use_agent or None,
        "last_used_at": saved.last_used_at,
    }
    return ConnectionResult.model_validate(
        {
            **saved.model_dump(include={"id", "uuid", "name", "host", "username", "owner", "created_at", "updated_at"}),
            "port": saved.port or app.config.ssh.default_port,
            "secrets": list(saved.secrets),
            **{name: value for name, value in optional.items() if value is not None},
        }
    )
