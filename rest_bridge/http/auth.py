"""Who calls over HTTP, and whether this address may be asked without a token."""

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, cast
from urllib.parse import unquote_to_bytes

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.datastructures import Headers
from starlette.types import Scope

from mcp_ssh.config.models import ServerConfig
from mcp_ssh.errors import InvalidInput, Unauthenticated
from mcp_ssh.host_patterns import binds_loopback
from mcp_ssh.mcp_server import CALLER_KEY
from mcp_ssh.tool import Caller, Role

ANYBODY = Caller("local", Role.ADMIN)
"""Every caller where `server.auth_mode` is `none`."""


class Token(Protocol):
    """What a token says of its holder."""

    @property
    def id(self) -> str:
        """The caller's id."""
        ...

    @property
    def role(self) -> Role:
        """What the holder may do."""
        ...

    @property
    def hosts(self) -> tuple[str, ...] | None:
        """Patterns of the machines it is for; `None` sets no bounds."""
        ...


class Tokens(Protocol):
    """Where tokens are known."""

    async def find(self, secret: str) -> Token | None:
        """The token with this secret."""
        ...


Identify = Callable[[Headers], Awaitable[Caller]]

_PUBLIC = frozenset({"/", "/docs", "/redoc", "/openapi.json", "/guide", "/prompts", "/llms.txt"})
_PUBLIC_BELOW = ("/docs/", "/redoc/")
_HINT = "send the header Authorization: Bearer TOKEN; `ssh-steward token add NAME` makes a token"


def is_public(path: str) -> bool:
    """Whether a path is answered without a token: what the server is, and how it is used."""
    return path in _PUBLIC or path.startswith(_PUBLIC_BELOW)


def by_token(tokens: Tokens) -> Identify:
    """Tell callers by the bearer token in the Authorization header, and by nothing else."""

    async def identify(headers: Headers) -> Caller:
        given = headers.getlist("authorization")
        if not given:
            raise Unauthenticated("a token is needed", hint=_HINT)
        scheme, _, secret = given[0].partition(" ")
        if len(given) > 1 or scheme.lower() != "bearer":
            raise Unauthenticated("the Authorization header must be one bearer token", hint=_HINT)
        token = await tokens.find(secret.strip())
        if token is None:
            raise Unauthenticated("this token is not known here, or was revoked", hint=_HINT)
        return Caller(token.id, token.role, hosts=token.hosts)

    return identify


async def anybody(headers: Headers) -> Caller:
    """Everyone who reaches a loopback address is the local admin."""
    del headers
    return ANYBODY


def token_of_query(scope: Scope) -> Headers:
    """The headers of a request, with a `?token=` as its Authorization header: an EventSource can send none.

    The token is taken out of the request's address, so that nothing behind the middleware can log it.

    Raises:
        Unauthenticated: There is a header as well, or more than one token.
    """
    parts = scope["query_string"].split(b"&")
    tokens = [each for each in parts if each.startswith(b"token=")]
    headers = Headers(scope=scope)
    if not tokens:
        return headers
    scope["query_string"] = b"&".join(each for each in parts if each not in tokens)
    if len(tokens) > 1 or "authorization" in headers:
        raise Unauthenticated("give one token, in the Authorization header or as ?token=", hint=_HINT)
    secret = unquote_to_bytes(tokens[0].removeprefix(b"token=").replace(b"+", b" "))
    return Headers(raw=[*headers.raw, (b"authorization", b"Bearer " + secret)])


def admit(scope: Scope, caller: Caller) -> None:
    """Put the caller where the routes, the MCP server and the MCP SDK look for it.

    The SDK ties its sessions and its resumable requests to the user it finds, so none can be used with another token.
    """
    scope[CALLER_KEY] = caller
    scope["user"] = _user(caller.id)


@functools.lru_cache
def _user(caller_id: str) -> AuthenticatedUser:
    return AuthenticatedUser(AccessToken(token="", client_id=caller_id, scopes=[]))


def caller_of(scope: Mapping[str, object]) -> Caller:
    """The caller of an admitted request."""
    return cast("Caller", scope[CALLER_KEY])


def identify_for(server: ServerConfig, tokens: Tokens, bound: str) -> Identify:
    """How callers are told apart here.

    Raises:
        InvalidInput: Calls without a token were configured for an address beyond this machine.
    """
    if server.auth_mode == "token":
        return by_token(tokens)
    if not binds_loopback(bound) or server.behind_proxy:
        raise InvalidInput(
            "server.auth_mode none lets anybody in, so it is for a loopback address without a proxy in front",
            hint='set server.auth_mode to "token", or listen on 127.0.0.1 without behind_proxy',
        )
    return anybody
