"""One request: arguments gathered, dispatched, answered; ended when its client leaves."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch, internal, validate
from mcp_ssh.errors import InvalidInput, ToolError, Unauthenticated
from mcp_ssh.params import Result
from mcp_ssh.tool import AnyTool, Caller, Question, ToolStream, TransportName
from rest_bridge.api.request import (
    ClientGone,
    announces_body,
    invalid,
    json_object,
    query_values,
    read_body,
    refuse_unknown,
    takes,
)
from rest_bridge.api.route import Route
from rest_bridge.errors import SemanticError, WrongMethod, error_format_of
from rest_bridge.http.auth import caller_of
from rest_bridge.http.sse import EventStream
from rest_bridge.responses import Answer, refusal, result_response

T = TypeVar("T")

UNWATCHED_S = 0.02
"""How long a call runs before its client is watched. Most end sooner, and the watching would cost more than they do."""

ADMITTED_S = 5.0
"""How often it is looked whether the token of a stream's caller still counts."""


@dataclass
class RestCall:
    """A call through this door: its role is its gate, and nobody can be asked."""

    caller: Caller
    door: TransportName = "rest"
    confirms: bool = False

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """A plain HTTP answer has no place for progress."""
        del done, total, message

    async def need(self, question: Question) -> Mapping[str, Any] | None:
        """Nobody can be asked."""
        del question


class Endpoint:
    """All methods of one path, as an ASGI application."""

    def __init__(self, app: App, routes: Sequence[Route]) -> None:
        self._bound = {each.method: (Bound if each.stream is None else Streaming)(app, each) for each in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; HEAD is not GET here, since a GET may run a command."""
        bound = self._bound.get(scope["method"])
        if bound is None:
            allowed = ", ".join(self._bound)
            error = WrongMethod(f"this path takes {allowed}", hint=f"use {allowed}")
            await refusal(scope, error, {"Allow": allowed})(scope, receive, send)
        else:
            await bound.answer(scope, receive, send)


class Bound:
    """A route with the application it leads into."""

    def __init__(self, app: App, route: Route) -> None:
        self._app = app
        self._route = route
        self._limit_bytes = body_limit(app)
        self._confirms = self._asks_consent()
        self._lay_out()

    def _asks_consent(self) -> bool:
        return self._route.tool.is_in(self._app.config.security.confirm_tools)

    def _lay_out(self) -> None:
        """Work out which arguments this address takes, `confirm` among them where the config asks for it."""
        self._fields = self._route.fields(confirm=self._confirms)
        self._in_query = {wire: each for wire, each in self._fields.items() if each.place == "query"}
        self._in_body = {wire: each for wire, each in self._fields.items() if each.place == "body"}
        self._hint = takes(self._route.address, self._fields)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. A client that leaves cancels the call, and nothing is sent."""
        try:
            arguments = await self._arguments(scope, receive)
            outcome = await _unless_gone(receive, self._answer(arguments, caller_of(scope)))
        except ClientGone:
            return
        except ToolError as error:
            outcome = refusal(scope, error)
        await outcome(scope, receive, send)

    async def _arguments(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        await self._app.live.refresh()
        if (confirms := self._asks_consent()) != self._confirms:
            self._confirms = confirms
            self._lay_out()
        headers = Headers(scope=scope)
        body = await read_body(receive, self._limit_bytes) if announces_body(headers) else b""
        given: dict[str, Any] = {
            **scope.get("path_params", {}),
            **query_values(scope["query_string"], self._in_query, self._hint),
        }
        if body:
            fields = json_object(body, headers)
            refuse_unknown(fields, self._in_body, "field of the body", self._hint)
            given |= fields
        return {**{self._fields[wire].name: value for wire, value in given.items()}, **self._route.fixed}

    async def _answer(self, arguments: dict[str, Any], caller: Caller) -> Answer:
        return self._show_result(await self._call(self._route.tool, arguments, caller))

    async def _call(self, tool: AnyTool, arguments: dict[str, Any], caller: Caller) -> Result:
        try:
            return await dispatch(self._app, tool, arguments, RestCall(caller))
        except InvalidInput as error:
            raise self._in_our_words(error, arguments) from error

    def _show_result(self, result: Result) -> Answer:
        try:
            return result_response(result, self._route.shape)
        except Exception as error:
            raise internal(error, self._route.address) from error

    def _in_our_words(self, error: InvalidInput, arguments: Mapping[str, Any]) -> InvalidInput:
        """Fields that the model refused, under the names they have at this address; else what the tool said."""
        try:
            validate(self._route.tool, {name: value for name, value in arguments.items() if name != "confirm"})
        except InvalidInput as refused:
            wires = {each.name: wire for wire, each in self._fields.items()}
            wrong = {_wire_name(each["field"], wires): each["rule"] for each in refused.details["errors"]}
            return invalid(wrong, self._hint)
        return SemanticError(error.message, hint=error.hint, details=error.details)


class Streaming(Bound):
    """A route whose answer is a stream of events."""

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by events until the stream's end. A client that leaves ends the call, and with it what runs.

        What goes wrong before the first event is an answer as everywhere, and behind that the last event.
        """
        events = EventStream(send)
        try:
            arguments = await self._arguments(scope, receive)
            result = await _unless_gone(receive, self._send_events(arguments, caller_of(scope), events))
        except ClientGone:
            return
        except Exception as error:  # noqa: BLE001 whatever it is, a stream that has begun says how it ends
            fault = error if isinstance(error, ToolError) else internal(error, self._route.address)
            if events.begun:
                await events.fail(error_format_of(scope).body(fault))
            else:
                await refusal(scope, fault)(scope, receive, send)
        else:
            await events.end(result)

    async def _arguments(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        arguments = await super()._arguments(scope, receive)
        if last := Headers(scope=scope).get("last-event-id"):
            arguments[self._stream.resumes] = last
        return arguments

    @property
    def _stream(self) -> ToolStream[Any, Any, Any]:
        assert self._route.stream is not None  # noqa: S101 `Endpoint` looked
        return self._route.stream

    async def _send_events(self, arguments: dict[str, Any], caller: Caller, events: EventStream) -> Result:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(events.keep_alive)
                group.start_soon(self._while_admitted, caller)
                try:
                    return await self._call(self._stream.into(events), arguments, caller)
                finally:
                    group.cancel_scope.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        raise AssertionError("the group ends with the call")

    async def _while_admitted(self, caller: Caller) -> None:
        """Watch over the caller's token.

        Raises:
            Unauthenticated: It was revoked.
        """
        while True:
            await anyio.sleep(ADMITTED_S)
            if caller.id not in await self._app.active_caller_ids():
                raise Unauthenticated("this token was revoked", hint="connect again with another token")


def _wire_name(field: str, wires: Mapping[str, str]) -> str:
    first, dot, rest = field.partition(".")
    return f"{wires.get(first, first)}{dot}{rest}"


def body_limit(app: App) -> int:
    """The largest request body in bytes."""
    return int(app.config.server.max_body_mb * 1024 * 1024)


async def _unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """Work, cancelled when the client leaves.

    Raises:
        ClientGone: It did.
        ToolError: The work failed.
    """
    watching: list[asyncio.Task[None]] = []

    def watch() -> None:
        watching.append(asyncio.create_task(_when_gone(receive, scope)))

    later = asyncio.get_running_loop().call_later(UNWATCHED_S, watch)
    with anyio.CancelScope() as scope:
        try:
            return await work
        finally:
            later.cancel()
            for each in watching:
                each.cancel()
    raise ClientGone


async def _when_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
