"""What every request passes first, /mcp included: framing, Host, Origin, token, size; and what every answer carries."""

import ipaddress
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_ssh.dispatch import internal
from mcp_ssh.errors import Refused, ToolError
from rest_bridge.api.request import announces_body, check_announced
from rest_bridge.errors import BadFraming, ErrorFormats, SlowRequest, WrongHost, set_error_format
from rest_bridge.http.auth import Identify, admit, anybody, is_public, token_of_query
from rest_bridge.http.browsers import ActingGets, refuse_other_sites, refuse_pages_without_token
from rest_bridge.http.request_target import check_encoding, check_framing, settle_target
from rest_bridge.responses import refusal

STRICT_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_OURS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_REPLACED = frozenset({b"cache-control", *(name for name, _ in _OURS)})
BODY_LIMIT_S = 60.0
"""How long a request body may take to arrive."""

_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


class HostOriginPolicy:
    """The Host and Origin headers this server answers to: its guard against DNS rebinding and foreign pages."""

    def __init__(self, bound: str, hosts: Iterable[str], origins: Iterable[str]) -> None:
        own = {*_LOOPBACK_NAMES} if _is_wildcard(bound) else {*_LOOPBACK_NAMES, bound.lower()}
        self._own = frozenset(own)
        self._hosts = frozenset(each.lower() for each in hosts)
        self.origins = frozenset(each.lower().rstrip("/") for each in origins)

    def check(self, headers: Headers, scheme: str = "http") -> None:
        """Refuse a request that was meant for another server, or that a foreign page makes.

        Raises:
            WrongHost: The Host header is missing, double, or not our own.
            Refused: The Origin is neither ours nor configured.
        """
        hosts = [each.lower() for each in headers.getlist("host")]
        if len(hosts) != 1 or not (self._is_own(hosts[0]) or self._is_configured(hosts[0])):
            raise WrongHost(
                "this server does not answer to that Host header",
                hint="use its own address, or have its owner add the name to server.allowed_hosts",
            )
        for origin in headers.getlist("origin"):
            same = self._is_own(hosts[0]) and origin.lower() == f"{scheme}://{hosts[0]}"
            if not same and origin.lower() not in self.origins:
                raise Refused(
                    "pages of this Origin may not call this server",
                    hint="have its owner add the origin to server.allowed_origins",
                )

    def _is_own(self, host: str) -> bool:
        return _without_port(host) in self._own

    def _is_configured(self, host: str) -> bool:
        return host in self._hosts or _without_port(host) in self._hosts


def _is_wildcard(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_unspecified
    except ValueError:
        return False


def _without_port(host: str) -> str:
    """A Host header's name, of an IPv6 address without its brackets."""
    name, colon, port = host.rpartition(":")
    if not (colon and (port.isdecimal() or not port)) or (host.startswith("[") and host.endswith("]")):
        name = host
    return name.removeprefix("[").removesuffix("]") if name.startswith("[") else name


class OpenRequests:
    """The requests that are being answered, so that a stopping server can end those that stream without end."""

    def __init__(self) -> None:
        self._streaming: set[anyio.CancelScope] = set()

    def add(self, scope: anyio.CancelScope) -> None:
        """Note an answer that has begun."""
        self._streaming.add(scope)

    def discard(self, scope: anyio.CancelScope) -> None:
        """Forget an answer that is complete."""
        self._streaming.discard(scope)

    def end(self) -> None:
        """End every answer that has begun and is not complete."""
        for scope in list(self._streaming):
            scope.cancel()


class HttpMiddleware:
    """ASGI middleware around everything.

    Args:
        app: What comes behind it.
        plain: Endpoints by path that are called at once: the framework's way to them costs as much as all checks here.
        formats: How errors look, by path.
        names: Which Host and Origin headers pass.
        identify: Who calls.
        limit_bytes: The largest body.
        open_requests: Where answers are noted while they are on their way.
        slashless: The paths that are the same with a final slash.
        streams: Paths where the token may be in the address.
        acting: Where a GET acts.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        plain: Mapping[str, ASGIApp],
        formats: ErrorFormats,
        names: HostOriginPolicy,
        identify: Identify,
        limit_bytes: int,
        open_requests: OpenRequests,
        slashless: frozenset[str],
        streams: frozenset[str],
        acting: ActingGets,
    ) -> None:
        self._app = app
        self._plain = plain
        self._formats = formats
        self._slashless = slashless
        self._streams = streams
        self._acting = acting
        self._names = names
        self._identify = identify
        self._limit_bytes = limit_bytes
        self._open_requests = open_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit a request or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            set_error_format(scope, self._formats.of(scope["path"]))
            await self._request(scope, receive, send)
        else:
            # There is no WebSocket route, and one that comes must not be open by accident.
            await send({"type": "websocket.close", "code": 1008})

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._plain.get(scope["path"])
        if endpoint is not None and scope["path"] not in self._streams:
            # It answers at once and whole, so there is never anything of it to cut off.
            await self._handle_admitted(scope, receive, _Sending(send))
            return
        cancel = anyio.CancelScope()
        answer = _Watched(send, self._open_requests, cancel)
        try:
            with cancel:
                await self._handle_admitted(scope, receive, answer)
        finally:
            self._open_requests.discard(cancel)
        if cancel.cancelled_caught:
            await answer.finish()

    async def _handle_admitted(self, scope: Scope, receive: Receive, answer: "_Sending") -> None:
        try:
            await self._check(scope)
            endpoint = self._plain.get(scope["path"], self._app)
            if announces_body(Headers(scope=scope)):
                await _within_limit(endpoint, scope, receive, answer)
            else:
                await endpoint(scope, receive, answer)
        except ToolError as error:
            # What follows on the connection of such a request may be the rest of its body.
            closing = {"Connection": "close"} if isinstance(error, BadFraming | SlowRequest) else None
            await refusal(scope, error, closing)(scope, receive, answer)
        except Exception as error:  # noqa: BLE001 whatever it is, the client gets an answer and the log the rest
            fault = internal(error, f"{scope['method']} request")
            if not answer.started:
                await refusal(scope, fault)(scope, receive, answer)

    async def _check(self, scope: Scope) -> None:
        """Judge a request of either scope type; a WebSocket begins as a GET."""
        check_framing(scope)
        settle_target(scope, self._slashless)
        headers = Headers(scope=scope)
        path = scope["path"]
        self._names.check(headers, scope["scheme"])
        refuse_other_sites(headers, self._names.origins)
        if not is_public(path):
            if self._identify is anybody:
                refuse_pages_without_token(scope.get("method", "GET"), path, headers, self._acting)
            admit(scope, await self._identify(token_of_query(scope) if path in self._streams else headers))
        check_encoding(scope)
        check_announced(headers, self._limit_bytes)


async def _within_limit(endpoint: ASGIApp, scope: Scope, receive: Receive, answer: "_Sending") -> None:
    """Answer a request whose body arrives in time; its application sees one that does not as a client that left.

    Raises:
        SlowRequest: The body did not arrive in time, and no answer has begun.
    """
    body = _Body(receive)
    waiting = _UnlessLate(answer, body)
    try:
        await endpoint(scope, body, waiting)
    except Exception:
        if not body.late:
            raise
    if body.late and not answer.started:
        raise SlowRequest(f"the request body did not arrive within {BODY_LIMIT_S:g} s")


class _Body:
    """The messages of a request whose body has a deadline."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._deadline = anyio.current_time() + BODY_LIMIT_S
        self._complete = False
        self.late = False

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        with anyio.CancelScope(deadline=self._deadline):
            message = await self._receive()
            self._complete = not message.get("more_body", False)
            return message
        self.late = self._complete = True
        return {"type": "http.disconnect"}


class _UnlessLate:
    """Sends what an application answers, but not what it says of a body that was late."""

    def __init__(self, answer: "_Sending", body: _Body) -> None:
        self._answer = answer
        self._body = body

    async def __call__(self, message: Message) -> None:
        if self._answer.started or not self._body.late:
            await self._answer(message)


class _Sending:
    """An answer on its way, given its headers."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            _secure(message)
        await self._send(message)


class _Watched(_Sending):
    """An answer that may stream: watched for its end, and noted among the open ones up to there."""

    def __init__(self, send: Send, open_requests: OpenRequests, cancel: anyio.CancelScope) -> None:
        super().__init__(send)
        self._open_requests = open_requests
        self._cancel = cancel
        self._complete = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self._complete = not message.get("more_body", False)
        await super().__call__(message)
        (self._open_requests.discard if self._complete else self._open_requests.add)(self._cancel)

    async def finish(self) -> None:
        """End an answer that was cut off, so that the client sees an end."""
        if self.started and not self._complete:
            with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _secure(message: MutableMapping[str, Any]) -> None:
    given: dict[bytes, bytes] = dict(message.get("headers", ()))
    streams = given.get(b"content-type", b"").startswith(b"text/event-stream")
    message["headers"] = [
        *(each for each in message.get("headers", ()) if each[0] not in _REPLACED),
        *_OURS,
        (b"cache-control", b"no-store, no-transform" if streams else b"no-store"),
    ]
    if b"content-security-policy" not in given:
        message["headers"].append((b"content-security-policy", STRICT_POLICY.encode()))
